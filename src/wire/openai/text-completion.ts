import { z } from 'zod'
import type { Finish, Piece, TokenLogprob } from '../../engine/engine.ts'
import { PalimpsestError } from '../../errors.ts'
import type { Limits } from '../../gateway.ts'
import type { TextRequest } from '../../request.ts'
import type { Trace } from '../../trace.ts'
import { type Tenancy, text, toSelection } from '../palimpsest/selection.ts'
import { sent } from '../sent.ts'
import {
  checkStreamOptions,
  modelField,
  palimpsestField,
  type ReplyOptions,
  type Served,
  streamFields,
  tidyObject,
} from './chat.ts'
import { finite, type Heading, provenance } from './completion.ts'
import { COMPLETION_FIELDS, strip } from './fields.ts'
import { isObject } from './messages.ts'
import { modelAsked } from './models.ts'
import { check } from './refusal.ts'
import { samplingFields, toSampling } from './sampling.ts'

/** A request for text completions as read from the wire. */
export interface TextCall extends ReplyOptions {
  /** One for each prompt. */
  readonly requests: readonly TextRequest[]
  /** Answers written to each prompt, of which the `n` likeliest are sent. */
  readonly bestOf: number
}

export type TextReader = (body: unknown, tenantHeader: Tenancy | undefined, served: Served) => TextCall

/** Reads the body of `POST /v1/completions` (openai-openapi 2.3.0, CreateCompletionRequest) and our `palimpsest` extension. */
export function textReader(limits: Limits): TextReader {
  const schema = textBody(limits)
  return (body, tenantHeader, served) => {
    const fields = check(schema, tidy(body))
    const { palimpsest = {}, stream = false, echo = false, logprobs, n = 1, best_of: bestOf = n } = fields
    checkStreamOptions(fields)
    if (bestOf < n) throw wrong(`\`best_of\` is ${bestOf}, but \`n\` asks for ${n} answers: write at least as many.`, 'best_of')
    if (stream && bestOf > n) throw wrong('`best_of` cannot be streamed: the best is only known at the end.', 'best_of')
    const sampling = toSampling(fields, limits, fields.max_tokens ?? DEFAULT_TOKENS)
    const selection = toSelection(palimpsest, tenantHeader, served.templates, 'palimpsest.')
    const common = {
      ...selection,
      ...modelAsked(fields.model, served, selection.tenant),
      echo,
      explain: palimpsest.explain ?? false,
      sampling: logprobs === undefined ? sampling : { ...sampling, logprobs },
    }
    return {
      requests: promptsOf(fields.prompt ?? '').map((prompt) => ({ ...common, prompt })),
      model: fields.model,
      n,
      bestOf,
      stream,
      tier: false,
      includeUsage: fields.stream_options?.include_usage ?? false,
      obfuscate: fields.stream_options?.include_obfuscation ?? false,
      ...(fields.user !== undefined && { user: fields.user }),
    }
  }
}

const DEFAULT_TOKENS = 16
const MOST_LOGPROBS = 5
const MOST_BEST_OF = 20

type Prompt = string | number[]

export function textBody(limits: Limits) {
  const tokens = z.array(z.int().min(0)).min(1)
  const schema = z.strictObject({
    model: modelField,
    prompt: z
      .union([text, tokens, z.array(text).min(1).max(limits.prompts), z.array(tokens).min(1).max(limits.prompts)], {
        error: `a string, an array of token ids, or an array of up to ${limits.prompts} of either`,
      })
      .optional(),
    ...samplingFields(limits),
    ...streamFields(limits),
    max_tokens: z.int().min(0).optional(),
    echo: z.boolean().optional(),
    logprobs: z.int().min(0).max(MOST_LOGPROBS).optional(),
    best_of: z.int().min(1).max(MOST_BEST_OF).optional(),
    user: z.string().optional(),
    palimpsest: palimpsestField(limits),
  })
  return schema.register(sent, { decided: COMPLETION_FIELDS }).meta({ id: 'CompletionRequest' })
}

function promptsOf(prompt: string | readonly (string | number | number[])[]): Prompt[] {
  if (typeof prompt === 'string') return [prompt]
  return typeof prompt[0] === 'number' ? [prompt as number[]] : (prompt as Prompt[])
}

