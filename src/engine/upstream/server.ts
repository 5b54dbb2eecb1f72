import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { PalimpsestError } from '../../errors.ts'
import { eventData } from './sse-parser.ts'
import { type Chunk, chunkOf, firstModel, refusal, UpstreamFault, unreachable, unstreamed } from './wire.ts'

export interface UpstreamServerOptions {
  /** Of any OpenAI-compatible server: its origin ("http://host:8000"), or the base under which `/chat/completions` lies. */
  readonly url: string
  /** Absent: the first of the server's `/models`. */
  readonly model?: string
  readonly apiKey?: string
  /** Its share of the conversations beside the other servers'. */
  readonly weight?: number
}

/** How long a server may keep us waiting, in milliseconds. */
export interface Patience {
  readonly connectMs: number
  /** From the request to the first byte of the answer: the prompt is read in this time. */
  readonly firstByteMs: number
  readonly betweenBytesMs: number
  /** From the first byte to the last. */
  readonly answerMs: number
}

export const PATIENCE: Patience = { connectMs: 5_000, firstByteMs: 120_000, betweenBytesMs: 60_000, answerMs: 3_600_000 }

const MODELS_BYTES = 4 * 1024 * 1024
const REFUSAL_BYTES = 64 * 1024
/** Of one answer as it is sent: every token is wrapped in some hundred bytes, and log probabilities in thousands. */
const ANSWER_BYTES = 512 * 1024 * 1024
/** Of one answer's text and calls; no model writes that many. */
const ANSWER_CHARS = 16 * 1024 * 1024
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
  readonly #agent: HttpAgent

  constructor({ url, model, apiKey, weight = 1 }: UpstreamServerOptions, patience: Patience) {
    this.base = baseOf(url)
    this.name = new URL(this.base).host
    this.weight = weight
    this.model = model ?? null
    this.#headers = { 'content-type': 'application/json', ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }) }
    this.#key = apiKey ? inText(apiKey) : null
    this.#patience = patience
    const keepAlive = { keepAlive: true, maxFreeSockets: 16, timeout: 15_000 }
    this.#agent = this.base.startsWith('https:') ? new HttpsAgent(keepAlive) : new HttpAgent(keepAlive)
  }

  /** Takes the first of its models. */
  async identify(signal: AbortSignal): Promise<{ readonly id: string; readonly contextTokens: number | null }> {
    const call = new Call(signal, { ...this.#patience, firstByteMs: LOOK_MS }, this.base)
    try {
      const response = await this.#ask('GET', '/models', undefined, call)
      const found = firstModel(json(await whole(response, MODELS_BYTES)), this.base)
      this.model = found.id
      return found
    } catch (cause) {
      throw this.#reason(call, cause)
    } finally {
      call.end()
    }
  }

  /** Whether it lives: any answer is enough, also that there is no such route. */
  async look(signal: AbortSignal): Promise<void> {
    const call = new Call(signal, { ...this.#patience, firstByteMs: LOOK_MS, betweenBytesMs: LOOK_MS }, this.base)
    try {
      const response = await this.#exchange('GET', '/models', undefined, call)
      const status = response.statusCode ?? 0
      if (status >= 500) throw new UpstreamFault(this.base, `answered with status ${status}`)
    } catch (cause) {
      throw this.#reason(call, cause)
    } finally {
      call.end()
    }
  }

  /** The pieces of one streamed answer; leaving it hangs up. */
  async *chunks(body: string, signal: AbortSignal): AsyncGenerator<Chunk, void> {
    const call = new Call(signal, this.#patience, this.base)
    try {
      const response = await this.#ask('POST', '/chat/completions', body, call)
      if (response.headers['content-type']?.startsWith('application/json'))
        throw unstreamed(this.#withoutKey(await whole(response, REFUSAL_BYTES)), this.base)
      let reason: Chunk['reason'] = null
      let chars = 0
      for await (const data of eventData(this.#watched(response, call))) {
        if (data === '[DONE]') break
        const chunk = chunkOf(this.#withoutKey(data), this.base)
        reason = chunk?.reason ?? reason
        chars += chunk === null ? 0 : charsOf(chunk)
        if (chars > ANSWER_CHARS) throw new UpstreamFault(this.base, `sent an answer of more than ${ANSWER_CHARS} characters`)
        if (chunk !== null) yield chunk
      }
      if (reason === null) throw new UpstreamFault(this.base, 'ended its answer without saying why; try again')
    } catch (cause) {
      throw this.#reason(call, cause)
    } finally {
      call.end()
    }
  }

  close(): void {
    this.#agent.destroy()
  }

  #reason(call: Call, cause: unknown): unknown {
    if (call.signal.aborted) return call.signal.reason
    return cause instanceof PalimpsestError ? cause : unreachable(this.base, cause)
  }

  /** Servers, and proxies before them, may repeat what they were sent. */
  #withoutKey(text: string): string {
    return this.#key === null ? text : text.replace(this.#key, STRUCK_OUT)
  }

  async *#watched(response: IncomingMessage, call: Call): AsyncGenerator<Uint8Array, void> {
    let left = ANSWER_BYTES
    call.limit()
    for await (const bytes of response) {
      call.watch('betweenBytesMs')
      left -= bytes.length
      if (left < 0) throw new UpstreamFault(this.base, `sent an answer of more than ${ANSWER_BYTES} bytes`)
      yield bytes
    }
  }

  async #ask(method: string, path: string, body: string | undefined, call: Call): Promise<IncomingMessage> {
    const response = await this.#exchange(method, path, body, call)
    const status = response.statusCode ?? 0
    if (status >= 200 && status < 300) return response
    const header = response.headers['retry-after'] ?? null
    const said = await whole(response, REFUSAL_BYTES).catch(() => '')
    throw refusal(status, header, this.#withoutKey(said), this.base, Date.now())
  }

  #exchange(method: string, path: string, body: string | undefined, call: Call): Promise<IncomingMessage> {
    call.watch('connectMs')
    const start = this.base.startsWith('https:') ? httpsRequest : httpRequest
    return new Promise((resolve, reject) => {
      const sent = start(`${this.base}${path}`, { method, headers: this.#headers, agent: this.#agent, signal: call.signal })
      sent.on('socket', (socket) => {
        const connected = () => call.watch('firstByteMs')
        if (socket.connecting) socket.once(this.base.startsWith('https:') ? 'secureConnect' : 'connect', connected)
        else connected()
      })
      sent.once('response', resolve)
      sent.on('error', (cause: NodeJS.ErrnoException) => {
        // A kept connection that the server had closed in the meantime: nothing was asked yet.
        const stale = sent.reusedSocket && cause.code === 'ECONNRESET' && !call.signal.aborted
        if (stale) this.#exchange(method, path, body, call).then(resolve, reject)
        else reject(cause)
      })
      sent.end(body)
    })
  }
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

async function whole(response: IncomingMessage, limitBytes: number): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of response) {
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

const WAITED_FOR: Readonly<Record<keyof Patience, string>> = {
  connectMs: 'could not be connected to within',
  firstByteMs: 'was silent for',
  betweenBytesMs: 'was silent in mid-answer for',
  answerMs: 'did not end its answer within',
}

/** One exchange: aborted by whoever asked, or by the server's silence, whichever is first. */
class Call {
  readonly #controller = new AbortController()
  readonly #patience: Patience
  readonly #base: string
  readonly signal: AbortSignal
  #timer: NodeJS.Timeout | undefined
  #limit: NodeJS.Timeout | undefined

  constructor(asker: AbortSignal, patience: Patience, base: string) {
    this.signal = AbortSignal.any([asker, this.#controller.signal])
    this.#patience = patience
    this.#base = base
  }

  /** (Re)starts the clock. */
  watch(bound: keyof Patience): void {
    clearTimeout(this.#timer)
    this.#timer = this.#abortAfter(bound)
  }

  /** The answer has begun, and is to end some time. */
  limit(): void {
    this.#limit = this.#abortAfter('answerMs')
  }

  #abortAfter(bound: keyof Patience): NodeJS.Timeout {
    const ms = this.#patience[bound]
    const state = `${WAITED_FOR[bound]} ${ms / 1000} s; try again, or allow it more time`
    return setTimeout(() => this.#controller.abort(new UpstreamFault(this.#base, state)), ms)
  }

  /** Also ends the connection, where the answer was not read to its end. */
  end(): void {
    clearTimeout(this.#timer)
    clearTimeout(this.#limit)
    this.#controller.abort()
  }
}
