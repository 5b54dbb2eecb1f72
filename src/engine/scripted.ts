import type { Message, Sampling } from '../request.ts'
import type { Trace } from '../trace.ts'
import type {
  Engine,
  Finish,
  Inspection,
  Load,
  Lora,
  LoraEngine,
  ModelInfo,
  Piece,
  Prompt,
  TextEngine,
  TextPrompt,
  TokenLogprob,
} from './engine.ts'
import { contextExceeded } from './limits.ts'
import { AnswerStream } from './output/answer-stream.ts'
import { append, type Cached, chooseSlot, empty, pieces, reusable, truncate } from './scheduling/prefix-cache.ts'
import { SlotQueue, shuttingDown } from './scheduling/slot-queue.ts'

export interface ScriptedOptions {
  readonly name: string
  /** The answer: cut into tokens, or an array whose entries are one token each. */
  readonly reply: (prompt: Prompt, sampling: Sampling) => string | readonly string[]
  /** How a text goes on; absent: with " and so on". Tokens of a text are its UTF-16 units. */
  readonly goOn?: (text: string, lora?: Lora) => string
  readonly contextTokens?: number
  readonly slots?: number
  readonly queueLimit?: number
  /** Wait before each token of the answer, in milliseconds. */
  readonly delayMs?: number
  readonly tokensPerChar?: number
  /** Absent: it takes no adapters. `reply` sees in its prompt which one answers. */
  readonly loras?: LoraEngine
  readonly now?: () => number
}

const DEFAULTS = { contextTokens: 4096, slots: 4, queueLimit: 64, delayMs: 0, tokensPerChar: 0.25 }

/** An engine without a model: it answers what `reply` says, and otherwise keeps the whole contract. For tests. */
export function openScripted(options: ScriptedOptions): Engine {
  return new ScriptedEngine(options)
}

class ScriptedEngine implements Engine {
  readonly model: ModelInfo
  readonly loras?: LoraEngine
  readonly #options: ScriptedOptions & typeof DEFAULTS
  readonly #slots: SlotQueue<Cached>
  readonly #now: () => number
  readonly #closing = new AbortController()
  #uses = 0

  constructor(options: ScriptedOptions) {
    this.#options = { ...DEFAULTS, ...options }
    if (options.loras !== undefined) this.loras = options.loras
    this.#now = options.now ?? (() => performance.now())
    const { slots, queueLimit, name, contextTokens } = this.#options
    this.#slots = new SlotQueue(Array.from({ length: slots }, empty), queueLimit, this.#now)
    this.model = { name, family: 'scripted', contextTokens, device: 'cpu', threads: 1, sha256: null }
  }

  readonly text: TextEngine = {
    complete: (prompt, sampling, trace, signal) => this.#complete(prompt, sampling, trace, signal),
    detokenize: (tokens) => String.fromCharCode(...tokens),
    tokenize: (text) => text.split('').map((one) => one.charCodeAt(0)),
    marks: { bos: '^', eos: null, opens: true },
  }

  async *generate(prompt: Prompt, sampling: Sampling, trace: Trace, signal: AbortSignal): AsyncGenerator<Piece, Finish> {
    const reply = () => this.#tokens(this.#options.reply(prompt, sampling))
    const answer = new AnswerStream({ stops: sampling.stop, tools: prompt.tools?.allowed })
    return yield* this.#run(this.inspect(prompt).tokens, reply, answer, sampling, trace, signal)
  }

