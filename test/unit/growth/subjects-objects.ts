/** Whatever reads lists, maps and files that somebody else made, and such as are hard on it. */
import { batchHash } from '../../../src/edit/batch.ts'
import type { Edit } from '../../../src/edit/edit.ts'
import { detectFormat, READERS, readRecord } from '../../../src/edit/formats.ts'
import { readFields, toWire } from '../../../src/edit/own.ts'
import { headerIn } from '../../../src/engine/gguf/header.ts'
import { answerGrammar } from '../../../src/engine/grammar/answer-grammar.ts'
import { JsonGrammar } from '../../../src/engine/grammar/json-grammar.ts'
import { CallPlaces, chunkOf } from '../../../src/engine/upstream/wire.ts'
import { DEFAULT_LIMITS } from '../../../src/gateway.ts'
import { planSync } from '../../../src/memory/files/file-diff.ts'
import type { Batch } from '../../../src/memory/log/edit-log.ts'
import { assertLandable, landingResults, newContents, overlap, stated } from '../../../src/memory/log/landing.ts'
import { Records } from '../../../src/memory/log/projection.ts'
import { latestFirst, listEdits } from '../../../src/memory/log/query.ts'
import { contentOf, type LiveView } from '../../../src/memory/log/timeline.ts'
import { render } from '../../../src/prompt/render.ts'
import type { Message } from '../../../src/request.ts'
import { NameIndex } from '../../../src/selection/names.ts'
import { earlierOf } from '../../../src/selection/text.ts'
import { chatReader } from '../../../src/wire/openai/chat.ts'
import { Gathering } from '../../../src/wire/openai/completion.ts'
import { embeddingReader } from '../../../src/wire/openai/embeddings.ts'
import { responseReader } from '../../../src/wire/openai/responses/request.ts'
import { ResponseBuilder } from '../../../src/wire/openai/responses/response.ts'
import { textReader } from '../../../src/wire/openai/text-completion.ts'
import { explainReader } from '../../../src/wire/palimpsest/explain.ts'
import { edit } from '../../support/memory-data.ts'
import type { Case, Measured } from './registry.ts'

/** Their cost for each entry hides one that is quadratic and small, so they are measured for longer. */
const LEAST_MS = 3
const of = (name: string, most: number, make: Case['make']): Case => ({ name, most, make, leastMs: LEAST_MS })
const list = <T>(size: number, each: (i: number) => T): T[] => Array.from({ length: size }, (_, i) => each(i))
const map = <T>(size: number, each: (i: number) => T): Record<string, T> =>
  Object.fromEntries(list(size, (i) => [`k${i}`, each(i)]))

const attempt = (run: () => unknown) => () => {
  try {
    return run()
  } catch {
    return null
  }
}

// ---- the log of edits ----

const EDITS = 200_000
/** Batches that are hard on what follows who is live. */
const BATCHES: Readonly<Record<string, (i: number, of: number) => Edit>> = {
  'of one fact, one target': (i) => edit(`e${i}`, { targetNew: 'Paris' }),
  'of one fact, each with its target': (i) => edit(`e${i}`),
  'of one edit, again and again': (i) => edit('e', { targetNew: `t${i}` }),
  'of one edit with another prompt each time': (i) => edit('e', { prompt: `The ${i} of France is` }),
  'of one fact, every other one over': (i) => edit(`e${i}`, i % 2 === 0 ? {} : { validTo: 1 }),
  'of one fact, the later half over': (i, of) => edit(`e${i}`, i * 2 < of ? {} : { validTo: 1 }),
  'of one fact, the later half to come': (i, of) => edit(`e${i}`, i * 2 < of ? {} : { validFrom: 9e12 }),
  'of one fact, one after the other in time': (i) => edit(`e${i}`, { validFrom: i, validTo: i + 1 }),
  'of a fact each': (i) => edit(`e${i}`, { subject: `Town ${i}`, prompt: `The mayor of Town ${i} is` }),
}

