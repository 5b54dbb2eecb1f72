import { PalimpsestError } from '../errors.ts'
import type { Sampling } from '../request.ts'
import type { Trace } from '../trace.ts'
import type { Engine, Finish, Inspection, Load, ModelInfo, Piece, Prompt } from './engine.ts'
import { eventData } from './event-stream.ts'
import { SlotQueue, shuttingDown } from './queue.ts'
import { TextStream } from './text-stream.ts'
import { chunkOf, firstModel, refusal, unreachable } from './upstream-wire.ts'

export interface UpstreamOptions {
  /** Of any OpenAI-compatible server: its origin ("http://host:8000"), or the base under which `/chat/completions` lies. */
  readonly url: string
  /** Absent: the first of the server's `/models`. */
  readonly model?: string
  readonly apiKey?: string
  /** Longest silence of the server: until it answers, and between two pieces of the answer. */
  readonly timeoutMs?: number
  /** Requests under way at once. */
  readonly slots?: number
  readonly queueLimit?: number
  /** Absent: what `/models` says (vLLM's `max_model_len`), else DEFAULT_CONTEXT_TOKENS. */
  readonly contextTokens?: number
  readonly fetch?: typeof fetch
  /** Milliseconds. */
  readonly now?: () => number
}

const DEFAULTS = { timeoutMs: 120_000, slots: 64, queueLimit: 256 }
const DEFAULT_CONTEXT_TOKENS = 8192

/** Tokens are only guessed where the server's vocabulary is not known: English text has about four characters to a token. */
const CHARS_PER_TOKEN = 4

/** Sends conversations to another server. It formats them itself and counts their tokens; the context limit is its own as well. */
export async function openUpstream(options: UpstreamOptions): Promise<Engine> {
  const server = new Server(options)
  const found = options.model === undefined ? await server.model() : { id: options.model, contextTokens: null }
  return new UpstreamEngine(server, options, {
    name: found.id,
    family: 'upstream',
    contextTokens: options.contextTokens ?? found.contextTokens ?? DEFAULT_CONTEXT_TOKENS,
    device: 'remote',
    threads: 0,
    sha256: null,
  })
}

class UpstreamEngine implements Engine {
  readonly model: ModelInfo
  readonly #server: Server
  readonly #slots: SlotQueue<number>
  readonly #closing = new AbortController()

  constructor(
    server: Server,
    { slots = DEFAULTS.slots, queueLimit = DEFAULTS.queueLimit, now }: UpstreamOptions,
    model: ModelInfo,
  ) {
    this.model = model
    this.#server = server
    this.#slots = new SlotQueue([...Array(slots).keys()], queueLimit, now ?? (() => performance.now()))
  }

