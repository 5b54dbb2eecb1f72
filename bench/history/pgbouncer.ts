import { type ChildProcess, spawn } from 'node:child_process'
import { chownSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort, unprivileged } from '../../test/support/databases/postgres.ts'

/** What to do where it is missing. */
export const PGBOUNCER = 'no pgbouncer is here; "npm test" installs it as root on Debian (apt install pgbouncer)'
const READY_MS = 10_000

/** Debian puts it where only root's PATH looks. */
export function findPgbouncer(): string | undefined {
  const folders = ['/usr/sbin', ...(process.env.PATH ?? '').split(delimiter)]
  return folders.map((folder) => join(folder, 'pgbouncer')).find((file) => existsSync(file))
}

/** A pooler of transactions, as a program of its own. */
export interface Pooler {
  readonly port: number
  start(): Promise<void>
  /** SIGKILL. */
  kill(): Promise<void>
  remove(): Promise<void>
}

export async function startPgbouncer(program: string, database: number): Promise<Pooler> {
  const as = await unprivileged()
  const port = await freePort()
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-pgbouncer-'))
  const settings = join(folder, 'pgbouncer.ini')
  writeFileSync(
    settings,
    `[databases]
* = host=127.0.0.1 port=${database} user=palimpsest
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 12
max_client_conn = 200
server_login_retry = 1
`,
  )
  for (const path of [folder, settings]) if (as.uid !== undefined) chownSync(path, as.uid, as.gid ?? as.uid)
  let child: ChildProcess | undefined
  let said = ''
  const start = async () => {
    const started = spawn(program, [settings], { ...as, cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] })
    child = started
    started.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-4_000)
    })
    const end = Date.now() + READY_MS
    while (!(await listens(port))) {
      if (started.exitCode !== null || Date.now() > end) throw new Error(`PgBouncer did not start: ${said}`)
      await sleep(20)
    }
  }
  const kill = async () => {
    const ended = child
    child = undefined
    if (ended === undefined || ended.exitCode !== null || ended.signalCode !== null) return
    const exited = new Promise((resolve) => ended.once('exit', resolve))
    ended.kill('SIGKILL')
    await exited
  }
  const remove = async () => {
    await kill()
    rmSync(folder, { recursive: true, force: true })
  }
  await start()
  return { port, start, kill, remove }
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    const settle = (is: boolean) => {
      socket.destroy()
      resolve(is)
    }
    socket.once('connect', () => settle(true)).once('error', () => settle(false))
  })
}