const batchOf = (edits: readonly Edit[], id = 'b'): Batch => ({
  id,
  tenant: 'default',
  at: 10,
  source: 'test',
  kind: 'add',
  edits: edits.length,
  digest: '',
})

/** A tenant's log in which the edits have landed. */
function landed(edits: readonly Edit[]): { records: Records; view: LiveView } {
  const records = new Records(() => 10)
  const entry = records.entry(
    batchOf(edits),
    edits.map((one) => ({ kind: 'add', editId: one.id, edit: one })),
  )
  records.apply({ entries: [entry], position: { seq: edits.length, batches: 1 } })
  return { records, view: records.view('default') }
}

const onBatches = (make: (edits: readonly Edit[]) => () => unknown): Case[] =>
  Object.entries(BATCHES).map(([name, each]) => of(`a batch ${name}`, EDITS, (size) => make(list(size, (i) => each(i, size)))))

const LOG: readonly Measured[] = [
  {
    of: [
      'memory/log/landing.ts#newContents',
      'memory/log/landing.ts#landingResults',
      'memory/log/landing.ts#overlap',
      'memory/log/landing.ts#stated',
      'memory/log/projection.ts#Records',
      'memory/log/timeline.ts#LiveView',
    ],
    cases: onBatches((edits) => async () => {
      const { view } = landed(edits)
      const { batch } = await stated(edits)
      await newContents(view, batch)
      return landingResults(view, batch, 'b', 10)
    }),
  },
  {
    of: ['memory/log/timeline.ts#LiveView'],
    cases: onBatches((edits) => {
      const { view } = landed(edits.slice(0, edits.length / 2))
      const some = edits.slice(edits.length / 2)
      return async () => {
        const { batch } = await stated(some)
        return landingResults(await view.excerpt(batch, edits.length), batch, 'c', 10)
      }
    }),
  },
  {
    of: ['memory/log/query.ts#latestFirst', 'memory/log/query.ts#listEdits'],
    cases: onBatches((edits) => () => {
      const { view } = landed(edits)
      latestFirst(view, 10)
      return listEdits(view, { tenant: 'default', limit: 50, text: 'France capital', subject: 'France' }, 10)
    }),
  },
  {
    of: ['memory/log/timeline.ts#LiveView'],
    cases: [
      ...onBatches((edits) => {
        const { view } = landed(edits)
        const revisions = [...new Set(edits.map(({ id }) => id))].flatMap((id) => view.revisions(id))
        return () =>
          revisions.map((revision) => [view.isDormant(revision, 10), view.isLive(revision, 10), view.held(revision.edit.id, 5)])
      }),
      ...onBatches((edits) => {
        const { view } = landed(edits)
        return () => {
          let seq = edits.length
          for (const { id } of edits) view.apply({ seq: ++seq, at: 10, kind: 'withdraw', editId: id, batchId: 'w' })
          return [...view.ids()].map((id) => view.held(id, 10))
        }
      }).map((one) => ({ ...one, name: `${one.name}, withdrawn` })),
      ...onBatches((edits) => {
        const { view } = landed(edits)
        view.watch()
        return () => view.akin(edits.map(({ id }) => id))
      }).map((one) => ({ ...one, name: `${one.name}, and its kin` })),
    ],
  },
  {
    of: ['memory/files/file-diff.ts#planSync', 'memory/log/timeline.ts#contentOf'],
    cases: onBatches((edits) => {
      const { view } = landed(edits)
      const never = () => false
      return () => [
        planSync({ view, batchOf: () => batchOf(edits) }, 'f', edits, { before: never, elsewhere: never }),
        edits.map(contentOf),
      ]
    }),
  },
  {
    of: ['memory/log/landing.ts#assertLandable', 'edit/batch.ts#batchHash', 'edit/own.ts#toWire'],
    cases: onBatches((edits) =>
      attempt(() => [
        batchHash(edits),
        edits.map(toWire),
        overlap(edits[0] as Edit, edits[0] as Edit),
        assertLandable(edits, 'other'),
      ]),
    ),
  },
  {
    of: ['selection/names.ts#NameIndex'],
    cases: [
      ...onBatches((edits) => () => {
        const index = new NameIndex()
        for (const one of edits) index.add(one)
        return index.look('The capital of France and of Town 1, Town 2 and Town 3: Franse?', () => true)
      }),
      ...onBatches((edits) => {
        const index = new NameIndex()
        for (const one of edits) index.add(one)
        const text = 'France, Town 7, '.repeat(edits.length / 8)
        return () => index.look(text, (id) => id === 'e0')
      }).map((one) => ({ ...one, name: `${one.name}, and a text that names it as often` })),
      of('subjects that are prefixes of each other', 10_000, (size) => {
        const index = new NameIndex()
        for (let i = 0; i < size; i++) index.add(edit(`e${i}`, { subject: 'a '.repeat((i % 200) + 1) }))
        return () => index.look('a '.repeat(size), () => true)
      }),
      of('subjects within one letter of each other', 20_000, (size) => {
        const index = new NameIndex()
        for (let i = 0; i < size; i++)
          index.add(edit(`e${i}`, { subject: `Lumor${String.fromCodePoint(0x3b1 + (i % 500))}${i}` }))
        return () => index.look('Lumora Lumorb Lumo '.repeat(size / 50), () => true)
      }),
    ],
  },
]

