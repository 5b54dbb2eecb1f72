import { Pool } from 'undici'
import { PalimpsestError } from '../../errors.ts'
import { Exchange, type Patience } from './exchange.ts'
import type { Manner } from './request.ts'
import { EventReader } from './sse-parser.ts'
import { answerOf, type Chunk, chunkOf, firstModel, refusal, UpstreamFault, unreachable, unstreamed } from './wire.ts'

export interface UpstreamServerOptions {
  /** Of any OpenAI-compatible server: its origin ("http://host:8000"), or the base under which `/chat/completions` lies. */
  readonly url: string
  /** Absent: the first of the server's `/models`. */
  readonly model?: string
  readonly apiKey?: string
  /** Its share of the conversations beside the other servers'. */
  readonly weight?: number
}

export const PATIENCE: Patience = { connectMs: 5_000, firstByteMs: 120_000, betweenBytesMs: 60_000, answerMs: 3_600_000 }

const MODELS_BYTES = 4 * 1024 * 1024
const REFUSAL_BYTES = 64 * 1024
/** Of an answer in one part. */
const WHOLE_BYTES = 16 * 1024 * 1024
/** Of one answer's text and calls; no model writes that many. */
const ANSWER_CHARS = 16 * 1024 * 1024
/** The last event of a stream, which holds no JSON. */
const DONE = '[DONE]'
/** What stands where the server repeats the key that we sent. */
const STRUCK_OUT = '[key]'
/** Patience with a server that is only asked whether it lives. */
const LOOK_MS = 5_000

/** One OpenAI-compatible server, asked over HTTP. */
export class UpstreamServer {
  readonly base: string
  /** For traces and /health: the address, without path or key. */
  readonly name: string
  readonly weight: number
  /** What it is asked for; null until `identify`, where it was not given. */
  model: string | null
  readonly #headers: Record<string, string>
  readonly #key: RegExp | null
  readonly #patience: Patience
  readonly #pool: Pool
  readonly #path: string
  readonly #underWay = new Set<Exchange>()

  constructor({ url, model, apiKey, weight = 1 }: UpstreamServerOptions, patience: Patience) {
    this.base = baseOf(url)
    this.name = new URL(this.base).host
    this.weight = weight
    this.model = model ?? null
    this.#headers = { 'content-type': 'application/json', ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }) }
    this.#key = apiKey ? inText(apiKey) : null
    this.#patience = patience
    this.#path = new URL(this.base).pathname.replace(/\/$/, '')
    // An exchange keeps its own time.
    const timeouts = { headersTimeout: 0, bodyTimeout: 0, connectTimeout: patience.connectMs }
    this.#pool = new Pool(new URL(this.base).origin, timeouts)
  }

