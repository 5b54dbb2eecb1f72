import { z } from 'zod'
import { PalimpsestError } from '../../errors.ts'
import type { Limits } from '../../gateway.ts'
import type { Sampling } from '../../request.ts'
import { text } from '../palimpsest/selection.ts'
import { sent } from '../sent.ts'

/** From the least of 64 bits with a sign to the greatest without. */
const SEED = { least: -(2n ** 63n), most: 2n ** 64n - 1n }
const seedField = z
  .union([z.int(), z.bigint().min(SEED.least).max(SEED.most)], { error: 'a whole number of at most 64 bits' })
  .register(sent, { as: z.int() })

const penalty = z.number().min(-2).max(2).optional()

/** What OpenAI's chat and text completions have in common, and, beside it, llama-server's and vLLM's `top_k`, `min_p` and `repeat_penalty`. */
export function samplingFields(limits: Limits) {
  const stop = text.min(1).max(limits.stopChars)
  const stops = {
    error: `a non-empty string or an array of up to ${limits.stops} of them, each at most ${limits.stopChars} characters long`,
  }
  return {
    temperature: z.number().min(0).max(2).optional(),
    top_p: z.number().min(0).max(1).optional(),
    seed: seedField.optional(),
    stop: z.union([stop, z.array(stop).max(limits.stops)], stops).optional(),
    frequency_penalty: penalty,
    presence_penalty: penalty,
    logit_bias: z
      .record(z.string().regex(/^\d{1,9}$/, { error: 'token ids' }), z.number().min(-100).max(100))
      .refine((biases) => Object.keys(biases).length <= limits.biases, {
        error: `an object of at most ${limits.biases} token ids`,
      })
      .optional(),
    // 0 and -1 switch it off at llama-server and at vLLM.
    top_k: z.int().min(-1).max(1_000_000).optional(),
    min_p: z.number().min(0).max(1).optional(),
    repeat_penalty: z.number().gt(0).max(10).optional(),
  }
}

type SamplingFields = z.output<z.ZodObject<ReturnType<typeof samplingFields>>>

export function toSampling(fields: SamplingFields, limits: Limits, maxTokens: number | undefined): Sampling {
  const { seed, stop, frequency_penalty: frequency, presence_penalty: presence, logit_bias: biases } = fields
  const { top_k: topK, min_p: minP, repeat_penalty: repeat } = fields
  return {
    temperature: fields.temperature ?? limits.defaultTemperature,
    topP: fields.top_p ?? 1,
    stop: typeof stop === 'string' ? [stop] : (stop ?? []),
    ...(seed !== undefined && { seed }),
    ...(maxTokens !== undefined && { maxTokens }),
    ...(frequency && { frequencyPenalty: frequency }),
    ...(presence && { presencePenalty: presence }),
    ...(repeat !== undefined && repeat !== 1 && { repeatPenalty: repeat }),
    ...(topK !== undefined && topK > 0 && { topK }),
    ...(minP && { minP }),
    ...(biases !== undefined && { logitBias: new Map(Object.entries(biases).map(([token, bias]) => [Number(token), bias])) }),
  }
}

/** The two names of one limit. */
export function oneLimit(old: number | undefined, current: number | undefined): number | undefined {
  if (old === undefined || current === undefined || old === current) return current ?? old
  throw new PalimpsestError(
    'invalid_value',
    `\`max_tokens\` is ${old} and \`max_completion_tokens\` is ${current}: they mean the same, send one.`,
    { param: 'max_tokens' },
  )
}