// ---- conversations and other bodies ----

const SERVED = { model: 'm', templates: [] }
const BODY = 4 * 1_048_576
const user = (content: string): Message => ({ role: 'user', content })

const MESSAGES: Readonly<Record<string, (size: number) => readonly Message[]>> = {
  'one after the other': (size) => list(size, (i) => ({ role: i % 2 === 0 ? 'user' : 'assistant', content: 'Where is it?' })),
  'of blanks alone': (size) => list(size, () => user(' '.repeat(1_500))),
}

const chatBodies: Readonly<Record<string, readonly [most: number, (size: number) => object]>> = {
  'many messages': [2_048, (size) => ({ messages: list(size, () => ({ role: 'user', content: 'x' })) })],
  'many parts': [
    BODY / 32,
    (size) => ({ messages: [{ role: 'user', content: list(size, () => ({ type: 'text', text: 'x' })) }] }),
  ],
  'faulty parts': [BODY / 32, (size) => ({ messages: [{ role: 'user', content: list(size, () => ({ type: 'image_url' })) }] })],
  'unknown keys': [BODY / 16, (size) => ({ messages: [{ role: 'user', content: 'x' }], ...map(size, () => 1) })],
  'unknown keys of ours': [BODY / 16, (size) => ({ messages: [{ role: 'user', content: 'x' }], palimpsest: map(size, () => 1) })],
  'unknown keys of a message': [BODY / 16, (size) => ({ messages: [{ role: 'user', content: 'x', ...map(size, () => 1) }] })],
  metadata: [BODY / 16, (size) => ({ messages: [{ role: 'user', content: 'x' }], metadata: map(size, () => 'x') })],
  biases: [
    BODY / 16,
    (size) => ({ messages: [{ role: 'user', content: 'x' }], logit_bias: Object.fromEntries(list(size, (i) => [String(i), 1])) }),
  ],
  stops: [BODY / 4, (size) => ({ messages: [{ role: 'user', content: 'x' }], stop: list(size, () => 'x') })],
  'calls without results': [
    BODY / 128,
    (size) => ({ messages: list(size, (i) => ({ role: 'tool', content: 'x', tool_call_id: `c${i}` })) }),
  ],
  tools: [
    BODY / 64,
    (size) => ({
      messages: [{ role: 'user', content: 'x' }],
      tools: list(size, (i) => ({ type: 'function', function: { name: `f${i}` } })),
    }),
  ],
  surrogates: [BODY / 2, (size) => ({ messages: [{ role: 'user', content: '🎉'.repeat(size / 2) }] })],
}