  async *#complete(
    { before, text, echo, lora }: TextPrompt,
    sampling: Sampling,
    trace: Trace,
    signal: AbortSignal,
  ): AsyncGenerator<Piece, Finish> {
    const own = typeof text === 'string' ? text : this.text.detokenize(text)
    const tokens = Array.from({ length: before.length + own.length }, (_, i) => (before + own).charCodeAt(i))
    const goOn = this.#options.goOn ?? (() => ' and so on')
    const answer = new AnswerStream({ stops: sampling.stop })
    if (echo) {
      const scored = own.split('').map((one, i) => (i === 0 ? { ...invented(one), logprob: null, top: [] } : invented(one)))
      yield { text: own, ...(sampling.logprobs !== undefined && { tokens: scored }) }
    }
    return yield* this.#run(tokens, () => this.#tokens(goOn(before + own, lora)), answer, sampling, trace, signal)
  }

  async *#run(
    tokens: readonly number[],
    reply: () => readonly string[],
    answer: AnswerStream,
    sampling: Sampling,
    trace: Trace,
    signal: AbortSignal,
  ): AsyncGenerator<Piece, Finish> {
    trace.promptTokens = tokens.length
    if (tokens.length >= this.model.contextTokens) throw contextExceeded(tokens.length, this.model.contextTokens)
    const lease = await trace.time('queue', () => this.#slots.acquire((free) => chooseSlot(free, tokens), signal))
    try {
      trace.tokensCached = await trace.time('prefill', () => prefill(lease.slot, tokens, sampling.seed !== undefined))
      return yield* this.#speak(reply(), answer, sampling, trace, signal)
    } finally {
      lease.slot.lastUsed = ++this.#uses
      lease.release()
    }
  }

  async *#speak(
    tokens: readonly string[],
    answer: AnswerStream,
    sampling: Sampling,
    trace: Trace,
    signal: AbortSignal,
  ): AsyncGenerator<Piece, Finish> {
    const limit = Math.min(sampling.maxTokens ?? Number.POSITIVE_INFINITY, this.model.contextTokens - trace.promptTokens)
    const wanted = tokens.slice(0, limit)
    let completionTokens = 0
    for (const token of wanted) {
      await trace.time('decode', () => pause(this.#options.delayMs, signal))
      if (this.#closing.signal.aborted) throw shuttingDown()
      completionTokens++
      const piece = answer.push(Buffer.from(token), sampling.logprobs === undefined ? undefined : invented(token))
      if (piece !== null) yield piece
      signal.throwIfAborted()
      if (answer.stopped) break
    }
    const last = answer.end()
    if (last !== null) yield last
    const ended = answer.stopped || wanted.length === tokens.length
    return {
      reason: answer.finish(ended ? 'stop' : 'length'),
      promptTokens: trace.promptTokens,
      completionTokens,
      cachedTokens: trace.tokensCached,
    }
  }

  inspect(prompt: Prompt): Inspection {
    const text = prompt.messages.map(line).join('')
    // The numbers only have to be equal where the text is equal.
    return {
      text,
      tokens: this.#tokens(text).map((token) => [...token].reduce((hash, c) => (hash * 31 + (c.codePointAt(0) ?? 0)) | 0, 7)),
    }
  }

  countTokens(prompt: Prompt): number {
    return this.inspect(prompt).tokens.length
  }

  load(): Load {
    return this.#slots.load()
  }

  async close(graceMs: number): Promise<void> {
    this.#slots.close()
    if (!(await this.#slots.drained(graceMs))) this.#closing.abort()
  }

  /** Whole code points, as many to a token as `tokensPerChar` says. */
  #tokens(text: string | readonly string[]): readonly string[] {
    if (typeof text !== 'string') return text
    const characters = Array.from(text)
    const size = Math.max(1, Math.round(1 / this.#options.tokensPerChar))
    return Array.from({ length: Math.ceil(characters.length / size) }, (_, i) =>
      characters.slice(i * size, (i + 1) * size).join(''),
    )
  }
}

/** A probability for a token, the same each time, and one rival. */
function invented(token: string): TokenLogprob {
  const logprob = -1 / (1 + token.length)
  const named = { text: token, bytes: [...Buffer.from(token)], logprob }
  return { ...named, top: [named, { text: '?', bytes: [63], logprob: logprob - 1 }] }
}

function line({ role, content }: Message): string {
  return `${role}: ${content}\n`
}

function prefill(slot: Cached, tokens: readonly number[], exact: boolean): number {
  const reused = reusable(slot, tokens, exact)
  truncate(slot, reused)
  for (const piece of pieces(tokens, reused)) append(slot, piece)
  return reused
}

/** Rejects with the signal's reason as soon as it is aborted. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  if (ms === 0) return
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop)
      resolve()
    }, ms)
    const stop = () => {
      clearTimeout(timer)
      reject(signal.reason)
    }
    signal.addEventListener('abort', stop, { once: true })
  })
}
