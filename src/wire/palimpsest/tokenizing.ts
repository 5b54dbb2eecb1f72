import { z } from 'zod'
import type { TextEngine } from '../../engine/engine.ts'
import { PalimpsestError } from '../../errors.ts'
import { modelAsked, type ServedModels } from '../openai/models.ts'
import { check } from '../openai/refusal.ts'
import { text } from './selection.ts'

export const tokenizeBody = z.strictObject({
  model: z.string().optional(),
  prompt: text,
  add_special_tokens: z.boolean().optional(),
  return_token_strs: z.literal(false).nullish(),
})

export const detokenizeBody = z.strictObject({ model: z.string().optional(), tokens: z.array(z.int().min(0)) })

export const tokenizeReply = z.object({
  count: z.int(),
  max_model_len: z.int(),
  tokens: z.array(z.int()),
  token_strs: z.null(),
})
export const detokenizeReply = z.object({ prompt: z.string() })
export const tokenizerReply = z.object({
  bos_token: z.string().nullable(),
  eos_token: z.string().nullable(),
  add_bos_token: z.boolean(),
  model_max_length: z.int(),
})

/** `POST /tokenize` as vLLM has it (entrypoints/serve/tokenize/protocol.py, TokenizeCompletionRequest and TokenizeResponse). */
export function tokenized(body: unknown, engine: TextEngine, served: ServedModels, tenant: string, contextTokens: number) {
  const { prompt, add_special_tokens: marked = true, ...asked } = check(tokenizeBody, body)
  if (asked.model !== undefined) modelAsked(asked.model, served, tenant)
  const { bos, opens } = engine.marks
  const tokens = engine.tokenize(marked && opens ? `${bos ?? ''}${prompt}` : prompt)
  return { count: tokens.length, max_model_len: contextTokens, tokens, token_strs: null }
}

/** `POST /detokenize`, same source. Throws `invalid_value` where an id is no token. */
export function detokenized(body: unknown, engine: TextEngine, served: ServedModels, tenant: string) {
  const asked = check(detokenizeBody, body)
  if (asked.model !== undefined) modelAsked(asked.model, served, tenant)
  try {
    return { prompt: engine.detokenize(asked.tokens) }
  } catch (error) {
    if (error instanceof PalimpsestError) throw new PalimpsestError(error.code, error.message, { param: 'tokens' })
    throw error
  }
}

/** `GET /tokenizer_info`: of what vLLM tells, the fields that hold for a vocabulary that is no Python class. */
export function tokenizerInfo({ marks }: TextEngine, contextTokens: number) {
  return { bos_token: marks.bos, eos_token: marks.eos, add_bos_token: marks.opens, model_max_length: contextTokens }
}
