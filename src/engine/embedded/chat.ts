import { DisposedError, type LlamaContext, type LlamaModel, type Token } from 'node-llama-cpp'
import { PalimpsestError } from '../../errors.ts'
import type { Sampling } from '../../request.ts'
import type { Trace } from '../../trace.ts'
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
  Scorer,
  TextEngine,
  TextPrompt,
} from '../engine.ts'
import {
  type FormatPiece,
  type FormattedFamily,
  format,
  remembering,
  tokenize,
  type Vocabulary,
  written,
} from '../format/chat-format.ts'
import { textTokens } from '../format/raw-prompt.ts'
import { contextExceeded } from '../limits.ts'
import { AnswerStream } from '../output/answer-stream.ts'
import { logprobOf, type TokenText } from '../output/logprobs.ts'
import type { TokenBytes } from '../output/token-bytes.ts'
import { append, chooseSlot, dedicate, empty, pieces, reusable, truncate } from '../scheduling/prefix-cache.ts'
import { SlotQueue, shuttingDown } from '../scheduling/slot-queue.ts'
import { ALONE, SHARED } from './batching.ts'
import { type Constraint, Grammars } from './grammar.ts'
import { LoadedLoras, loraKey, type SequenceLoras } from './loras.ts'
import { type Watch, watchLogits } from './native.ts'
import { checkBias, checkTokens, samplerOptions } from './sampling.ts'
import type { SavedCaches } from './saved-caches.ts'
import { openScorer, seenAfter } from './scorer.ts'
import { clear, openSequence, rewind, type Slot } from './slot.ts'

export interface ChatParts {
  readonly model: LlamaModel
  readonly context: LlamaContext
  readonly info: ModelInfo
  readonly family: FormattedFamily
  readonly defaultSystem: string | null
  readonly tokenize: Vocabulary['tokenize']
  readonly bytesOf: TokenBytes
  readonly vocabularySize: number
  /** Of the context's batches. */
  readonly sequenceLoras: SequenceLoras
  readonly loraMemoryBytes: number
  /** null: a conversation that loses its slot is evaluated anew. */
  readonly saved: SavedCaches | null
  readonly checkLora: LoraEngine['check']
  readonly baseSha256: LoraEngine['baseSha256']
  readonly basePath: string
  /** The vocabulary writes the first word of a text with a space before it. */
  readonly leadingSpace: boolean
  readonly queueLimit: number
  readonly now: () => number
  readonly randomSeed: () => number
}

/** How long close() waits, after its grace, for running requests to notice. */
const CLOSE_STEP_MS = 10_000

interface ChatSlot extends Slot {
  readonly watch: Watch
}

/** One answer to be written. */
interface Evaluation {
  readonly tokens: readonly number[]
  readonly sampling: Sampling
  readonly constraint: Constraint | null
  readonly answer: AnswerStream
  readonly lora?: Lora | undefined
  /** The first position whose successor's probability is asked for; absent: only the answer's are. */
  readonly scoredFrom?: number
  readonly trace: Trace
  readonly signal: AbortSignal
}

/** A chat model in this process, through node-llama-cpp. Its sequences are opened once and never disposed of before the model. */
export class ChatEngine implements Engine {
  readonly model: ModelInfo
  readonly #parts: ChatParts
  readonly #vocabulary: Vocabulary
  readonly #slots: SlotQueue<ChatSlot>
  readonly #grammars: Grammars
  readonly #textOf: TokenText
  readonly #loras: LoadedLoras
  readonly #idle: readonly ChatSlot[]
  readonly text: TextEngine
  readonly loras: LoraEngine
  #uses = 0
  #closed = false