const bodies = (read: (body: object) => unknown): Case[] =>
  Object.entries(chatBodies).map(([name, [most, make]]) =>
    of(name, most, (size) => {
      const body = { model: 'm', ...make(size) }
      return attempt(() => read(body))
    }),
  )

const chat = chatReader(DEFAULT_LIMITS)
const text = textReader(DEFAULT_LIMITS)
const embeddings = embeddingReader(DEFAULT_LIMITS)
const explained = explainReader(DEFAULT_LIMITS)
const response = responseReader(DEFAULT_LIMITS, chat)
const EARLIER = { conversation: async () => undefined, item: async () => undefined }
const ITEMS: Readonly<Record<string, (i: number) => object>> = {
  messages: () => ({ type: 'message', role: 'user', content: 'x' }),
  'calls and what they gave': (i) =>
    i % 2 === 0
      ? { type: 'function_call', call_id: `c${i}`, name: 'f', arguments: '{}' }
      : { type: 'function_call_output', call_id: `c${i - 1}`, output: 'x' },
  references: (i) => ({ type: 'item_reference', id: `i${i}` }),
  'of no kind': () => ({ type: 'x' }),
}

const BODIES: readonly Measured[] = [
  { of: ['wire/openai/chat.ts#chatReader'], cases: bodies((body) => chat(body, undefined, SERVED)) },
  {
    of: ['wire/palimpsest/explain.ts#explainReader'],
    cases: bodies((body) => explained({ ...body, stop: undefined }, undefined, SERVED)).slice(0, 6),
  },
  {
    of: ['wire/openai/text-completion.ts#textReader'],
    cases: [
      of('token ids', BODY / 2, (size) => () => text({ model: 'm', prompt: list(size, () => 1) }, undefined, SERVED)),
      of('prompts', BODY / 4, (size) => attempt(() => text({ model: 'm', prompt: list(size, () => 'x') }, undefined, SERVED))),
      of('faulty token ids', BODY / 4, (size) =>
        attempt(() => text({ model: 'm', prompt: list(size, () => -1) }, undefined, SERVED)),
      ),
    ],
  },
  {
    of: ['wire/openai/embeddings.ts#embeddingReader'],
    cases: [
      of('texts', BODY / 4, (size) =>
        attempt(() => embeddings({ model: 'm', input: list(size, () => 'x') }, { name: 'm', dimensions: 4 })),
      ),
      of('token ids', BODY / 2, (size) =>
        attempt(() => embeddings({ model: 'm', input: list(size, () => 1) }, { name: 'm', dimensions: 4 })),
      ),
    ],
  },
  {
    of: ['wire/openai/responses/request.ts#responseReader'],
    cases: [
      ...Object.entries(ITEMS).map(([name, each]) =>
        of(name, BODY / 64, (size) => {
          const body = { model: 'm', input: list(size, each) }
          return () => response(body, undefined, SERVED, EARLIER).catch(() => null)
        }),
      ),
      of('tools of other kinds', BODY / 16, (size) => {
        const body = { model: 'm', input: 'x', tools: list(size, () => ({ type: 'web_search' })) }
        return () => response(body, undefined, SERVED, EARLIER).catch(() => null)
      }),
    ],
  },
  {
    of: ['selection/text.ts#earlierOf'],
    cases: Object.entries(MESSAGES).map(([name, make]) =>
      of(`turns ${name}`, 2_048, (size) => {
        const messages = make(size)
        return () => messages.map((_, turn) => earlierOf(messages, turn, 4))
      }),
    ),
  },
  {
    of: ['prompt/render.ts#render'],
    cases: [
      of('an edit at every turn', 2_048, (size) => {
        const messages = list(size, () => user('Where?'))
        const scopes = new Map(messages.map((_, turn) => [turn, [{ edit: edit('e'), score: 1 }]]))
        const template = {
          name: 't',
          hash: '',
          description: '',
          demonstrations: 4,
          render: ({ question }: { question: string }) => question,
        }
        return () =>
          render(messages, scopes, template, { contextTokens: 10, reserveTokens: 5, count: (all) => all.length }, new Map())
      }),
    ],
  },
]

