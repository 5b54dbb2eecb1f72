import { resolve } from 'node:path'
import {
  GgufInsights,
  getModuleVersion,
  type LlamaContext,
  type LlamaContextOptions,
  type LlamaContextSequence,
  type LlamaModel,
  type Token,
  TokenBias,
} from 'node-llama-cpp'
import type { Seen } from '../output/logprobs.ts'

/**
 * All places where node-llama-cpp is asked for more than its types offer. What is missing there fails when the engine opens, not in the
 * middle of an answer.
 */

/** The version whose private parts these are; package.json asks for it alone. */
export const LIBRARY_VERSION = '3.22.1'

/** Throws where another version has been installed in its place. */
export async function assertLibrary(version: Promise<string> = getModuleVersion()): Promise<void> {
  const found = await version
  if (found !== LIBRARY_VERSION)
    throw new Error(
      `Expected node-llama-cpp ${LIBRARY_VERSION}, found ${found}. Install palimpsest again: npm ci, or npm install palimpsest.`,
    )
}

function expected(isThere: boolean, does: string): void {
  if (!isThere) throw new Error(`node-llama-cpp no longer ${does} as engine/embedded/native.ts expects`)
}

interface NativeSampler {
  applyConfig(config: object): void
}
/** An adapter in memory. */
export interface NativeLora {
  dispose(): Promise<void>
}
interface NativeModel {
  readonly _llama: {
    readonly _bindings: {
      readonly AddonModelLora: new (model: unknown, path: string) => NativeLora
      readonly AddonSampler: new (weights: unknown) => NativeSampler
    }
  }
  readonly _model: { loadLora(lora: NativeLora): Promise<void> }
}
type Decode = (...args: unknown[]) => Promise<unknown>
interface NativeSequence {
  readonly _sequenceId: number
  _decodeTokens: Decode
}
interface NativeContext {
  readonly _ctx: {
    sampleToken(
      batchIndex: number,
      sampler: NativeSampler,
      probabilities: boolean,
      confidence: boolean,
      logits: unknown[],
      weight: true,
    ): Promise<unknown[]>
    setLoras(loras: readonly NativeLora[], scales: readonly number[]): void
    getEmbedding(tokens: number, values: number): ArrayLike<number>
  }
  /** In the order in which a batching strategy is shown them. */
  readonly _queuedDecodes: readonly { readonly sequenceId: number }[]
}

interface NativeInsights {
  readonly ggufFileInfo: { readonly source?: { readonly type: string; readonly path?: string } }
  /** What the library loads without its weights, to see how much memory a model and its contexts take; null: it reckons by the header. */
  _resolveSimulatorSource(): Promise<unknown>
}

const reckoned = new Set<string>()

/** Has the memory of this file, which it returns, reckoned by its header: of a vocabulary of 250,000 tokens the trial takes two thirds of the time of loading. */
export function reckonByHeader(modelPath: string): string {
  if (reckoned.size === 0) {
    const insights = GgufInsights.prototype as unknown as NativeInsights
    const own = insights._resolveSimulatorSource
    expected(typeof own === 'function', 'reckons memory')
    insights._resolveSimulatorSource = async function () {
      return reckoned.has(this.ggufFileInfo.source?.path ?? '') ? null : own.call(this)
    }
  }
  reckoned.add(resolve(modelPath))
  return modelPath
}

const modelOf = (model: LlamaModel) => model as unknown as NativeModel
const contextOf = (context: LlamaContext) => context as unknown as NativeContext
const sequenceOf = (sequence: LlamaContextSequence) => sequence as unknown as NativeSequence

/** Positions among the arguments of `_decodeTokens`: the function that draws a token, and the one that is called once a batch is done. */
const DRAW = 5
const AFTER_BATCH = 6

/** From now on `before` is awaited ahead of what a sequence evaluates, and `after` behind each batch of it. */
export function aroundBatches(sequence: LlamaContextSequence, before: () => unknown, after: () => unknown): void {
  const native = sequenceOf(sequence)
  const decode = native._decodeTokens
  expected(typeof decode === 'function', 'decodes')
  native._decodeTokens = async (...args) => {
    await before()
    const own = args[AFTER_BATCH] as ((length: number) => unknown) | undefined
    args[AFTER_BATCH] = async (length: number) => {
      await own?.(length)
      await after()
    }
    return decode.apply(sequence, args)
  }
}

/** Throws where llama.cpp does not take adapters. */
export function loraLoader(model: LlamaModel): (path: string) => Promise<NativeLora> {
  const { _llama, _model } = modelOf(model)
  expected(typeof _model?.loadLora === 'function', 'loads adapters')
  return async (path) => {
    const native = new _llama._bindings.AddonModelLora(_model, path)
    await _model.loadLora(native)
    return native
  }
}

