import type { LlamaModel, SequenceEvaluateOptions, Token } from 'node-llama-cpp'
import { PalimpsestError } from '../../errors.ts'
import type { Sampling } from '../../request.ts'
import { foldedSeed } from '../seed.ts'
import { ALONE, SHARED } from './batching.ts'
import type { Constraint } from './grammar.ts'
import { tokenBias } from './native.ts'

/** 0 would switch nucleus sampling off. */
const LEAST_TOP_P = 1e-6

/**
 * OpenAI's semantics: no top-k, no min-p, no penalties unless asked for, and penalties count the answer's tokens, not the prompt's. top_p is
 * applied to the probabilities before the temperature (node-llama-cpp's order of samplers), where OpenAI does not say.
 */
export function samplerOptions(
  sampling: Sampling,
  model: LlamaModel,
  constraint: Constraint | null,
  answer: { readonly tokens: readonly number[]; readonly limit: number },
  randomSeed: () => number,
): SequenceEvaluateOptions {
  const { frequencyPenalty = 0, presencePenalty = 0, repeatPenalty = 1, logitBias, topK, minP } = sampling
  const penalized = frequencyPenalty !== 0 || presencePenalty !== 0 || repeatPenalty !== 1
  return {
    temperature: sampling.temperature,
    topP: Math.max(LEAST_TOP_P, sampling.topP),
    // 0 would sort the whole vocabulary for every token (10 ms, measured); null, which the type does not foresee, leaves the sampler out.
    topK: topK ?? (null as never),
    minP: minP ?? 0,
    seed: foldedSeed(sampling.seed ?? randomSeed()),
    evaluationPriority: sampling.seed === undefined ? SHARED : ALONE,
    yieldEogToken: true,
    ...(constraint !== null && { grammarEvaluationState: () => constraint.state }),
    ...(logitBias !== undefined && logitBias.size > 0 && { tokenBias: tokenBias(model, logitBias) }),
    ...(penalized && {
      repeatPenalty: {
        punishTokens: () => answer.tokens as Token[],
        maxPunishTokens: answer.limit,
        penalty: repeatPenalty,
        frequencyPenalty,
        presencePenalty,
      },
    }),
  }
}

/** Throws `invalid_value` for an id that is no token of this model. */
export function checkBias({ logitBias }: Sampling, vocabularySize: number): void {
  for (const token of logitBias?.keys() ?? []) {
    if (token < vocabularySize) continue
    throw new PalimpsestError(
      'invalid_value',
      `Expected the keys of \`logit_bias\` to be token ids below ${vocabularySize}, got ${token}.`,
      { param: 'logit_bias' },
    )
  }
}

/** Throws `invalid_value` for an id that is no token of this model. */
export function checkTokens(tokens: readonly number[], vocabularySize: number): void {
  const wrong = tokens.find((token) => token >= vocabularySize)
  if (wrong === undefined) return
  throw new PalimpsestError('invalid_value', `Expected token ids below ${vocabularySize}, got ${wrong}.`, { param: 'prompt' })
}
