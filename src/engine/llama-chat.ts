import { DisposedError, type LlamaContext, type LlamaModel, type SequenceEvaluateOptions } from 'node-llama-cpp'
import { PalimpsestError } from '../errors.ts'
import type { Sampling } from '../request.ts'
import type { Trace } from '../trace.ts'
import { type FormatPiece, type FormattedFamily, format, tokenize, type Vocabulary, written } from './chat-format.ts'
import type { Engine, Finish, Inspection, Load, ModelInfo, Piece, Prompt, Scorer } from './engine.ts'
import { contextExceeded } from './limits.ts'
import { ALONE, SHARED } from './llama-batching.ts'
import { openScorer } from './llama-scorer.ts'
import { openSequence, rewind, type Slot } from './llama-slot.ts'
import { SlotQueue, shuttingDown } from './queue.ts'
import { append, chooseSlot, empty, pieces, reusable, truncate } from './slots.ts'
import { TextStream } from './text-stream.ts'
import type { TokenBytes } from './token-bytes.ts'

export interface ChatParts {
  readonly model: LlamaModel
  readonly context: LlamaContext
  readonly info: ModelInfo
  readonly family: FormattedFamily
  readonly defaultSystem: string | null
  readonly bytesOf: TokenBytes
  /** The vocabulary writes the first word of a text with a space before it. */
  readonly leadingSpace: boolean
  readonly queueLimit: number
  readonly now: () => number
  readonly randomSeed: () => number
}

/** llama.cpp takes this seed for "draw one yourself". */
const RESERVED_SEED = 0xffff_ffff

/** How long close() waits, after its grace, for running requests to notice. */
const CLOSE_STEP_MS = 10_000

/** A chat model in this process, through node-llama-cpp. Its sequences are opened once and never disposed of before the model. */
export class ChatEngine implements Engine {
  readonly model: ModelInfo
  readonly #parts: ChatParts
  readonly #vocabulary: Vocabulary
  readonly #slots: SlotQueue<Slot>
  #uses = 0
  #closed = false

  constructor(parts: ChatParts) {
    this.model = parts.info
    this.#parts = parts
    this.#vocabulary = { tokens: parts.model.tokens, tokenize: (text, special) => parts.model.tokenize(text, special) }
    const slots = Array.from({ length: parts.context.totalSequences }, () => ({
      ...empty(),
      sequence: openSequence(parts.context),
    }))
    this.#slots = new SlotQueue(slots, parts.queueLimit, parts.now)
  }