/** What a context evaluates with, and whom it is about to evaluate. */
export interface ContextLoras {
  set(loras: readonly NativeLora[], scales: readonly number[]): void
  /** Numbers of the sequences that wait, in the order in which a batching strategy is shown them. */
  queued(): readonly number[]
}

export function contextLoras(context: LlamaContext): ContextLoras {
  const native = contextOf(context)
  expected(typeof native._ctx?.setLoras === 'function' && Array.isArray(native._queuedDecodes), 'batches')
  return {
    set: (loras, scales) => native._ctx.setLoras(loras, scales),
    queued: () => native._queuedDecodes.map(({ sequenceId }) => sequenceId),
  }
}

export function numberOf(sequence: LlamaContextSequence): number {
  return sequenceOf(sequence)._sequenceId
}

/** A context that pools to a rank, and what gives its value before the sigmoid for tokens. */
export async function openRanking(
  model: LlamaModel,
  options: LlamaContextOptions,
): Promise<{ readonly context: LlamaContext; evaluate(tokens: Token[]): Promise<number> }> {
  const context = await model.createContext({ ...options, sequences: 1, ...({ _embeddings: true, _ranking: true } as object) })
  const sequence = context.getSequence()
  const { _ctx: computed } = contextOf(context)
  expected(typeof computed?.getEmbedding === 'function', 'ranks')
  return {
    context,
    async evaluate(tokens) {
      await sequence.eraseContextTokenRanges([{ start: 0, end: sequence.nextTokenIndex }])
      for await (const _ of sequence.evaluate(tokens, { _noSampling: true } as object)) break
      return computed.getEmbedding(tokens.length, 1)[0] ?? Number.NaN
    },
  }
}

/** Looks at the logits from which each next token of a sequence is drawn. While nobody watches it costs nothing. */
export interface Watch {
  /** From now on, report each token and this many of the likeliest; null: none. */
  top: number | null
  /** Of the last token drawn. */
  seen: Seen | null
}

type Draw = (batchIndex: number, at: number) => unknown

export function watchLogits(context: LlamaContext, sequence: LlamaContextSequence): Watch {
  const { model } = context
  const watch: Watch = { top: null, seen: null }
  const native = sequenceOf(sequence)
  const { _ctx: computed } = contextOf(context)
  const decode = native._decodeTokens
  expected(typeof decode === 'function' && typeof computed?.sampleToken === 'function', 'decodes')
  let greedy: NativeSampler | undefined
  native._decodeTokens = (...args) => {
    const draw = args[DRAW] as Draw
    if (watch.top === null) return decode.apply(native, args)
    args[DRAW] = async (batchIndex: number, at: number) => {
      const drawn = await draw(batchIndex, at)
      greedy ??= greedySampler(model)
      // The likeliest one comes with the selected one; more of them cost sorting the vocabulary.
      const wanted = [[drawn], false, false, true, (watch.top ?? 0) > 1 ? watch.top : 0]
      const [best, , , values, weight] = await computed.sampleToken(batchIndex, greedy, false, false, wanted, true)
      watch.seen = seenOf(drawn as number, best as number, values as number[], weight as number, watch.top ?? 0)
      return drawn
    }
    return decode.apply(native, args)
  }
  return watch
}

/** It leaves the logits as they are. */
function greedySampler(model: LlamaModel): NativeSampler {
  const { _llama, _model } = modelOf(model)
  const sampler = new _llama._bindings.AddonSampler(_model)
  sampler.applyConfig({ temperature: 0 })
  return sampler
}

/** `pairs`: token, logit, token, logit, …, unordered, some twice. `weight`: the sum of exp(logit - largest logit) over the vocabulary. */
function seenOf(drawn: number, best: number, pairs: readonly number[], weight: number, top: number): Seen {
  const logits = new Map<number, number>()
  for (let i = 0; i + 1 < pairs.length; i += 2) logits.set(pairs[i] ?? -1, pairs[i + 1] ?? Number.NaN)
  return seenAmong(logits, drawn, best, weight, top)
}

export function seenAmong(logits: ReadonlyMap<number, number>, drawn: number, best: number, weight: number, top: number): Seen {
  const base = (logits.get(best) ?? Number.NaN) + Math.log(weight)
  const ranked = [...logits].map(([token, logit]) => ({ token, logprob: logit - base })).sort((a, b) => b.logprob - a.logprob)
  return { logprob: (logits.get(drawn) ?? Number.NaN) - base, top: ranked.slice(0, top) }
}

/** node-llama-cpp's own `set` leaves out tokens that end an answer; OpenAI's clients bias those too. */
export function tokenBias(model: LlamaModel, biases: ReadonlyMap<number, number>): TokenBias {
  const bias = TokenBias.for(model)
  const { _biases: logits } = bias as unknown as { _biases: Map<Token, number> }
  for (const [token, logit] of biases) logits.set(token as Token, logit)
  return bias
}