// ---- records, schemas, answers, files ----

const CONTEXT = { tenant: 'default', tags: [], tenants: 'one' } as const
const SCHEMAS: Readonly<Record<string, (size: number) => object>> = {
  enum: (size) => ({ enum: list(size, (i) => `value ${i}`) }),
  'enum of one beginning': (size) => ({ enum: list(size, (i) => 'a'.repeat(i % 100) + i) }),
  properties: (size) => ({ type: 'object', properties: map(size, () => ({ type: 'string' })) }),
  'required properties': (size) => ({
    type: 'object',
    properties: map(size, () => ({ type: 'string' })),
    required: list(size, (i) => `k${i}`),
  }),
  'required without properties': (size) => ({ type: 'object', required: list(size, (i) => `k${i}`) }),
  anyOf: (size) => ({ anyOf: list(size, () => ({ type: 'integer' })) }),
  types: (size) => ({ type: list(size, () => 'string') }),
  references: (size) => ({
    $defs: map(size, (i) => ({ $ref: `#/$defs/k${i + 1}` })),
    anyOf: list(size, (i) => ({ $ref: `#/$defs/k${i}` })),
  }),
  'a deep reference': (size) => ({ $ref: `#${'/a'.repeat(size)}` }),
  'keywords of none': (size) => map(size, () => 1),
  const: (size) => ({ const: 'a'.repeat(size) }),
}
const MOST_KEYS = BODY / 16

/** A GGUF file that claims what it holds. */
function gguf(keys: number, tensors: number): Buffer {
  const u32 = (value: number) => {
    const b = Buffer.alloc(4)
    b.writeUInt32LE(value)
    return b
  }
  const u64 = (value: number) => {
    const b = Buffer.alloc(8)
    b.writeBigUInt64LE(BigInt(value))
    return b
  }
  const string = (value: string) => Buffer.concat([u64(value.length), Buffer.from(value)])
  const parts = [Buffer.from('GGUF'), u32(3), u64(tensors), u64(keys)]
  for (let i = 0; i < keys; i++) parts.push(string(`key.${i}`), u32(4), u32(i))
  for (let i = 0; i < tensors; i++) parts.push(string(`t${i}`), u32(1), u64(8), u32(0), u64(i * 32))
  return Buffer.concat(parts)
}

const piece = (i: number) => ({
  text: 'a',
  ...(i % 3 === 0 && { calls: [{ index: 0, arguments: 'b', ...(i === 0 && { name: 'f' }) }] }),
})
const readers = Object.entries(READERS).map(([format]) => format as keyof typeof READERS)

