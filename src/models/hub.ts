import { type FileHandle, open } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { PalimpsestError } from '../errors.ts'
import type { CatalogModel } from './catalog.ts'
import { fileState } from './checksum.ts'
import { type Gathering, gatheredBytes, type Job, type Source } from './source.ts'

export interface HubOptions {
  /** `https://…`, with or without a slash at the end. */
  readonly endpoint: string
  readonly token?: string | undefined
  /** How long the hub may take to answer at all, before the next source is tried. */
  readonly reachMs?: number
  /** How long a download may stand still before it is cut and resumed. */
  readonly stallMs?: number
  /** Wait before the first resumption; doubled each time one brings nothing. */
  readonly retryMs?: number
}

export const DEFAULT_HUB_ENDPOINT = 'https://huggingface.co'

const REACH_MS = 4_000
const STALL_MS = 30_000
const RETRY_MS = 500
const FRUITLESS_TRIES = 5
const REDIRECTS = 5

/** The connection broke or stood still after the hub had answered: resume. */
class Cut extends Error {}

/** No answer, or one that says "later": resume only what had begun. */
class Unreached extends Error {}

interface Timing {
  readonly reachMs: number
  readonly stallMs: number
  readonly retryMs: number
}

const fault = (message: string, cause?: unknown) => new PalimpsestError('network', message, { cause })

/** One GET, following redirects by hand: the token stays with the hub's own origin, and its first answer carries the file's checksum. */
async function request(
  url: URL,
  from: number,
  token: string | undefined,
  signal: AbortSignal,
): Promise<{ response: Response; linkedSha256: string | null }> {
  let at = url
  let linkedSha256: string | null = null
  for (let hop = 0; hop <= REDIRECTS; hop++) {
    // Without `identity` the body may come compressed, and byte ranges would mean something else.
    const headers: Record<string, string> = { 'accept-encoding': 'identity', 'user-agent': 'palimpsest' }
    if (from > 0) headers.range = `bytes=${from}-`
    if (token !== undefined && at.origin === url.origin) headers.authorization = `Bearer ${token}`
    const response = await fetch(at, { headers, redirect: 'manual', signal })
    const etag = /^"?([0-9a-f]{64})"?$/.exec(response.headers.get('x-linked-etag') ?? '')
    linkedSha256 ??= etag?.[1] ?? null
    const location = response.headers.get('location')
    if (response.status < 300 || response.status >= 400 || location === null) return { response, linkedSha256 }
    await response.body?.cancel()
    at = new URL(location, at)
  }
  throw fault(`The hub redirected more than ${REDIRECTS} times from ${url}.`)
}

function reason(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error
  return inner instanceof Error ? inner.message || inner.name : String(inner)
}

/** Why a status other than 200 and 206 ends the attempt. */
function hubRefused(status: number, url: URL): PalimpsestError {
  const what = `The hub at ${url.origin} answered ${status} for ${url.pathname}`
  if (status === 401 || status === 403) {
    return fault(
      `${what}: the file is gated, or the token is not accepted. Agree to the model's terms on its page there, and set HF_TOKEN to a token of that account.`,
    )
  }
  if (status === 404) return fault(`${what}: there is no such file. If HF_ENDPOINT names a mirror, it may lack this repository.`)
  return fault(`${what}.`)
}

/** Length of the whole file, as the answer states it; null when it does not. */
function statedLength(response: Response): number | null {
  if (response.status === 206) {
    const total = /\/(\d+)$/.exec(response.headers.get('content-range') ?? '')?.[1]
    return total === undefined ? null : Number(total)
  }
  const length = response.headers.get('content-length')
  return length === null ? null : Number(length)
}

/** Appends the body from `position`; returns where it ended. Throws Cut when the line breaks. */
async function append(
  response: Response,
  file: FileHandle,
  position: number,
  limit: number,
  touch: (at: number) => void,
): Promise<number> {
  let at = position
  const reader = response.body?.getReader()
  while (reader !== undefined) {
    const { done, value } = await reader.read().catch((error: unknown) => {
      throw new Cut('the connection broke', { cause: error })
    })
    if (done) break
    if (at + value.length > limit) throw fault(`The hub sent more than the ${limit} bytes expected.`)
    await file.write(value, 0, value.length, at)
    at += value.length
    touch(at)
  }
  return at
}

