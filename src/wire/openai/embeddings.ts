import { z } from 'zod'
import { PalimpsestError } from '../../errors.ts'
import type { Limits } from '../../gateway.ts'
import { text } from '../palimpsest/selection.ts'
import { sent } from '../sent.ts'
import { EMBEDDING_FIELDS, strip } from './fields.ts'
import { isObject } from './messages.ts'
import type { ServedEmbedder } from './models.ts'
import { check, fault } from './refusal.ts'

export interface EmbeddingCall {
  readonly texts: readonly string[]
  readonly encoding: 'float' | 'base64'
  /** As the client wrote it, to be echoed. */
  readonly model: string
}

export type EmbeddingReader = (body: unknown, served: Pick<ServedEmbedder, 'name' | 'dimensions'>) => EmbeddingCall

/** Reads the body of `POST /v1/embeddings` (openai-openapi 2.3.0, CreateEmbeddingRequest). Throws a PalimpsestError naming the faulty field. */
export function embeddingReader(limits: Limits): EmbeddingReader {
  const schema = embeddingBody(limits)
  return (body, served) => {
    const fields = check(schema, isObject(body) ? strip(body, EMBEDDING_FIELDS) : body)
    if (fields.model !== served.name) throw modelNotFound(fields.model, served.name)
    if (fields.dimensions !== undefined && fields.dimensions !== served.dimensions)
      throw otherDimensions(fields.dimensions, served)
    return { texts: fields.input, encoding: fields.encoding_format ?? 'float', model: fields.model }
  }
}

/** `dimensions`: the embedder's, for the reference; the reader has a sentence of its own for others. */
export function embeddingBody(limits: Limits, dimensions?: number) {
  const own = dimensions === undefined ? {} : { as: z.literal(dimensions) }
  const schema = z.strictObject({
    model: z.string().describe('The embedder of `GET /v1/models`.'),
    input: inputField(limits),
    encoding_format: z.enum(['float', 'base64']).optional(),
    dimensions: z.int().min(1).register(sent, own).optional().describe("The embedder's own number; any other is refused."),
    // A label for a provider's own records.
    user: z.string().optional(),
  })
  return schema.register(sent, { decided: EMBEDDING_FIELDS }).meta({ id: 'EmbeddingsRequest' })
}

const TOKEN_IDS =
  '`input` holds token ids, which mean something in one vocabulary only, and the embedder has its own. Send text (LangChain: check_embedding_ctx_length=False).'

/** Texts. Token ids, which OpenAI takes too, are refused. */
function inputField(limits: Limits) {
  const written = text.min(1)
  const entry = z.union([text, z.number(), z.array(z.number())], { error: 'a text of whole characters' })
  return z
    .preprocess(
      (input) => (typeof input === 'string' ? [input] : input),
      z.array(entry, { error: 'a text, or an array of them' }).min(1),
    )
    .superRefine((input, context) => {
      const empty = input.indexOf('')
      if (input.some((one) => typeof one !== 'string')) context.addIssue(fault('unsupported_field', TOKEN_IDS))
      else if (empty >= 0) context.addIssue(fault('invalid_value', `Text ${empty} of \`input\` is empty.`))
      else if (input.length > limits.embeddingInputs) {
        const message = `\`input\` has ${input.length} texts; at most ${limits.embeddingInputs} are taken at a time.`
        context.addIssue(fault('invalid_value', message))
      }
    })
    .transform((input) => input.filter((one) => typeof one === 'string'))
    .register(sent, { as: z.union([written, z.array(written).min(1).max(limits.embeddingInputs)]) })
}

function modelNotFound(asked: string, served: string): PalimpsestError {
  return new PalimpsestError(
    'model_not_found',
    `There is no embedding model \`${asked.slice(0, 64)}\`. Served here: ${served}.`,
    { param: 'model' },
  )
}

/** Shortened vectors are only good where a model was trained for them; this one was not. */
function otherDimensions(asked: number, { name, dimensions }: Pick<ServedEmbedder, 'name' | 'dimensions'>): PalimpsestError {
  return new PalimpsestError(
    'unsupported_field',
    `\`dimensions\` is ${asked}, and the vectors of ${name} have ${dimensions}, which can't be shortened without loss. Leave it out.`,
    { param: 'dimensions' },
  )
}

/** openai-openapi 2.3.0, CreateEmbeddingResponse. base64: little-endian 32-bit floats. */
export function wireEmbeddings({ encoding, model }: EmbeddingCall, vectors: readonly Float32Array[], promptTokens: number) {
  return {
    object: 'list',
    data: vectors.map((vector, index) => ({
      object: 'embedding',
      index,
      embedding: encoding === 'float' ? [...vector] : base64(vector),
    })),
    model,
    usage: { prompt_tokens: promptTokens, total_tokens: promptTokens },
  }
}

function base64(vector: Float32Array): string {
  const bytes = Buffer.alloc(vector.length * 4)
  for (const [i, x] of vector.entries()) bytes.writeFloatLE(x, i * 4)
  return bytes.toString('base64')
}