const THINGS: readonly Measured[] = [
  {
    of: ['edit/own.ts#readFields', 'edit/formats.ts#readRecord', 'edit/formats.ts#detectFormat'],
    cases: [
      of('unknown fields', 1_000_000, (size) => {
        const record = { prompt: 'x', target_new: 'y', ...map(size, () => 1) }
        return () => [readFields(record, CONTEXT), readRecord(record, 'auto', CONTEXT), detectFormat(record)]
      }),
      of('a list of faulty texts', 1_000_000, (size) => {
        const record = { prompt: 'x', target_new: 'y', aliases: list(size, () => 1) }
        return () => readFields(record, CONTEXT)
      }),
      of('a list of equal texts', 1_000_000, (size) => {
        const record = { prompt: 'x', target_new: 'y', paraphrases: list(size, () => 'x') }
        return () => readFields(record, CONTEXT)
      }),
      ...readers.map((format) =>
        of(`lists in ${format}`, 1_000_000, (size) => {
          const many = list(size, (i) => ({
            question: 'x',
            prompt: `p ${i}`,
            answer: 'y',
            target_new: { str: 'y' },
            target_true: { str: 'z' },
            subject: 's',
          }))
          const record = {
            requested_rewrite: many,
            target_new: many,
            alternatives: many,
            answers: many,
            portability: many,
            ent: 'x',
            sentiment: 'positive',
            questions: many,
            orig: { new_triples_labeled: many },
          }
          return () => readRecord(record, format, CONTEXT)
        }),
      ),
    ],
  },
  {
    of: ['engine/grammar/json-grammar.ts#JsonGrammar', 'engine/grammar/answer-grammar.ts#answerGrammar'],
    cases: Object.entries(SCHEMAS).map(([name, make]) =>
      of(name, MOST_KEYS, (size) => {
        const schema = make(size)
        const whole = { kind: 'schema', name: 's', schema, strict: true, param: 'schema' } as const
        return () => [
          attempt(() => {
            const grammar = new JsonGrammar()
            grammar.text(grammar.rule(schema, 'schema', true))
          })(),
          attempt(() => answerGrammar(whole, undefined))(),
        ]
      }),
    ),
  },
  {
    of: ['engine/grammar/answer-grammar.ts#answerGrammar'],
    cases: [
      of('tools', 128, (size) => {
        const tools = list(size, (i) => ({
          name: `f${i}`,
          param: `tools[${i}]`,
          parameters: { type: 'object', properties: map(20, () => ({ type: 'string' })) },
        }))
        return attempt(() =>
          answerGrammar(undefined, { tools, allowed: tools.map(({ name }) => name), required: true, parallel: true }),
        )
      }),
    ],
  },
  {
    of: ['engine/gguf/header.ts#headerIn'],
    cases: [
      of('keys', 4_096, (size) => {
        const file = gguf(size, 0)
        return () => headerIn(file, file.length)
      }),
      of('tensors', 65_536, (size) => {
        const file = gguf(0, size)
        return () => headerIn(file, file.length + size * 32 + 64)
      }),
    ],
  },
  {
    of: ['engine/upstream/wire.ts#chunkOf', 'engine/upstream/wire.ts#CallPlaces'],
    cases: [
      of('calls in a piece', 100_000, (size) => {
        const data = JSON.stringify({
          choices: [
            { delta: { tool_calls: list(size, (i) => ({ index: i, id: `${i}`, function: { name: 'f', arguments: '' } })) } },
          ],
        })
        return attempt(() => {
          const places = new CallPlaces('x')
          for (const call of chunkOf(data, 'x')?.calls ?? []) places.place(call)
        })
      }),
      of('log probabilities in a piece', 100_000, (size) => {
        const data = JSON.stringify({
          choices: [{ logprobs: { content: list(size, () => ({ token: 'a', logprob: -1, bytes: [1] })) } }],
        })
        return () => chunkOf(data, 'x')
      }),
    ],
  },
  {
    of: ['wire/openai/completion.ts#Gathering', 'wire/openai/responses/response.ts#ResponseBuilder'],
    cases: [
      of('pieces', 1_000_000, (size) => () => {
        const parts = new Gathering('x')
        for (let i = 0; i < size; i++) parts.add(piece(i))
      }),
      of('pieces of a response', 200_000, (size) => () => {
        const builder = new ResponseBuilder({ id: 'x', created_at: 0, echo: {} }, (prefix) => prefix)
        for (let i = 0; i < size; i++) builder.add({ text: 'a' })
      }),
      of('calls of a response', 128, (size) => () => {
        const builder = new ResponseBuilder({ id: 'x', created_at: 0, echo: {} }, (prefix) => prefix)
        for (let i = 0; i < size; i++) builder.add({ text: '', calls: [{ index: i, name: 'f', arguments: '' }] })
      }),
    ],
  },
]

export const OBJECTS: readonly Measured[] = [...LOG, ...BODIES, ...THINGS]