  /** Takes the first of its models. */
  identify(signal: AbortSignal): Promise<{ readonly id: string; readonly contextTokens: number | null }> {
    return this.#asked('/models', { ...this.#patience, firstByteMs: LOOK_MS }, signal, async (exchange) => {
      await this.#accepted(exchange)
      const found = firstModel(json(await whole(exchange, MODELS_BYTES)), this.base)
      this.model = found.id
      return found
    })
  }

  /** Whether it lives: any answer is enough, also that there is no such route. */
  look(signal: AbortSignal): Promise<void> {
    const patience = { ...this.#patience, firstByteMs: LOOK_MS, betweenBytesMs: LOOK_MS }
    return this.#asked('/models', patience, signal, async (exchange) => {
      const status = await exchange.head()
      if (status >= 500) throw new UpstreamFault(this.base, `answered with status ${status}`)
    })
  }

  /** The pieces of one answer, a `whole` one's only one; leaving it before its end hangs up. */
  async *chunks(body: string, manner: Manner, signal: AbortSignal): AsyncGenerator<Chunk, void> {
    const exchange = this.#begin('POST', '/chat/completions', body, this.#patience, signal)
    let isComplete = false
    try {
      await this.#accepted(exchange)
      const type = exchange.header('content-type')
      const isWhole = manner === 'whole' && !type?.startsWith('text/event-stream')
      if (!isWhole && type?.startsWith('application/json'))
        throw unstreamed(this.#withoutKey(await whole(exchange, REFUSAL_BYTES)), this.base)
      const reader = isWhole ? null : new EventReader()
      const read = isWhole ? answerOf : chunkOf
      let reason: Chunk['reason'] = null
      let chars = 0
      while (!isComplete) {
        const { texts, isLast } = await nextOf(exchange, reader)
        isComplete = isLast
        for (const text of texts) {
          const chunk = read(this.#withoutKey(text), this.base)
          if (chunk === null) continue
          reason = chunk.reason ?? reason
          chars += charsOf(chunk)
          if (chars > ANSWER_CHARS) throw new UpstreamFault(this.base, `sent an answer of more than ${ANSWER_CHARS} characters`)
          yield chunk
        }
      }
      if (reason === null) throw new UpstreamFault(this.base, 'ended its answer without saying why; try again')
    } catch (cause) {
      throw signal.aborted ? signal.reason : this.#reason(cause)
    } finally {
      this.#end(exchange, isComplete)
    }
  }

  /** Ends what is under way; whoever waits for it gets `reason`. */
  stop(reason: unknown): void {
    for (const exchange of this.#underWay) exchange.end(reason)
  }

  close(): void {
    void this.#pool.destroy()
  }

  #reason(cause: unknown): unknown {
    return cause instanceof PalimpsestError ? cause : unreachable(this.base, cause)
  }

  /** Servers, and proxies before them, may repeat what they were sent. */
  #withoutKey(text: string): string {
    return this.#key === null ? text : text.replace(this.#key, STRUCK_OUT)
  }

  #begin(method: 'GET' | 'POST', path: string, body: string | undefined, patience: Patience, asker: AbortSignal): Exchange {
    const request = { method, path: `${this.#path}${path}`, headers: this.#headers, ...(body !== undefined && { body }) }
    const exchange = new Exchange(this.#pool, request, { base: this.base, patience, asker })
    this.#underWay.add(exchange)
    return exchange
  }

  #end(exchange: Exchange, isComplete: boolean): void {
    exchange.leave(isComplete)
    this.#underWay.delete(exchange)
  }

  async #asked<T>(path: string, patience: Patience, signal: AbortSignal, read: (exchange: Exchange) => Promise<T>): Promise<T> {
    const exchange = this.#begin('GET', path, undefined, patience, signal)
    try {
      return await read(exchange)
    } catch (cause) {
      throw signal.aborted ? signal.reason : this.#reason(cause)
    } finally {
      this.#end(exchange, true)
    }
  }

  /** The head of an answer that is none of an error. */
  async #accepted(exchange: Exchange): Promise<void> {
    const status = await exchange.head()
    if (status >= 200 && status < 300) return
    const said = await whole(exchange, REFUSAL_BYTES).catch(() => '')
    throw refusal(status, exchange.header('retry-after'), this.#withoutKey(said), this.base, Date.now())
  }
}

/** What the server sends next: a stream's events as they come, or all that there is. */
async function nextOf(
  exchange: Exchange,
  reader: EventReader | null,
): Promise<{ readonly texts: readonly string[]; readonly isLast: boolean }> {
  if (reader === null) return { texts: [await whole(exchange, WHOLE_BYTES)], isLast: true }
  const bytes = await exchange.read()
  const events = bytes === null ? reader.end() : reader.read(bytes)
  const end = events.indexOf(DONE)
  return { texts: end === -1 ? events : events.slice(0, end), isLast: bytes === null || end !== -1 }
}

/** The key wherever it stands, and as JSON may spell it. */
function inText(key: string): RegExp {
  const spelt = [...key].map((char) => {
    const code = char.charCodeAt(0).toString(16).padStart(4, '0')
    return `(?:\\\\u${code}|\\\\?${char.replace(/[^A-Za-z0-9]/g, '\\$&')})`
  })
  return new RegExp(spelt.join(''), 'gi')
}

function charsOf({ text, calls }: Chunk): number {
  return calls.reduce(
    (sum, { name = '', id = '', arguments: given }) => sum + name.length + id.length + given.length,
    text.length,
  )
}

async function whole(exchange: Exchange, limitBytes: number): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for (let chunk = await exchange.read(); chunk !== null; chunk = await exchange.read()) {
    chunks.push(chunk)
    bytes += chunk.length
    if (bytes > limitBytes) break
  }
  return Buffer.concat(chunks).toString()
}

function json(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

/** An origin gets the usual `/v1`; a URL with a path is taken as it is. */
function baseOf(url: string): string {
  if (!URL.canParse(url))
    throw new PalimpsestError('invalid_value', `Expected an upstream URL like http://127.0.0.1:8000/v1, but got "${url}".`)
  const { origin, pathname } = new URL(url)
  const path = pathname.replace(/\/+$/, '')
  return `${origin}${path === '' ? '/v1' : path}`
}