  constructor(parts: ChatParts) {
    const { model, context, bytesOf, tokenize: tokensOf } = parts
    const { bosString, eosString, shouldPrependBosToken } = model.tokens
    this.model = parts.info
    this.#parts = parts
    this.#vocabulary = remembering({ tokens: model.tokens, tokenize: tokensOf })
    this.#grammars = new Grammars(model)
    this.#textOf = (token) => ({ bytes: bytesOf(token), name: () => model.detokenize([token as Token], true) })
    const slots = Array.from({ length: context.totalSequences }, () => {
      const sequence = openSequence(context)
      return { ...empty(), sequence, watch: watchLogits(context, sequence) }
    })
    this.#idle = slots
    this.#slots = new SlotQueue(slots, parts.queueLimit, parts.now)
    this.#loras = new LoadedLoras(model, parts.loraMemoryBytes, (sha256) => parts.sequenceLoras.forget(sha256))
    this.loras = {
      check: parts.checkLora,
      baseSha256: parts.baseSha256,
      basePath: parts.basePath,
      load: async (lora) => (await this.#loras.hold(lora))?.release(),
      unload: ({ sha256 }) => this.#loras.drop(sha256),
      loaded: ({ sha256 }) => this.#loras.has(sha256),
    }
    this.text = {
      complete: (prompt, sampling, trace, signal) => this.#complete(prompt, sampling, trace, signal),
      detokenize: (tokens) => this.#detokenize(tokens),
      tokenize: (text) => tokensOf(text, true),
      marks: { bos: bosString, eos: eosString, opens: shouldPrependBosToken },
    }
  }

  async *generate(prompt: Prompt, sampling: Sampling, trace: Trace, signal: AbortSignal): AsyncGenerator<Piece, Finish> {
    this.#check(signal)
    checkBias(sampling, this.#parts.vocabularySize)
    const constraint = await this.#grammars.constraint(sampling.format, prompt.tools)
    const tokens = tokenize(this.#vocabulary, this.#pieces(prompt))
    const options = { stops: sampling.stop, leadingSpace: this.#parts.leadingSpace, tools: prompt.tools?.allowed }
    return yield* this.#run({ tokens, sampling, constraint, answer: new AnswerStream(options), lora: prompt.lora, trace, signal })
  }

  async *#complete(prompt: TextPrompt, sampling: Sampling, trace: Trace, signal: AbortSignal): AsyncGenerator<Piece, Finish> {
    this.#check(signal)
    checkBias(sampling, this.#parts.vocabularySize)
    const { before, own, start } = textTokens(prompt, this.#vocabulary, this.#parts.model.tokens.shouldPrependBosToken)
    const tokens = [...start, ...before, ...own]
    const scored = prompt.echo && sampling.logprobs !== undefined
    const answer = new AnswerStream({ stops: sampling.stop })
    const job: Evaluation = { tokens, sampling, constraint: null, answer, lora: prompt.lora, trace, signal }
    if (prompt.echo && !scored) yield { text: typeof prompt.text === 'string' ? prompt.text : this.#detokenize(own) }
    return yield* this.#run(scored ? { ...job, scoredFrom: start.length + before.length } : job)
  }

  async *#run(job: Evaluation): AsyncGenerator<Piece, Finish> {
    const { tokens, trace, signal } = job
    trace.promptTokens = tokens.length
    if (tokens.length >= this.model.contextTokens) throw contextExceeded(tokens.length, this.model.contextTokens)
    const adapter = loraKey(job.lora)
    const lease = await trace.time('queue', () => this.#slots.acquire((free) => chooseSlot(free, tokens, adapter), signal))
    const { sequence } = lease.slot
    const { sequenceLoras } = this.#parts
    let lora: Awaited<ReturnType<LoadedLoras['hold']>> = null
    try {
      lora = await trace.time('queue', () => this.#loras.hold(job.lora))
      sequenceLoras.assign(sequence, lora)
      const { saved } = this.#parts
      if (saved !== null)
        await trace.time('prefill', () => this.#native(lease.slot, () => saved.exchange(lease.slot, tokens, adapter)))
      dedicate(lease.slot, adapter)
      const last =
        job.scoredFrom === undefined
          ? await trace.time('prefill', () => this.#prefill(lease.slot, job))
          : yield* this.#score(lease.slot, job, job.scoredFrom)
      return yield* this.#decode(lease.slot, last, job)
    } finally {
      lease.slot.lastUsed = ++this.#uses
      sequenceLoras.assign(sequence, null)
      lora?.release()
      lease.release()
    }
  }

  /** Brings the slot to the prompt, all but its last piece, which is returned: evaluating that one yields the first token. */
  async #prefill(slot: ChatSlot, { tokens, sampling, trace, signal }: Evaluation): Promise<readonly number[]> {
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

  /** As `#prefill`, and yields the client's own prompt, which begins at `from`, with each token's probability; its first token has none. */
  async *#score(
    slot: ChatSlot,
    { tokens, sampling, trace, signal }: Evaluation,
    from: number,
  ): AsyncGenerator<Piece, readonly number[]> {
    const top = sampling.logprobs ?? 0
    const exact = sampling.seed !== undefined
    const reused = Math.min(from, reusable(slot, tokens, exact))
    trace.tokensCached = await trace.time('prefill', () => this.#native(slot, () => rewind(slot, reused)))
    const echoed = new AnswerStream({ stops: [] })
    const show = (token: number, seen: Parameters<typeof logprobOf>[1]) =>
      echoed.push(this.#echoed(token), logprobOf(token, seen, this.#textOf))
    const first = show(tokens[from] ?? 0, null)
    if (first !== null) yield first
    for (const piece of pieces(tokens.slice(0, -1), trace.tokensCached)) {
      this.#check(signal)
      const start = slot.tokens.length
      const next = tokens.slice(start + 1, start + 1 + piece.length)
      const priority = { evaluationPriority: exact ? ALONE : SHARED }
      const seen = await trace.time('prefill', () =>
        this.#native(slot, () => seenAfter(slot.sequence, piece, next, from - start, top, priority)),
      )
      append(slot, piece)
      for (const [i, token] of next.entries()) {
        const shown = seen[i] === undefined ? null : show(token, seen[i])
        if (shown !== null) yield shown
      }
    }
    const rest = echoed.end()
    if (rest !== null) yield rest
    return tokens.slice(-1)
  }

  async *#decode(slot: ChatSlot, last: readonly number[], job: Evaluation): AsyncGenerator<Piece, Finish> {
    const { sampling, constraint, answer, trace, signal } = job
    const { model, bytesOf, randomSeed } = this.#parts
    const limit = Math.min(sampling.maxTokens ?? Number.POSITIVE_INFINITY, this.model.contextTokens - trace.promptTokens)
    const written: number[] = []
    const options = samplerOptions(sampling, model, constraint, { tokens: written, limit }, randomSeed)
    const steps = slot.sequence.evaluate(last.slice() as never, options)
    let evaluating = last
    let reason: Finish['reason'] | null = limit === 0 ? 'length' : null
    slot.watch.top = sampling.logprobs ?? null
    try {
      while (reason === null) {
        const replaced = evaluating
        const token = await trace.time(written.length === 0 ? 'prefill' : 'decode', () =>
          this.#native(slot, () => next(steps, replaced)),
        )
        append(slot, evaluating)
        this.#check(signal)
        if (model.isEogToken(token as never)) {
          reason = 'stop'
          break
        }
        written.push(token)
        const bytes = bytesOf(token)
        const piece = answer.push(bytes, this.#logprob(slot, token))
        if (piece !== null) yield piece
        this.#check(signal)
        evaluating = constraint?.waits && answer.inCall ? await this.#begin(constraint, answer, token, bytes) : [token]
        reason = answer.stopped ? 'stop' : written.length >= limit ? 'length' : null
      }
    } finally {
      slot.watch.top = null
      await steps.return()
    }
    const rest = answer.end()
    if (rest !== null) yield rest
    return {
      reason: answer.finish(reason),
      promptTokens: trace.promptTokens,
      completionTokens: written.length,
      cachedTokens: trace.tokensCached,
    }
  }

  #logprob({ watch }: ChatSlot, token: number) {
    return watch.top === null ? undefined : logprobOf(token, watch.seen, this.#textOf)
  }

  /** The answer is held to a grammar from the beginning of a call on: what `token` brought beyond is taken back. Returns what to evaluate. */
  async #begin(constraint: Constraint, answer: AnswerStream, token: number, bytes: Uint8Array): Promise<readonly number[]> {
    await constraint.begin(answer.bare)
    const beyond = answer.dropHead()
    if (beyond === 0) return [token]
    const kept = Buffer.from(bytes.subarray(0, bytes.length - beyond)).toString()
    return this.#parts.model.tokenize(kept, false, 'trimLeadingSpace')
  }

  /** Control tokens, which do not show in an answer, are part of a client's own text. */
  #echoed(token: number): Uint8Array {
    const { bytes, name } = this.#textOf(token)
    return bytes.length > 0 ? bytes : Buffer.from(name())
  }

  #detokenize(tokens: readonly number[]): string {
    checkTokens(tokens, this.#parts.vocabularySize)
    return Buffer.concat(tokens.map((token) => this.#echoed(token))).toString()
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

  async openScorer(lora?: Lora): Promise<Scorer> {
    return openScorer(this.#parts.model, this.model.contextTokens, await this.#loras.hold(lora))
  }

  async close(graceMs: number): Promise<void> {
    this.#slots.close()
    const quiet = await this.#slots.drained(graceMs)
    this.#closed = true
    if (!quiet) await this.#slots.drained(CLOSE_STEP_MS)
    const { saved } = this.#parts
    if (saved !== null) for (const slot of this.#idle) await saved.save(slot)
    await this.#parts.context.dispose()
    await this.#parts.model.dispose()
  }

  #pieces(prompt: Prompt): FormatPiece[] {
    return format(this.#parts.family, prompt.messages, this.#parts.defaultSystem, prompt.tools)
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
      await clear(slot)
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

/** The next token, after `evaluated` (which the sequence takes for the last one drawn; the first time it has its tokens already). */
async function next(steps: AsyncGenerator<Token, void, undefined | Token[]>, evaluated: readonly number[]): Promise<number> {
  const step = await steps.next(evaluated.slice() as Token[])
  if (step.done) throw new Error('llama.cpp returned no token')
  return step.value
}