  async *generate(prompt: Prompt, sampling: Sampling, trace: Trace, signal: AbortSignal): AsyncGenerator<Piece, Finish> {
    this.#check(signal)
    const tokens = tokenize(this.#vocabulary, this.#pieces(prompt))
    trace.promptTokens = tokens.length
    if (tokens.length >= this.model.contextTokens) throw contextExceeded(tokens.length, this.model.contextTokens)
    const lease = await trace.time('queue', () => this.#slots.acquire((free) => chooseSlot(free, tokens), signal))
    try {
      const last = await trace.time('prefill', () => this.#prefill(lease.slot, tokens, sampling, trace, signal))
      return yield* this.#decode(lease.slot, last, sampling, trace, signal)
    } finally {
      lease.slot.lastUsed = ++this.#uses
      lease.release()
    }
  }

  /** Brings the slot to the prompt, all but its last piece, which is returned: evaluating that one yields the first token. */
  async #prefill(
    slot: Slot,
    tokens: readonly number[],
    sampling: Sampling,
    trace: Trace,
    signal: AbortSignal,
  ): Promise<readonly number[]> {
    const exact = sampling.seed !== undefined
    const reused = reusable(slot, tokens, exact)
    trace.tokensCached = await this.#native(slot, () => rewind(slot, reused))
    const todo = pieces(tokens, trace.tokensCached)
    const last = todo.pop() ?? []
    for (const piece of todo) {
      this.#check(signal)
      const evaluated = { evaluationPriority: exact ? ALONE : SHARED }
      await this.#native(slot, () => slot.sequence.evaluateWithoutGeneratingNewTokens(piece as never, evaluated))
      append(slot, piece)
    }
    this.#check(signal)
    return last
  }

  async *#decode(
    slot: Slot,
    last: readonly number[],
    sampling: Sampling,
    trace: Trace,
    signal: AbortSignal,
  ): AsyncGenerator<Piece, Finish> {
    const { model, bytesOf, leadingSpace, randomSeed } = this.#parts
    const text = new TextStream(sampling.stop, leadingSpace)
    const limit = Math.min(sampling.maxTokens ?? Number.POSITIVE_INFINITY, this.model.contextTokens - trace.promptTokens)
    const steps = slot.sequence.evaluate(last.slice() as never, samplerOptions(sampling, randomSeed))
    let evaluating = last
    let completionTokens = 0
    let reason: Finish['reason'] | null = null
    try {
      while (reason === null) {
        const token = await trace.time(completionTokens === 0 ? 'prefill' : 'decode', () => this.#native(slot, () => next(steps)))
        append(slot, evaluating)
        this.#check(signal)
        if (model.isEogToken(token as never)) {
          reason = 'stop'
          break
        }
        completionTokens++
        const shown = text.push(bytesOf(token))
        if (shown !== '') yield { text: shown }
        this.#check(signal)
        if (text.stopped) reason = 'stop'
        else if (completionTokens >= limit) reason = 'length'
        evaluating = [token]
      }
    } finally {
      await steps.return()
    }
    const rest = text.end()
    if (rest !== '') yield { text: rest }
    return { reason, promptTokens: trace.promptTokens, completionTokens, cachedTokens: trace.tokensCached }
  }

  inspect(prompt: Prompt): Inspection {
    const parts = this.#pieces(prompt)
    const { bosString, eosString } = this.#parts.model.tokens
    return { text: written(parts, bosString ?? '', eosString ?? ''), tokens: tokenize(this.#vocabulary, parts) }
  }

  countTokens(prompt: Prompt): number {
    return tokenize(this.#vocabulary, this.#pieces(prompt)).length
  }

  load(): Load {
    return this.#slots.load()
  }

  openScorer(): Promise<Scorer> {
    return openScorer(this.#parts.model, this.model.contextTokens)
  }

  async close(graceMs: number): Promise<void> {
    this.#slots.close()
    const quiet = await this.#slots.drained(graceMs)
    this.#closed = true
    if (!quiet) await this.#slots.drained(CLOSE_STEP_MS)
    await this.#parts.context.dispose()
    await this.#parts.model.dispose()
  }

  #pieces(prompt: Prompt): FormatPiece[] {
    return format(this.#parts.family, prompt.messages, this.#parts.defaultSystem)
  }

  #check(signal: AbortSignal): void {
    signal.throwIfAborted()
    if (this.#closed) throw shuttingDown()
  }

  /** A call that failed leaves the slot's state unknown: it is emptied before the next request gets it. */
  async #native<T>(slot: Slot, call: () => Promise<T>): Promise<T> {
    try {
      return await call()
    } catch (cause) {
      truncate(slot, 0)
      if (this.#closed || cause instanceof DisposedError) throw shuttingDown()
      await slot.sequence.clearHistory()
      const detail = cause instanceof Error ? cause.message : String(cause)
      throw new PalimpsestError(
        'engine_failed',
        `The model failed while evaluating the prompt or answer (${detail}); try the request again.`,
        {
          cause,
        },
      )
    }
  }
}

async function next(steps: AsyncGenerator<number, void>): Promise<number> {
  const step = await steps.next()
  if (step.done) throw new Error('llama.cpp returned no token')
  return step.value
}

/**
 * OpenAI's semantics: no top-k, no min-p, no penalties. top_p is applied to the probabilities before the temperature (node-llama-cpp's
 * order of samplers), where OpenAI does not say.
 */
function samplerOptions(sampling: Sampling, randomSeed: () => number): SequenceEvaluateOptions {
  return {
    temperature: sampling.temperature,
    topP: sampling.topP,
    // 0 would sort the whole vocabulary for every token (10 ms, measured); null, which the type does not foresee, leaves the sampler out.
    topK: null as never,
    minP: 0,
    seed: ((sampling.seed ?? randomSeed()) >>> 0) % RESERVED_SEED,
    evaluationPriority: sampling.seed === undefined ? SHARED : ALONE,
    yieldEogToken: true,
  }
}
