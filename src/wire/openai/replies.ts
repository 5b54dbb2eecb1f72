/** What the OpenAI paths answer, for the reference: the fields that every reply has; `test/http/contract/openapi.test.ts` holds replies to it. */
import { z } from 'zod'
import { provenanceReply } from '../palimpsest/replies.ts'

const tokens = z.int().min(0)
const finishReason = z.enum(['stop', 'length', 'tool_calls'])
const index = z.int().min(0)

const chatUsage = z.object({
  prompt_tokens: tokens.describe('Counted once, however many answers were asked for.'),
  completion_tokens: tokens,
  total_tokens: tokens,
  prompt_tokens_details: z.object({ cached_tokens: tokens }).optional(),
})

const heading = {
  id: z.string(),
  created: z.int().describe('Seconds since the epoch.'),
  model: z.string().describe('As the client wrote it.'),
  system_fingerprint: z.string().describe("Changes with the weights, the device and the gateway's version."),
  service_tier: z.literal('default').optional(),
}

const toolCall = z.object({
  id: z.string(),
  type: z.literal('function'),
  function: z.object({ name: z.string(), arguments: z.string() }),
})

const logprobs = z.object({ content: z.array(z.object({})), refusal: z.null() }).nullable()

export const chatReply = z
  .object({
    ...heading,
    object: z.literal('chat.completion'),
    choices: z.array(
      z.object({
        index,
        message: z.object({
          role: z.literal('assistant'),
          content: z.string().nullable(),
          refusal: z.null(),
          tool_calls: z.array(toolCall).optional(),
        }),
        logprobs,
        finish_reason: finishReason,
      }),
    ),
    usage: chatUsage,
    palimpsest: provenanceReply,
  })
  .meta({ id: 'ChatCompletion' })

export const chatChunk = z
  .object({
    ...heading,
    object: z.literal('chat.completion.chunk'),
    choices: z.array(
      z.object({
        index,
        delta: z.object({
          role: z.literal('assistant').optional(),
          content: z.string().nullish(),
          refusal: z.null().optional(),
          tool_calls: z.array(z.object({ index })).optional(),
        }),
        logprobs,
        finish_reason: finishReason.nullable(),
      }),
    ),
    usage: chatUsage.nullish(),
    palimpsest: provenanceReply.optional().describe('In the chunk that ends a choice.'),
    obfuscation: z.string().optional(),
  })
  .meta({ id: 'ChatCompletionChunk' })

export const textReply = z
  .object({
    ...heading,
    object: z.literal('text_completion'),
    choices: z.array(
      z.object({
        text: z.string(),
        index,
        logprobs: z.object({}).nullable(),
        finish_reason: finishReason.nullable(),
        palimpsest: provenanceReply.optional().describe('Where there are several prompts.'),
      }),
    ),
    usage: chatUsage.nullish(),
    palimpsest: provenanceReply.optional(),
    obfuscation: z.string().optional(),
  })
  .meta({ id: 'TextCompletion', description: 'Whole, or a chunk of a stream.' })

export const embeddingsReply = z
  .object({
    object: z.literal('list'),
    data: z.array(
      z.object({
        object: z.literal('embedding'),
        index,
        embedding: z.union([z.array(z.number()), z.string()]).describe('Numbers, or little-endian 32-bit floats in base64.'),
      }),
    ),
    model: z.string(),
    usage: z.object({ prompt_tokens: tokens, total_tokens: tokens }),
  })
  .meta({ id: 'Embeddings' })

export const responseReply = z
  .object({
    id: z.string(),
    object: z.literal('response'),
    created_at: z.int(),
    completed_at: z.int().nullable(),
    status: z.enum(['in_progress', 'completed', 'incomplete', 'failed']),
    error: z.object({ code: z.string(), message: z.string() }).nullable(),
    incomplete_details: z.object({ reason: z.literal('max_output_tokens') }).nullable(),
    model: z.string(),
    output: z.array(z.object({ id: z.string(), type: z.enum(['message', 'function_call']), status: z.string() })),
    usage: z.object({ input_tokens: tokens, output_tokens: tokens, total_tokens: tokens }).nullable(),
    instructions: z.string().nullable(),
    previous_response_id: z.string().nullable(),
    tools: z.array(z.object({ type: z.literal('function'), name: z.string() })),
    tool_choice: z.union([z.string(), z.object({ type: z.string() })]),
    parallel_tool_calls: z.boolean(),
    temperature: z.number(),
    top_p: z.number(),
    frequency_penalty: z.number(),
    presence_penalty: z.number(),
    metadata: z.record(z.string(), z.string()),
    store: z.boolean(),
    palimpsest: provenanceReply.optional(),
  })
  .meta({ id: 'Response', description: 'Fields of the request are repeated in it, as at OpenAI.' })

export const responseEvent = z
  .object({ type: z.string(), sequence_number: z.int().min(0) })
  .meta({ id: 'ResponseEvent', description: "OpenAI's events, `response.created` to `response.completed`." })

export const modelReply = z
  .object({
    id: z.string(),
    object: z.literal('model'),
    created: z.int(),
    owned_by: z.literal('palimpsest'),
    palimpsest: z
      .object({
        arm: z.enum(['base', 'edited', 'adapter']).optional(),
        adapter: z.string().optional(),
        embedding: z.object({ dimensions: z.int(), max_tokens: z.int() }).optional(),
      })
      .describe('The arm that the name stands for, or what the embedder makes.'),
  })
  .meta({ id: 'Model' })