/** One attempt from where the part file ends. `onBytes`: bytes of this ingredient there now. Throws Cut when it may be resumed. */
async function attempt(
  url: URL,
  gathering: Gathering,
  token: string | undefined,
  timing: Timing,
  job: Job,
  onBytes: (at: number) => void,
): Promise<void> {
  const { partPath, ingredient } = gathering
  const there = (await fileState(partPath))?.bytes ?? 0
  const have = there > ingredient.bytes ? 0 : there
  const abort = new AbortController()
  let timer = setTimeout(() => abort.abort(new Error(`no answer within ${timing.reachMs} ms`)), timing.reachMs)
  const file = await open(partPath, there > 0 ? 'r+' : 'w')
  try {
    const { response, linkedSha256 } = await request(url, have, token, AbortSignal.any([abort.signal, job.signal])).catch(
      (error: unknown) => {
        throw error instanceof PalimpsestError ? error : new Unreached(reason(error), { cause: error })
      },
    )
    if (response.status === 429 || response.status >= 500) throw new Unreached(`it answered ${response.status}`)
    if (response.status === 416) {
      await file.truncate(0)
      throw new Cut('the hub refused to resume')
    }
    if (response.status !== 200 && response.status !== 206) throw hubRefused(response.status, url)
    const stated = statedLength(response)
    if ((stated ?? ingredient.bytes) !== ingredient.bytes)
      throw fault(`The hub's ${ingredient.path} is ${stated} bytes, expected ${ingredient.bytes}: it is another file.`)
    if ((linkedSha256 ?? ingredient.sha256) !== ingredient.sha256)
      throw fault(`The hub's ${ingredient.path} has sha256 ${linkedSha256}, expected ${ingredient.sha256}: it is another file.`)
    // A server that ignores the range answers 200 and starts over.
    const start = response.status === 206 ? have : 0
    await file.truncate(start)
    const rearm = (at: number): void => {
      clearTimeout(timer)
      timer = setTimeout(() => abort.abort(new Error('stalled')), timing.stallMs)
      onBytes(at)
    }
    rearm(start)
    const end = await append(response, file, start, ingredient.bytes, (at) => rearm(at))
    if (end < ingredient.bytes) throw new Cut(`the body ended at byte ${end}`)
    await file.sync()
  } finally {
    clearTimeout(timer)
    // Ends the transfer when we gave up on it.
    abort.abort()
    await file.close()
  }
}

/** Attempts until the file is whole. Before a first byte came, a hub that does not answer ends it: another source may be nearer. */
async function complete(
  url: URL,
  gathering: Gathering,
  token: string | undefined,
  timing: Timing,
  job: Job,
  onBytes: (at: number) => void,
): Promise<void> {
  let last = (await fileState(gathering.partPath))?.bytes ?? 0
  let came = false
  for (let fruitless = 0; ; ) {
    const before = last
    try {
      return await attempt(url, gathering, token, timing, job, (at) => {
        job.meter.fetchedBytes += Math.max(0, at - last)
        came ||= at > last
        last = at
        onBytes(at)
      })
    } catch (error) {
      job.signal.throwIfAborted()
      if (!(error instanceof Cut || error instanceof Unreached)) throw error
      fruitless = last > before ? 0 : fruitless + 1
      if (fruitless > FRUITLESS_TRIES || (error instanceof Unreached && !came)) throw error
      await sleep(timing.retryMs * 2 ** fruitless, undefined, { signal: job.signal })
    }
  }
}

/** The model hub, by plain HTTP: ranges to resume, redirects, an optional token. Once it could not be reached it is not asked again. */
export function hubSource(options: HubOptions): Source {
  const timing = {
    reachMs: options.reachMs ?? REACH_MS,
    stallMs: options.stallMs ?? STALL_MS,
    retryMs: options.retryMs ?? RETRY_MS,
  }
  const endpoint = options.endpoint.replace(/\/+$/, '')
  let down: PalimpsestError | null = null
  return {
    name: 'hub',
    described: `the model hub (${endpoint})`,
    scratchBytes: () => 0,
    async gather(model: CatalogModel, gatherings, job) {
      if (down !== null) throw down
      const total = gatherings.reduce((sum, g) => sum + g.ingredient.bytes, 0)
      job.meter.begin(
        'hub',
        (await gatheredBytes(gatherings)).reduce((a, b) => a + b, 0),
        total,
      )
      let before = 0
      for (const gathering of gatherings) {
        const { path, bytes } = gathering.ingredient
        const start = before
        before += bytes
        if ((await fileState(gathering.partPath))?.bytes === bytes) continue
        const url = new URL(`${endpoint}/${model.hub.repository}/resolve/${model.hub.revision}/${path}`)
        await complete(url, gathering, options.token, timing, job, (at) => job.meter.at(start + at)).catch((error: unknown) => {
          if (!(error instanceof Cut || error instanceof Unreached)) throw error
          const said = fault(`The hub at ${url.origin} cannot be reached: ${error.message}.`, error)
          if (error instanceof Unreached) down = said
          throw said
        })
      }
    },
  }
}