  async *generate(prompt: Prompt, sampling: Sampling, trace: Trace, signal: AbortSignal): AsyncGenerator<Piece, Finish> {
    const lease = await trace.time('queue', () => this.#slots.acquire((free) => free[0], signal))
    const call = new Call(signal, this.#closing.signal)
    try {
      trace.promptTokens = this.countTokens(prompt)
      return yield* this.#relay(this.#server.chunks(request(this.model.name, prompt, sampling), call), sampling, trace)
    } catch (error) {
      throw call.reason ?? error
    } finally {
      call.end()
      lease.release()
    }
  }

  async *#relay(chunks: ReturnType<Server['chunks']>, sampling: Sampling, trace: Trace): AsyncGenerator<Piece, Finish> {
    const text = new TextStream(sampling.stop)
    let shownChars = 0
    let reason: Finish['reason'] | null = null
    let usage: { readonly prompt: number; readonly completion: number; readonly cached: number } | null = null
    for (;;) {
      const { value: chunk, done } = await trace.time(shownChars === 0 ? 'prefill' : 'decode', () => chunks.next())
      if (done) break
      const shown = text.push(Buffer.from(chunk.text))
      shownChars += shown.length
      if (shown !== '') yield { text: shown }
      reason = chunk.reason ?? reason
      usage = chunk.usage ?? usage
    }
    if (reason === null)
      throw new PalimpsestError('upstream_failed', `${this.#server.base} ended its answer without saying why; try again.`)
    const rest = text.end()
    if (rest !== '') yield { text: rest }
    trace.promptTokens = usage?.prompt ?? trace.promptTokens
    trace.tokensCached = usage?.cached ?? 0
    return {
      reason: text.stopped ? 'stop' : reason,
      promptTokens: trace.promptTokens,
      completionTokens: usage?.completion ?? estimate(shownChars),
      cachedTokens: trace.tokensCached,
    }
  }

  /** The messages as text; the server's own format and token ids are not known here. */
  inspect(prompt: Prompt): Inspection {
    return { text: prompt.messages.map(({ role, content }) => `${role}: ${content}\n`).join(''), tokens: [] }
  }

  /** An estimate: a quarter of the characters. */
  countTokens(prompt: Prompt): number {
    return prompt.messages.reduce((sum, { content }) => sum + estimate(content.length), 0)
  }

  load(): Load {
    return this.#slots.load()
  }

  async close(graceMs: number): Promise<void> {
    this.#slots.close()
    if (!(await this.#slots.drained(graceMs))) this.#closing.abort(shuttingDown())
  }
}

function estimate(chars: number): number {
  return Math.ceil(chars / CHARS_PER_TOKEN)
}

function request(model: string, { messages }: Prompt, { temperature, topP, seed, maxTokens, stop }: Sampling): object {
  return {
    model,
    messages: messages.map(({ role, content }) => ({ role, content })),
    temperature,
    top_p: topP,
    ...(seed === undefined ? {} : { seed }),
    ...(maxTokens === undefined ? {} : { max_tokens: maxTokens }),
    ...(stop.length === 0 ? {} : { stop }),
    stream: true,
    stream_options: { include_usage: true },
  }
}

class Server {
  readonly base: string
  readonly #headers: Record<string, string>
  readonly #timeoutMs: number
  readonly #fetch: typeof fetch

  constructor({ url, apiKey, timeoutMs = DEFAULTS.timeoutMs, fetch: ask = fetch }: UpstreamOptions) {
    this.base = baseOf(url)
    this.#headers = { 'content-type': 'application/json', ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }) }
    this.#timeoutMs = timeoutMs
    this.#fetch = ask
  }

  async model(): Promise<{ readonly id: string; readonly contextTokens: number | null }> {
    const call = new Call()
    try {
      const response = await this.#ask('/models', { method: 'GET' }, call)
      return firstModel(await response.json().catch(() => null), this.base)
    } finally {
      call.end()
    }
  }

  /** The pieces of one streamed answer. */
  async *chunks(body: object, call: Call): AsyncGenerator<NonNullable<ReturnType<typeof chunkOf>>, void> {
    const response = await this.#ask('/chat/completions', { method: 'POST', body: JSON.stringify(body) }, call)
    try {
      for await (const data of eventData(this.#watched(response.body ?? [], call))) {
        if (data === '[DONE]') return
        const chunk = chunkOf(data, this.base)
        if (chunk !== null) yield chunk
      }
    } catch (cause) {
      throw cause instanceof PalimpsestError ? cause : unreachable(this.base, cause)
    }
  }

  async #ask(path: string, init: RequestInit, call: Call): Promise<Response> {
    call.watch(this.#timeoutMs, this.base)
    let response: Response
    try {
      response = await this.#fetch(`${this.base}${path}`, { ...init, headers: this.#headers, signal: call.signal })
    } catch (cause) {
      throw call.reason ?? unreachable(this.base, cause)
    }
    if (response.ok) return response
    throw refusal(response.status, response.headers.get('retry-after'), await response.text().catch(() => ''), this.base)
  }

  async *#watched(body: AsyncIterable<Uint8Array> | readonly Uint8Array[], call: Call): AsyncGenerator<Uint8Array, void> {
    for await (const bytes of body) {
      call.watch(this.#timeoutMs, this.base)
      yield bytes
    }
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

/** One exchange with the server: aborted by the client, by shutdown, or by the server's silence, whichever is first. */
class Call {
  readonly #controller = new AbortController()
  readonly #sources: readonly AbortSignal[]
  readonly #stop = (event: Event) => this.#controller.abort((event.target as AbortSignal).reason)
  #timer: NodeJS.Timeout | undefined

  constructor(...sources: readonly AbortSignal[]) {
    this.#sources = sources
    for (const source of sources) {
      if (source.aborted) this.#controller.abort(source.reason)
      source.addEventListener('abort', this.#stop, { once: true })
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** Why it was aborted; undefined if it was not. */
  get reason(): unknown {
    return this.signal.aborted ? this.signal.reason : undefined
  }

  /** (Re)starts the clock on the server's silence. */
  watch(timeoutMs: number, base: string): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#controller.abort(
        new PalimpsestError('upstream_failed', `${base} was silent for ${timeoutMs / 1000} s; try again, or allow it more time.`),
      )
    }, timeoutMs)
  }

  /** Also ends the connection, where the answer was not read to its end. */
  end(): void {
    clearTimeout(this.#timer)
    for (const source of this.#sources) source.removeEventListener('abort', this.#stop)
    this.#controller.abort()
  }
}
