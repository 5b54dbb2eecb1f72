/** Readers of values that JSON makes, and values that are nearly right (fast-check). */
import fc from 'fast-check'
import { readRecord } from '../../src/edit/formats.ts'
import { answerGrammar } from '../../src/engine/grammar/answer-grammar.ts'
import { PalimpsestError } from '../../src/errors.ts'
import { DEFAULT_LIMITS } from '../../src/gateway.ts'
import { chatReader } from '../../src/wire/openai/chat.ts'
import { embeddingReader } from '../../src/wire/openai/embeddings.ts'
import { responseReader } from '../../src/wire/openai/responses/request.ts'
import { textReader } from '../../src/wire/openai/text-completion.ts'
import { explainReader } from '../../src/wire/palimpsest/explain.ts'

export interface ValueTarget {
  readonly name: string
  readonly share: number
  readonly values: fc.Arbitrary<unknown>
  readonly run: (value: unknown) => unknown
}

const SERVED = { model: 'm', templates: ['facts'] }
const leaf = fc.constantFrom<unknown>(
  null,
  true,
  0,
  -1,
  0.5,
  1e21,
  '',
  'm',
  'user',
  'text',
  'function',
  'auto',
  '\ud800',
  [],
  {},
  'f',
)
/** As JSON.parse makes it, with Object's prototype: fast-check's own dictionaries may have none, which no body has. */
const parsed = (made: unknown): unknown => JSON.parse(JSON.stringify(made))
const value = fc.oneof(leaf, fc.jsonValue({ maxDepth: 2 }), fc.array(leaf, { maxLength: 3 }))
const NAMES =
  'model messages role content type text name tool_calls tool_call_id function arguments parameters tools tool_choice response_format json_schema schema stop n stream stream_options logprobs top_logprobs logit_bias seed temperature palimpsest edits tags tenant as_of input instructions id call_id output prompt echo best_of question subject target_new aliases when instruction always kind requested_rewrite str ground_truth __proto__ constructor toString'
const object: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
  any: fc.oneof({ depthSize: 'small' }, value, tie('object'), fc.array(tie('any'), { maxLength: 3 })),
  object: fc.dictionary(fc.constantFrom(...NAMES.split(' ')), tie('any'), { maxKeys: 6 }),
})).object
const asked = fc
  .tuple(object, fc.constantFrom({}, { model: 'm', messages: [{ role: 'user', content: 'x' }] }, { model: 'm', input: 'x' }))
  .map(([more, base]) => parsed({ ...base, ...(more as object) }))
const keyword = fc.constantFrom(
  ...'type properties required items enum const anyOf oneOf allOf $ref $defs minimum maximum minLength maxLength minItems maxItems format additionalProperties pattern'.split(
    ' ',
  ),
)
const schema: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
  any: fc.oneof(
    { depthSize: 'small' },
    fc.constantFrom<unknown>('object', 'array', 'string', 'integer', '#', '#/$defs/a', true, 0, 3, -2, 1e9, 'date', ['a', 1]),
    tie('schema'),
    fc.array(tie('any'), { maxLength: 3 }),
    fc.dictionary(fc.constantFrom('a', 'b', '"'), tie('schema'), { maxKeys: 3 }),
  ),
  schema: fc.dictionary(keyword, tie('any'), { maxKeys: 4 }),
})).schema

const refusalOnly = (work: () => unknown) => {
  try {
    work()
  } catch (error) {
    if (!(error instanceof PalimpsestError) || error.status >= 500) throw error
  }
}

const chat = chatReader(DEFAULT_LIMITS)
const response = responseReader(DEFAULT_LIMITS, chat)
const READERS: Readonly<Record<string, (body: unknown) => unknown>> = {
  chat: (body) => chat(body, undefined, SERVED),
  completion: (body) => textReader(DEFAULT_LIMITS)(body, undefined, SERVED),
  embedding: (body) => embeddingReader(DEFAULT_LIMITS)(body, { name: 'm', dimensions: 4 }),
  explanation: (body) => explainReader(DEFAULT_LIMITS)(body, undefined, SERVED),
}
const EARLIER = { conversation: async () => undefined, item: async () => undefined }
const CONTEXT = { tenant: 'default', tags: [], tenants: 'one' } as const

export const VALUE_TARGETS: readonly ValueTarget[] = [
  ...Object.entries(READERS).map(
    ([name, read]): ValueTarget => ({
      name: `bodies of a ${name}`,
      share: 2,
      values: asked,
      run: (body) => refusalOnly(() => read(body)),
    }),
  ),
  {
    name: 'bodies of a response',
    share: 2,
    values: asked,
    run: async (body) => {
      await response(body, undefined, SERVED, EARLIER).catch((error: unknown) => {
        if (!(error instanceof PalimpsestError) || error.status >= 500) throw error
      })
    },
  },
  { name: 'records', share: 3, values: object.map(parsed), run: (record) => readRecord(record, 'auto', CONTEXT) },
  {
    name: 'schemas',
    share: 3,
    values: schema.map(parsed),
    run: (one) =>
      refusalOnly(() =>
        answerGrammar({ kind: 'schema', name: 's', schema: one as object, strict: true, param: 'schema' }, undefined),
      ),
  },
]
