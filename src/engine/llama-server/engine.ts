import { setTimeout as sleep } from 'node:timers/promises'
import { PalimpsestError } from '../../errors.ts'
import type { Sampling } from '../../request.ts'
import type { Trace } from '../../trace.ts'
import { loraKey } from '../embedded/loras.ts'
import { checkBias, checkTokens } from '../embedded/sampling.ts'
import type {
  Backend,
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
import { type FormatPiece, type FormattedFamily, format, tokenize, type Vocabulary, written } from '../format/chat-format.ts'
import { textTokens } from '../format/raw-prompt.ts'
import { CALL } from '../format/tool-format.ts'
import { type AnswerGrammar, answerGrammar } from '../grammar/answer-grammar.ts'
import { contextExceeded } from '../limits.ts'
import { AnswerStream } from '../output/answer-stream.ts'
import { append, type Cached, chooseSlot, dedicate, empty, truncate } from '../scheduling/prefix-cache.ts'
import { Turns } from '../scheduling/shared-lock.ts'
import { SlotQueue, shuttingDown } from '../scheduling/slot-queue.ts'
import { foldedSeed } from '../seed.ts'
import { eventData } from '../upstream/sse-parser.ts'
import { ServerLoras } from './loras.ts'
import type { ServerProcess } from './process.ts'
import { type CompletionEvent, completionBody, completionEvent, serverFailed } from './wire.ts'

export interface ServedParts {
  readonly server: ServerProcess
  readonly vocabulary: Vocabulary
  readonly info: ModelInfo
  readonly family: FormattedFamily
  readonly defaultSystem: string | null
  readonly bosText: string
  readonly eosText: string
  readonly detokenize: (tokens: readonly number[]) => string
  readonly shouldPrependBos: boolean
  readonly vocabularySize: number
  /** The vocabulary writes the first word of a text with a space before it. */
  readonly leadingSpace: boolean
  readonly slots: number
  /** The server's arguments, with adapters at these paths. */
  readonly args: (loras: readonly string[]) => readonly string[]
  readonly loraMemoryBytes: number
  readonly checkLora: LoraEngine['check']
  readonly baseSha256: LoraEngine['baseSha256']
  readonly basePath: string
  readonly queueLimit: number
  readonly now: () => number
  readonly randomSeed: () => number
  /** The same model in this process, for what llama-server cannot do: opened when first needed. */
  readonly openEmbedded: () => Promise<Engine>
  /** Frees the vocabulary. */
  readonly free: () => Promise<void>
}

/** A slot of the server, and the prompt it was last given: what it really reuses it finds out itself. */
interface Slot extends Cached {
  readonly id: number
}

const QUIET_POLL_MS = 10
const CLOSE_STEP_MS = 10_000
/** Once more, where the server ended before it had said anything. */
const TRIES = 2

/** One answer to be written. */
interface ServerJob {
  readonly tokens: readonly number[]
  readonly sampling: Sampling
  readonly grammar: AnswerGrammar
  readonly answer: AnswerStream
  readonly lora: Lora | undefined
  readonly trace: Trace
  readonly signal: AbortSignal
}

/**
 * A chat model in a llama-server of our own: same prompts, token for token, as the embedded engine. Log probabilities (llama-server loses
 * those of a character's parts and has none of a prompt) and penalties (it penalizes the prompt's tokens, too) are the embedded engine's,
 * which is opened beside it when they are first asked for.
 * An adapter that it was not started with starts it anew: `ServerLoras`.
 */
export class ServedEngine implements Engine {
  readonly model: ModelInfo
  readonly text: TextEngine
  readonly loras: LoraEngine
  readonly #parts: ServedParts
  readonly #slots: SlotQueue<Slot>
  readonly #turns = new Turns()
  readonly #loras: ServerLoras
  readonly #closing = new AbortController()
  #embedded: Promise<Engine> | null = null
  #uses = 0

  constructor(parts: ServedParts) {
    this.model = parts.info
    this.#parts = parts
    const slots = Array.from({ length: parts.slots }, (_, id) => ({ ...empty(), id }))
    this.#slots = new SlotQueue(slots, parts.queueLimit, parts.now)
    const { server, args, loraMemoryBytes: limitBytes } = parts
    const restarted = () => {
      for (const slot of slots) truncate(slot, 0)
    }
    this.#loras = new ServerLoras({ server, turns: this.#turns, args, limitBytes, restarted })
    this.loras = {
      check: parts.checkLora,
      baseSha256: parts.baseSha256,
      basePath: parts.basePath,
      load: (lora) => this.#loras.load(lora),
      unload: async (lora) => {
        await this.#loras.unload(lora)
        await (await this.#embedded?.catch(() => null))?.loras?.unload(lora)
      },
      loaded: (lora) => this.#loras.has(lora),
    }
    this.text = {
      complete: (prompt, sampling, trace, signal) => this.#complete(prompt, sampling, trace, signal),
      detokenize: (tokens) => this.#detokenize(tokens),
      tokenize: (text) => parts.vocabulary.tokenize(text, true),
      marks: { bos: parts.bosText || null, eos: parts.eosText || null, opens: parts.shouldPrependBos },
    }
  }

  async *generate(prompt: Prompt, sampling: Sampling, trace: Trace, signal: AbortSignal): AsyncGenerator<Piece, Finish> {
    signal.throwIfAborted()
    checkBias(sampling, this.#parts.vocabularySize)
    if (beyondServer(sampling)) return yield* (await this.#here()).generate(prompt, sampling, trace, signal)
    const grammar = answerGrammar(sampling.format, prompt.tools)
    const tokens = tokenize(this.#parts.vocabulary, this.#pieces(prompt))
    const options = { stops: sampling.stop, leadingSpace: this.#parts.leadingSpace, tools: prompt.tools?.allowed }
    const { lora } = prompt
    return yield* this.#run({ tokens, sampling, grammar, answer: new AnswerStream(options), lora, trace, signal })
  }

  async *#complete(prompt: TextPrompt, sampling: Sampling, trace: Trace, signal: AbortSignal): AsyncGenerator<Piece, Finish> {
    signal.throwIfAborted()
    checkBias(sampling, this.#parts.vocabularySize)
    if (beyondServer(sampling)) {
      const { text } = await this.#here()
      if (text !== undefined) return yield* text.complete(prompt, sampling, trace, signal)
    }
    const { vocabulary, shouldPrependBos } = this.#parts
    const { start, before, own } = textTokens(prompt, vocabulary, shouldPrependBos)
    if (prompt.echo) yield { text: typeof prompt.text === 'string' ? prompt.text : this.#detokenize(own) }
    const answer = new AnswerStream({ stops: sampling.stop })
    return yield* this.#run({
      tokens: [...start, ...before, ...own],
      sampling,
      grammar: answerGrammar(undefined, undefined),
      answer,
      lora: prompt.lora,
      trace,
      signal,
    })
  }

  async *#run(job: ServerJob): AsyncGenerator<Piece, Finish> {
    const { tokens, sampling, trace, signal } = job
    trace.promptTokens = tokens.length
    if (tokens.length >= this.model.contextTokens) throw contextExceeded(tokens.length, this.model.contextTokens)
    const adapter = loraKey(job.lora)
    const lease = await trace.time('queue', () => this.#slots.acquire((free) => chooseSlot(free, tokens, adapter), signal))
    // Seeded: nothing else in any of its batches, so that the same request gives the same answer.
    const alone = sampling.seed !== undefined
    const either = AbortSignal.any([signal, this.#closing.signal])
    let leave = () => {}
    try {
      leave = await trace.time('queue', () => this.#loras.enter(job.lora, alone, either))
      if (alone) await trace.time('queue', () => this.#quiet(either))
      return yield* this.#answer(lease.slot, { ...job, signal: either })
    } finally {
      lease.slot.lastUsed = ++this.#uses
      leave()
      lease.release()
    }
  }

  async *#answer(slot: Slot, job: ServerJob): AsyncGenerator<Piece, Finish> {
    const { tokens, grammar, answer, trace, signal } = job
    const reuse = slot.adapter === loraKey(job.lora)
    dedicate(slot, loraKey(job.lora))
    truncate(slot, 0)
    append(slot, tokens)
    let stretch = this.#ask(slot, job, tokens, grammar.whole, signal, reuse)
    let later = grammar.afterTag !== null
    let written = ''
    let before = 0
    let completionTokens = 0
    let reason: Finish['reason'] | null = null
    try {
      while (reason === null) {
        const stage = completionTokens === 0 ? 'prefill' : 'decode'
        const event = await trace.time(stage, () => nextEvent(stretch.events))
        signal.throwIfAborted()
        if (event.kind === 'progress') {
          if (before === 0) trace.tokensCached = event.cached
          continue
        }
        completionTokens = before + event.tokens
        if (event.kind === 'end') {
          reason = event.reason
          break
        }
        written += event.text
        const piece = answer.push(Buffer.from(event.text))
        if (piece !== null) yield piece
        signal.throwIfAborted()
        if (answer.stopped) reason = 'stop'
        else if (later && answer.inCall) {
          // From the beginning of a call on the answer is held to a grammar: asked anew, with what is written so far as its beginning.
          later = false
          written = written.slice(0, written.length - answer.dropHead())
          before = completionTokens
          await stretch.end()
          stretch = this.#askHeld(slot, job, written)
        }
      }
    } finally {
      await stretch.end()
    }
    const rest = answer.end()
    if (rest !== null) yield rest
    return { reason: answer.finish(reason), promptTokens: tokens.length, completionTokens, cachedTokens: trace.tokensCached }
  }

  #askHeld(slot: Slot, job: ServerJob, written: string) {
    const { bare } = job.answer
    const held = bare === null ? job.grammar.afterTag : job.grammar.afterHead(bare)
    return this.#ask(slot, job, [...job.tokens, ...this.#spoken(written)], held, job.signal, true)
  }

  /** Events of an answer that goes on from `tokens`. Closing the connection is how the server is told to stop. */
  #ask(
    slot: Slot,
    { sampling, tokens: prompt, lora }: ServerJob,
    tokens: readonly number[],
    grammar: string | null,
    signal: AbortSignal,
    reuse: boolean,
  ) {
    const most = sampling.maxTokens ?? Number.POSITIVE_INFINITY
    const limit = Math.min(most - (tokens.length - prompt.length), this.model.contextTokens - tokens.length)
    const seed = foldedSeed(sampling.seed ?? this.#parts.randomSeed())
    const connection = new AbortController()
    const loras = this.#loras.scales(lora)
    const body = completionBody({ tokens, slot: slot.id, limit, seed, sampling, grammar, loras, reuse })
    const events = this.#events(slot, body, AbortSignal.any([signal, connection.signal]))
    const end = async () => {
      connection.abort()
      await events.return().catch(() => {})
    }
    return { events, end }
  }

  /** What the model wrote, as tokens: the tag of a call is a control token where the vocabulary has it. */
  #spoken(text: string): number[] {
    const { vocabulary } = this.#parts
    const at = text.lastIndexOf(CALL)
    const [before, tag] = at === -1 ? [text, ''] : [text.slice(0, at), text.slice(at)]
    return [...vocabulary.tokenize(before, false), ...(tag === '' ? [] : vocabulary.tokenize(tag, true))]
  }

  /** Asks a second time where the server ended before the first token. */
  async *#events(slot: Slot, body: object, signal: AbortSignal): AsyncGenerator<CompletionEvent, void> {
    for (let tries = 1; ; tries++) {
      let begun = false
      try {
        const response = await this.#parts.server.ask('/completion', body, signal)
        if (response.statusCode !== 200) throw serverFailed(await whole(response))
        for await (const data of eventData(response)) {
          const event = completionEvent(data)
          begun ||= event.kind !== 'progress'
          yield event
        }
        return
      } catch (cause) {
        truncate(slot, 0)
        if (signal.aborted || cause instanceof PalimpsestError || begun || tries === TRIES) throw this.#failure(cause, signal)
      }
    }
  }

  #failure(cause: unknown, signal: AbortSignal): unknown {
    if (signal.aborted) return this.#closing.signal.aborted ? shuttingDown() : signal.reason
    return cause instanceof PalimpsestError ? cause : serverFailed('its server ended', cause)
  }

  /** A client that left is only noticed at the next token, or piece of a prompt: wait until the server works on nothing. */
  async #quiet(signal: AbortSignal): Promise<void> {
    for (;;) {
      const slots: unknown = JSON.parse(await whole(await this.#parts.server.ask('/slots', null, signal)))
      if (!Array.isArray(slots) || slots.every((slot) => slot?.is_processing !== true)) return
      await sleep(QUIET_POLL_MS)
    }
  }

  inspect(prompt: Prompt): Inspection {
    const parts = this.#pieces(prompt)
    const { bosText, eosText, vocabulary } = this.#parts
    return { text: written(parts, bosText, eosText), tokens: tokenize(vocabulary, parts) }
  }

  countTokens(prompt: Prompt): number {
    return tokenize(this.#parts.vocabulary, this.#pieces(prompt)).length
  }

  async openScorer(lora?: Lora): Promise<Scorer> {
    const { openScorer } = await this.#here()
    if (openScorer === undefined) throw serverFailed('it shows no probabilities')
    return openScorer.call(await this.#here(), lora)
  }

  load(): Load {
    return this.#slots.load()
  }

  backends(): readonly Backend[] {
    const { server } = this.#parts
    return [
      { name: 'llama-server', state: server.state, busy: this.load().busy, faults: server.faults, lastFault: server.lastFault },
    ]
  }

  async close(graceMs: number): Promise<void> {
    this.#slots.close()
    if (!(await this.#slots.drained(graceMs))) {
      this.#closing.abort(shuttingDown())
      await this.#slots.drained(CLOSE_STEP_MS)
    }
    await this.#parts.server.close()
    await this.#embedded?.then((engine) => engine.close(0)).catch(() => {})
    await this.#parts.free()
  }

  /** What failed to open is tried again by the next who needs it: memory may have become free. */
  #here(): Promise<Engine> {
    this.#embedded ??= this.#parts.openEmbedded().catch((error: unknown) => {
      this.#embedded = null
      throw error
    })
    return this.#embedded
  }

  #detokenize(tokens: readonly number[]): string {
    checkTokens(tokens, this.#parts.vocabularySize)
    return this.#parts.detokenize(tokens)
  }

  #pieces(prompt: Prompt): FormatPiece[] {
    return format(this.#parts.family, prompt.messages, this.#parts.defaultSystem, prompt.tools)
  }
}

async function nextEvent(events: AsyncGenerator<CompletionEvent, void>): Promise<CompletionEvent> {
  const { value, done } = await events.next()
  if (done) throw serverFailed('the answer broke off')
  return value
}

/** What llama-server does otherwise, or not at all. */
function beyondServer({ logprobs, frequencyPenalty = 0, presencePenalty = 0, repeatPenalty = 1 }: Sampling): boolean {
  return logprobs !== undefined || frequencyPenalty !== 0 || presencePenalty !== 0 || repeatPenalty !== 1
}

async function whole(response: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}
