import { z } from 'zod'
import { PalimpsestError } from '../../errors.ts'
import type { Limits } from '../../gateway.ts'
import type { ChatRequest } from '../../request.ts'
import { selectionFields, type Tenancy, toSelection } from '../palimpsest/selection.ts'
import { sent } from '../sent.ts'
import { CHAT_FIELDS, strip } from './fields.ts'
import { formatField, toFormat } from './format.ts'
import { isObject, messagesField, tidyMessages, toMessages } from './messages.ts'
import { modelAsked, type ServedModels } from './models.ts'
import { checkSent } from './refusal.ts'
import { oneLimit, samplingFields, toSampling } from './sampling.ts'
import { toolFields, toTools } from './tools.ts'

/** What only the reply needs. */
export interface ReplyOptions {
  /** The model name as the client wrote it, to be echoed. */
  readonly model: string
  /** Answers asked for. */
  readonly n: number
  readonly stream: boolean
  readonly includeUsage: boolean
  /** The request's `user`, as experiments may keep it in one arm. */
  readonly user?: string
  /** Pad the chunks of a stream, so that their sizes do not tell what is in them. */
  readonly obfuscate: boolean
  /** The client asked for a tier, and is to be told which it got. */
  readonly tier: boolean
}

/** A chat request as read from the wire. */
export interface ChatCall extends ReplyOptions {
  readonly request: ChatRequest
}

/** What the gateway serves at the moment of a request. */
export interface Served extends ServedModels {
  readonly templates: readonly string[]
}

export type ChatReader = (body: unknown, tenantHeader: Tenancy | undefined, served: Served) => ChatCall

/**
 * Reads the body of `POST /v1/chat/completions` (openai-openapi 2.3.0, CreateChatCompletionRequest) and our `palimpsest` extension.
 * Throws a PalimpsestError that names the first faulty field in `param`.
 */
export function chatReader(limits: Limits): ChatReader {
  const checked = checkSent(chatBody(limits))
  return (body, tenantHeader, served) => {
    const fields = checked(tidy(body))
    const { palimpsest = {}, stream = false } = fields
    checkStreamOptions(fields)
    const tools = toTools(fields)
    const selection = toSelection(palimpsest, tenantHeader, served.templates, 'palimpsest.')
    const request: ChatRequest = {
      ...selection,
      ...modelAsked(fields.model, served, selection.tenant),
      messages: toMessages(fields.messages),
      explain: palimpsest.explain ?? false,
      sampling: sampling(fields, limits),
      ...(tools !== undefined && { tools }),
    }
    return {
      request,
      model: fields.model,
      n: fields.n ?? 1,
      stream,
      includeUsage: fields.stream_options?.include_usage ?? false,
      obfuscate: fields.stream_options?.include_obfuscation ?? false,
      tier: isObject(body) && 'service_tier' in body && body.service_tier !== null,
      ...(fields.user !== undefined && { user: fields.user }),
    }
  }
}

type Fields = z.output<ReturnType<typeof chatBody>>

/** The body of `POST /v1/chat/completions`, once `tidy` has dropped what stands for absent. */
export function chatBody(limits: Limits) {
  const schema = z.strictObject({
    model: modelField,
    messages: messagesField(limits),
    ...samplingFields(limits),
    ...toolFields(limits),
    ...streamFields(limits),
    max_tokens: z.int().min(1).optional(),
    max_completion_tokens: z.int().min(1).optional(),
    response_format: formatField.optional(),
    logprobs: z.boolean().optional(),
    top_logprobs: z.int().min(0).max(MOST_TOP_LOGPROBS).optional(),
    // These ask nothing of the answer: labels for a provider's own records, and hints that may make it come sooner.
    user: z.string().optional(),
    safety_identifier: z.string().optional(),
    metadata: z
      .record(z.string().max(64), z.string().max(512))
      .refine((pairs) => Object.keys(pairs).length <= MOST_METADATA_PAIRS, {
        error: `an object of at most ${MOST_METADATA_PAIRS} texts`,
      })
      .meta({ maxProperties: MOST_METADATA_PAIRS })
      .optional(),
    prediction: z.looseObject({ type: z.literal('content') }).optional(),
    prompt_cache_key: z.string().optional(),
    prompt_cache_options: z.looseObject({}).optional(),
    prompt_cache_retention: z.string().optional(),
    palimpsest: palimpsestField(limits),
  })
  return schema.register(sent, { decided: CHAT_FIELDS }).meta({ id: 'ChatCompletionRequest' })
}

export const modelField = z.string().describe('`NAME` or `NAME@edited`, `NAME@base`, `NAME@adapter:ID`; see `GET /v1/models`.')

export function palimpsestField(limits: Limits) {
  return z
    .strictObject({
      ...selectionFields(limits),
      explain: z.boolean().optional().describe('Sends the trace of every decision with the answer.'),
    })
    .register(sent, { decided: {} })
    .optional()
    .describe('What narrows the selection of edits, and what is told of it.')
}

const MOST_METADATA_PAIRS = 16
const MOST_TOP_LOGPROBS = 20

/** How many answers, and whether and how they are streamed. */
export function streamFields(limits: Limits) {
  return {
    n: z.int().min(1).max(limits.choices).optional(),
    stream: z.boolean().optional(),
    stream_options: z
      .strictObject({ include_usage: z.boolean().optional(), include_obfuscation: z.boolean().optional() })
      .register(sent, { decided: {} })
      .optional(),
  }
}

export function checkStreamOptions({ stream, stream_options }: Pick<Fields, 'stream' | 'stream_options'>): void {
  if (stream_options === undefined || stream === true) return
  throw new PalimpsestError('invalid_value', '`stream_options` is only allowed when `stream` is true.', {
    param: 'stream_options',
  })
}

/** Nulls dropped where OpenAI lets null stand for absent, and fields at their neutral values dropped. */
function tidy(body: unknown): unknown {
  if (!isObject(body)) return body
  const { messages, stream_options: streamOptions, palimpsest, ...fields } = strip(body, CHAT_FIELDS)
  return {
    ...fields,
    ...(messages !== undefined && { messages: tidyMessages(messages) }),
    ...(streamOptions !== undefined && { stream_options: tidyObject(streamOptions) }),
    ...(palimpsest !== undefined && { palimpsest: tidyObject(palimpsest) }),
  }
}

/** Without nulls. */
export function tidyObject(value: unknown): unknown {
  return isObject(value) ? strip(value, {}) : value
}

function sampling(fields: Fields, limits: Limits): ChatRequest['sampling'] {
  const { logprobs = false, top_logprobs: top } = fields
  if (top !== undefined && top > 0 && !logprobs)
    throw new PalimpsestError('invalid_value', '`top_logprobs` is only allowed when `logprobs` is true.', {
      param: 'top_logprobs',
    })
  const format = toFormat(fields.response_format)
  return {
    ...toSampling(fields, limits, oneLimit(fields.max_tokens, fields.max_completion_tokens)),
    ...(logprobs && { logprobs: top ?? 0 }),
    ...(format !== undefined && { format }),
  }
}
