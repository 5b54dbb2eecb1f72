import { type LlamaContext, type LlamaContextSequence, type LlamaModel, type Token, TokenBias } from 'node-llama-cpp'
import type { Seen } from '../output/logprobs.ts'

/**
 * The few places where node-llama-cpp 3.22.1 is asked for more than its types offer. What is missing there fails when the engine opens,
 * not in the middle of an answer.
 */

/** Looks at the logits from which each next token of a sequence is drawn. While nobody watches it costs nothing. */
export interface Watch {
  /** From now on, report each token and this many of the likeliest; null: none. */
  top: number | null
  /** Of the last token drawn. */
  seen: Seen | null
}

interface NativeSampler {
  applyConfig(config: object): void
}
type Mapper = (batchIndex: number, at: number) => unknown
interface NativeSequence {
  _decodeTokens(...args: unknown[]): Promise<unknown>
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
  }
}

/** Position of the function that draws a token, among the arguments of `_decodeTokens`. */
const MAPPER = 5

export function watchLogits(context: LlamaContext, sequence: LlamaContextSequence): Watch {
  const { model } = context
  const watch: Watch = { top: null, seen: null }
  const native = sequence as unknown as NativeSequence
  const { _ctx: computed } = context as unknown as NativeContext
  const decode = native._decodeTokens
  if (typeof decode !== 'function' || typeof computed?.sampleToken !== 'function')
    throw new Error('node-llama-cpp no longer decodes as engine/embedded/native.ts expects')
  let greedy: NativeSampler | undefined
  native._decodeTokens = (...args) => {
    const draw = args[MAPPER] as Mapper
    if (watch.top === null) return decode.apply(native, args)
    args[MAPPER] = async (batchIndex: number, at: number) => {
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
  const { _llama: llama, _model: weights } = model as unknown as {
    _llama: { _bindings: { AddonSampler: new (weights: unknown) => NativeSampler } }
    _model: unknown
  }
  const sampler = new llama._bindings.AddonSampler(weights)
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