function tidy(body: unknown): unknown {
  if (!isObject(body)) return body
  const { stream_options: streamOptions, palimpsest, ...fields } = strip(body, COMPLETION_FIELDS)
  return {
    ...fields,
    ...(streamOptions !== undefined && { stream_options: tidyObject(streamOptions) }),
    ...(palimpsest !== undefined && { palimpsest: tidyObject(palimpsest) }),
  }
}

function wrong(message: string, param: string): PalimpsestError {
  return new PalimpsestError('invalid_value', message, { param })
}

/** Writes the parts of one answer; offsets go on from part to part. */
export class TextWriter {
  readonly #index: number
  readonly #decoder = new TextDecoder()
  #chars = 0

  constructor(index: number) {
    this.#index = index
  }

  /** A choice of CreateCompletionResponse, which whole answers and chunks share. */
  choice({ text: written, tokens }: Piece, reason: Finish['reason'] | null) {
    return {
      text: written,
      index: this.#index,
      logprobs: tokens === undefined ? null : this.#logprobs(tokens),
      finish_reason: reason,
    }
  }

  #logprobs(tokens: readonly TokenLogprob[]) {
    return {
      tokens: tokens.map(tokenText),
      token_logprobs: tokens.map(({ logprob }) => (logprob === null ? null : finite(logprob))),
      top_logprobs: tokens.map(topOf),
      text_offset: tokens.map((token) => this.#offset(token)),
    }
  }

  /** Where in the text the token begins, in characters: those finished before it. */
  #offset({ bytes, text: shown }: TokenLogprob): number {
    const before = this.#chars
    this.#chars += [
      ...this.#decoder.decode(bytes === null ? Buffer.from(shown) : Uint8Array.from(bytes), { stream: true }),
    ].length
    return before
  }
}

/** OpenAI's spelling of a token that is no text of its own. */
function tokenText({ text: shown, bytes }: Pick<TokenLogprob, 'text' | 'bytes'>): string {
  if (bytes === null || !shown.includes('\ufffd')) return shown
  return `bytes:${bytes.map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}`
}

/** The likeliest, and the token itself. */
function topOf(token: TokenLogprob): Record<string, number> | null {
  if (token.logprob === null) return null
  const own = [tokenText(token), finite(token.logprob)] as const
  return Object.fromEntries([...token.top.map((one) => [tokenText(one), finite(one.logprob)] as const), own])
}

export interface TextAnswer {
  readonly piece: Piece
  readonly finish: Finish
  readonly trace: Trace
}

/** By mean log probability of what was written, the likeliest first. */
export function likeliest(answers: readonly TextAnswer[]): TextAnswer[] {
  const mean = ({ piece: { tokens = [] }, finish: { completionTokens } }: TextAnswer) => {
    const written = completionTokens === 0 ? [] : tokens.slice(-completionTokens)
    return written.reduce((sum, { logprob }) => sum + (logprob ?? 0), 0) / Math.max(1, written.length)
  }
  return [...answers].sort((a, b) => mean(b) - mean(a))
}

/** openai-openapi 2.3.0, CreateCompletionResponse, with our provenance beside it: of each choice where there are several prompts. */
export function textCompletion(
  heading: Heading,
  answers: readonly TextAnswer[],
  perPrompt: number,
  explain: boolean,
  logprobs: boolean,
) {
  const [first] = answers
  const several = answers.length > perPrompt
  return {
    ...heading,
    object: 'text_completion',
    choices: answers.map(({ piece, finish, trace }, index) => ({
      ...new TextWriter(index).choice(logprobs ? { tokens: [], ...piece } : { text: piece.text }, finish.reason),
      ...(several && { palimpsest: provenance(trace, explain) }),
    })),
    usage: textUsage(
      answers.map(({ finish }) => finish),
      perPrompt,
    ),
    ...(!several && first !== undefined && { palimpsest: provenance(first.trace, explain) }),
  }
}

export function textChunk(heading: Heading, includeUsage: boolean, choice: object) {
  return { ...heading, object: 'text_completion', choices: [choice], ...(includeUsage && { usage: null }) }
}

/** Each prompt is counted once however many answers it got. */
export function textUsage(finishes: readonly Finish[], perPrompt: number) {
  const firsts = finishes.filter((_, i) => i % perPrompt === 0)
  const prompt = firsts.reduce((sum, finish) => sum + finish.promptTokens, 0)
  const completion = finishes.reduce((sum, finish) => sum + finish.completionTokens, 0)
  const cached = firsts.reduce((sum, finish) => sum + finish.cachedTokens, 0)
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: cached },
  }
}
