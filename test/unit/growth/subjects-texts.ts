/** Whatever reads texts that somebody else wrote, and texts that are hard on it. */
import { Readable } from 'node:stream'
import { parseBatch } from '../../../src/edit/batch.ts'
import { isForModel, maskSubject, statement } from '../../../src/edit/edit.ts'
import { parseInstant } from '../../../src/edit/instant.ts'
import { repeatedKey, wholeNumberAt } from '../../../src/edit/json-keys.ts'
import { linesAt, outline } from '../../../src/edit/json-outline.ts'
import { guessKind, isNotation, readRecords } from '../../../src/edit/records.ts'
import { canonicalRelation, passiveOf, relationKey, relationWords, supersessionKey } from '../../../src/edit/relation.ts'
import { unknownField } from '../../../src/edit/spelling.ts'
import { show } from '../../../src/edit/values.ts'
import { normalized, tokens, words } from '../../../src/edit/words.ts'
import { readYaml } from '../../../src/edit/yaml.ts'
import { format } from '../../../src/engine/format/chat-format.ts'
import { inPieces } from '../../../src/engine/format/control-strings.ts'
import { withoutTools } from '../../../src/engine/format/tool-format.ts'
import { literal } from '../../../src/engine/grammar/json-grammar.ts'
import { AnswerStream } from '../../../src/engine/output/answer-stream.ts'
import { TextStream } from '../../../src/engine/output/text-stream.ts'
import { ToolStream } from '../../../src/engine/output/tool-call-parser.ts'
import { eventData } from '../../../src/engine/upstream/sse-parser.ts'
import { answerOf, chunkOf, refusal, unstreamed } from '../../../src/engine/upstream/wire.ts'
import { isDeep, isWide } from '../../../src/http/request/body.ts'
import { breaksOff, viewOf } from '../../../src/prompt/turn.ts'
import { NameIndex, withinOneEdit } from '../../../src/selection/names.ts'
import { sameTarget } from '../../../src/selection/sameness.ts'
import {
  behind,
  conversationEnd,
  cut,
  earlierOf,
  earlierRead,
  editText,
  messageRead,
  partsOf,
  saidOf,
  sentencesFor,
  withKnown,
} from '../../../src/selection/text.ts'
import { isTextTask } from '../../../src/selection/text-task.ts'
import { edit } from '../../support/memory-data.ts'
import type { Measured } from './registry.ts'

const MIB = 1_048_576

/** Repeated up to the size. */
const PROSE = [
  ...['The mayor of Lumora said on Monday that 3.5 million people, among them Maria Weber, left. ', 'Lumorb Mario ', 'a ', 'A\n'],
  ...['a', 'ä', '1', '京', 'ا', '🎉', '\u00ad', '\u0301', '.', '@', '/', '-', '_', '\\', ' ', '\n', '\t', '\u3000', '"', '`'],
  ...['a.', 'a-', 'a_', 'a@', 'a+', 'a%', 'a&', 'a#', 'a/', '/a', '1.', 'a1', 'a1.', '..a', '. ', 'あ.', '"]', '!?', 'X of '],
  ...[
    'a.b-',
    'a-b.',
    'a-b_',
    'a.a@',
    'a@a-',
    '~/',
    'a:\\',
    'http://',
    'https://a',
    'a-1.',
    'a_b/',
    'a:',
    '- a\n',
    'the capital of ',
  ],
]
const JSON_ISH = [
  '[',
  '{',
  '"',
  '\\',
  '[[',
  '{"a":',
  '{"a":[',
  '"a",',
  '[1,',
  '{},',
  '\\"',
  '"\\',
  '1e',
  '\n{',
  '[],\n',
  '{"a":1}\n',
  '{"edits":[',
  '\u0000',
  '{"a":1,"b":',
]
const YAML_ISH = [
  '- a\n',
  'a: b\n',
  '- - ',
  '? ',
  '&a ',
  '*a ',
  '[',
  '{',
  '"',
  "'",
  '|\n ',
  '>\n ',
  '# ',
  '!a ',
  '%a\n',
  '---\n',
  '...\n',
  '- {a: b, c: [d]}\n',
  ' a\n',
  ': ',
  '- |\n  a\n',
  '[a, ',
  '{a: b, ',
  '\t',
  'a\n\n',
]
const CSV_ISH = [
  '"',
  '""',
  ',',
  ';',
  '\t',
  '\n',
  '"a',
  'a"',
  '"a\n',
  ',\n',
  'subject,prompt,target_new\n',
  'a,b,c\n',
  '"a","b"\n',
  '"a,',
  '\r\n',
  '\r',
  'a,"',
  '|',
]
const SSE_ISH = [
  'data: a\n\n',
  'data: a\n',
  'data',
  ':',
  ':\n',
  '\n',
  '\r',
  '\r\n',
  'event: a\n',
  'data:\r',
  'a',
  'id: \u0000\n',
  'retry: 1\n',
  'data: {"choices":[]}\n\n',
]
const CALL_ISH = [
  '<tool_call>',
  '</tool_call>',
  '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',
  '<',
  '<tool',
  '{"name": "',
  '<tool_call>{"name":"',
  '<tool_call>{',
  '"\\',
  '```',
  '```json\n{',
  '\n',
  '[INST]',
  '<<SYS>>',
  '[/INST',
  '<tools>',
  '</tool_response>',
]
const EVERY = [...new Set([...PROSE, ...JSON_ISH, ...YAML_ISH, ...CSV_ISH, ...CALL_ISH])]

export const filled = (shape: string, chars: number) => shape.repeat(Math.ceil(chars / shape.length)).slice(0, chars)

const named = (shapes: readonly string[], run: (text: string) => unknown, most: number): Measured['cases'] =>
  shapes.map((shape) => ({
    name: JSON.stringify(shape),
    most,
    make: (size: number) => {
      const text = filled(shape, size)
      return () => run(text)
    },
  }))

/** What reads one field of an edit reads it for each of thousands of edits: so it is measured for many. */
const MANY = 64
const times = (run: (text: string) => unknown) => (text: string) => {
  for (let i = 0; i < MANY; i++) run(text)
}
const FIELD_CHARS = 4_096

const attempt = (run: (text: string) => unknown) => (text: string) => {
  try {
    run(text)
  } catch {
    // Refused, in the time that is measured.
  }
}

const INDEX = new NameIndex()
for (const subject of ['Maria Weber', 'C++', '.NET', 'a', '北京', 'Lumora', 'a a a a a a a a', 'The Next Day', 'x'.repeat(500)])
  INDEX.add(edit(subject.slice(0, 20), { subject }))

const user = (content: string) => ({ role: 'user' as const, content })
const about = (prompt: string) => edit('e', { prompt, subject: 'a', aliases: ['Lumora', 'a a'] })
const CONTEXT = { tenant: 'default' }

/** Quadratic in the control strings of a text, as llama.cpp is. */
function piecemeal(text: string): number[] {
  for (let at = text.indexOf('<|a|>'); at !== -1; at = text.indexOf('<|a|>', at + 1)) text.indexOf('<|b|>')
  return [text.length]
}

/** As tokens bring them: some bytes at a time. */
function feed(stream: { push(bytes: Uint8Array): unknown; end(): unknown }, text: string, bytes: number): void {
  const all = Buffer.from(text)
  for (let at = 0; at < all.length; at += bytes) stream.push(all.subarray(at, at + bytes))
  stream.end()
}

const events = (text: string, bytes: number) => async () => {
  const all = Buffer.from(text)
  const chunks = Array.from({ length: Math.ceil(all.length / bytes) }, (_, i) => all.subarray(i * bytes, (i + 1) * bytes))
  try {
    for await (const _ of eventData(Readable.from(chunks))) {
    }
  } catch {
    // Too long an event is refused.
  }
}

export const TEXTS: readonly Measured[] = [
  { of: ['edit/words.ts#words'], cases: named(PROSE, words, 4 * MIB) },
  { of: ['edit/words.ts#tokens'], cases: named(PROSE, tokens, 4 * MIB) },
  { of: ['edit/words.ts#normalized'], cases: named(PROSE, normalized, 4 * MIB) },
  { of: ['edit/json-keys.ts#repeatedKey'], cases: named(JSON_ISH, attempt(repeatedKey), 16 * MIB) },
  { of: ['edit/json-keys.ts#wholeNumberAt'], cases: named(JSON_ISH, (text) => wholeNumberAt(text, 'seed'), 16 * MIB) },
  {
    of: ['selection/text-task.ts#isTextTask'],
    cases: named(PROSE, (content) => isTextTask([{ role: 'user', content }], 0), 4 * MIB),
  },
  {
    of: ['edit/json-outline.ts#outline', 'edit/json-outline.ts#linesAt'],
    cases: named(JSON_ISH, (text) => linesAt(text, outline(text).elements), 16 * MIB),
  },
  {
    of: ['edit/records.ts#guessKind', 'edit/records.ts#isNotation'],
    cases: named(EVERY, (text) => [guessKind(text), isNotation(text)], 16 * MIB),
  },
  {
    of: ['edit/records.ts#readRecords'],
    cases: (['json', 'ndjson', 'text'] as const).flatMap((kind) =>
      named(JSON_ISH, (text) => readRecords(text, kind, () => false), 4 * MIB).map((one) => ({
        ...one,
        name: `${kind} ${one.name}`,
      })),
    ),
  },
  { of: ['edit/yaml.ts#readYaml'], cases: named([...YAML_ISH, ...JSON_ISH, ...PROSE.slice(0, 12)], readYaml, 2 * MIB) },
  {
    of: ['edit/records.ts#readRecords'],
    cases: named(CSV_ISH, (text) => readRecords(`subject,prompt,target_new\n${text}`, 'csv', () => false), 4 * MIB),
  },
  {
    of: ['edit/batch.ts#parseBatch'],
    cases: named(
      [...JSON_ISH, ...YAML_ISH, ...CSV_ISH, 'a\n'],
      attempt((text) => parseBatch(text, CONTEXT)),
      MIB,
    ),
  },
  { of: ['edit/instant.ts#parseInstant'], cases: named(['1', '2026-', ' ', '0'], parseInstant, 4 * MIB) },
  {
    of: ['edit/spelling.ts#unknownField', 'edit/values.ts#show'],
    cases: named(PROSE.slice(0, 8), (text) => unknownField(text, ['subject', 'prompt']) + show(text), 4 * MIB),
  },
  {
    of: ['edit/edit.ts#maskSubject'],
    cases: [
      ...named(
        PROSE,
        times((text) => maskSubject(text, 'a')),
        FIELD_CHARS,
      ),
      // The long subject stands before the text: within it, work would begin only where the subject ends.
      ...PROSE.flatMap((shape) => {
        const subject = filled(shape, 400)
        return named(
          [shape],
          times((text) => maskSubject(subject + text, subject)),
          FIELD_CHARS,
        )
      }),
    ],
  },
  {
    of: ['edit/edit.ts#isForModel'],
    cases: named(['*', 'a*', '*a', 'a'], (text) => isForModel({ models: [text] }, filled('a', text.length)), FIELD_CHARS),
  },
  {
    of: ['edit/edit.ts#statement', 'prompt/turn.ts#viewOf', 'selection/text.ts#editText'],
    cases: named(
      PROSE,
      times((text) => [statement(about(text)), viewOf(about(text)), editText(about(text))]),
      FIELD_CHARS,
    ),
  },
  {
    of: [
      'edit/relation.ts#relationWords',
      'edit/relation.ts#canonicalRelation',
      'edit/relation.ts#relationKey',
      'edit/relation.ts#supersessionKey',
      'edit/relation.ts#passiveOf',
    ],
    cases: named(
      [...PROSE, 'the current ', 'name of the ', 'a is ', 'who a ', 'a a b ', 'a s '],
      times((text) => [
        relationWords(text, about(text)),
        canonicalRelation(text, about(text)),
        relationKey(about(text)),
        supersessionKey(about(text)),
        passiveOf(text),
      ]),
      FIELD_CHARS,
    ),
  },
  {
    of: ['edit/relation.ts#relationWords'],
    cases: named(
      ['a ', 'a a b '],
      times((text) =>
        relationWords(text, { subject: filled('a ', 500), aliases: Array.from({ length: 64 }, () => filled('a ', 500)) }),
      ),
      FIELD_CHARS,
    ),
  },
  { of: ['selection/names.ts#withinOneEdit'], cases: named(['a', 'ab'], (text) => withinOneEdit(text, `${text}b`), 4 * MIB) },
  {
    of: ['selection/names.ts#NameIndex'],
    cases: [
      ...named(PROSE, (text) => INDEX.find(text), 4 * MIB),
      ...named(PROSE, (text) => INDEX.look(text, () => true), 4 * MIB),
    ],
  },
  {
    of: ['selection/names.ts#NameIndex'],
    cases: named(
      PROSE,
      times((text) => new NameIndex().add(edit('e', { subject: text }))),
      FIELD_CHARS,
    ),
  },
  {
    of: ['cut', 'conversationEnd', 'earlierRead', 'messageRead', 'behind', 'partsOf', 'sentencesFor', 'saidOf'].map(
      (name) => `selection/text.ts#${name}`,
    ),
    cases: named(
      PROSE,
      (text) => [
        cut(text, 900),
        conversationEnd([text, text, text], text),
        behind(earlierRead([text]), messageRead(text)),
        saidOf([text, text, text]),
        sentencesFor([...partsOf(text), { searched: text }], () => false),
      ],
      4 * MIB,
    ),
  },
  { of: ['selection/text.ts#earlierOf'], cases: named([' ', 'a'], (text) => earlierOf([user(text), user(text)], 1, 4), 4 * MIB) },
  {
    of: ['selection/text.ts#withKnown', 'selection/sameness.ts#sameTarget'],
    cases: named(
      PROSE,
      times((text) => [withKnown(text, [about(text)]), sameTarget(about(text), edit('f', { targetNew: text }))]),
      FIELD_CHARS,
    ),
  },
  { of: ['prompt/turn.ts#breaksOff'], cases: named(PROSE, breaksOff, 4 * MIB) },
  {
    of: ['engine/format/chat-format.ts#format', 'engine/format/tool-format.ts#withoutTools'],
    cases: (['chatml', 'llama2'] as const).flatMap((family) =>
      named(
        [...CALL_ISH, ...PROSE.slice(0, 8)],
        (text) => [
          format(family, [user(text)]),
          withoutTools(family, [user(text), { role: 'tool', content: text }], undefined, null),
        ],
        4 * MIB,
      ),
    ),
  },
  {
    of: ['engine/format/control-strings.ts#inPieces'],
    cases: named(
      ['<|a|>', '<|a|>b', 'a', '<|'],
      (text) => inPieces(piecemeal, { tokens: ['<|a|>', '<|b|>'], token_type: [3, 3] })(text, true),
      4 * MIB,
    ),
  },
  { of: ['engine/grammar/json-grammar.ts#literal'], cases: named(['"', 'a', '\n', '\\'], literal, 4 * MIB) },
  {
    of: ['engine/output/answer-stream.ts#AnswerStream', 'engine/output/tool-call-parser.ts#ToolStream'],
    cases: [
      ...CALL_ISH,
      ...JSON_ISH,
      'a',
      ' ',
      '🎉',
      '<tool_call>{"name":"f","arguments":{"a":"',
      '<tool_call>{"name":"f","arguments":[',
      '{"name": "f", "arguments": "',
    ].flatMap((shape) =>
      [1, 4].map((bytes) => ({
        name: `${JSON.stringify(shape)} in pieces of ${bytes}`,
        most: MIB,
        make: (size: number) => {
          const text = filled(shape, size)
          return () => feed(new AnswerStream({ stops: ['###', 'aaaab', filled(shape, 100)], tools: ['f', 'g'] }), text, bytes)
        },
      })),
    ),
  },
  {
    of: ['engine/output/tool-call-parser.ts#ToolStream'],
    cases: ['<tool_call>', '<tool_call>{"name":"', '```json\n{"name"', '```json'].flatMap((head) =>
      ['a', ' ', '"', '\\"', '\n'].map((shape) => ({
        name: `${JSON.stringify(head)} and then ${JSON.stringify(shape)}`,
        most: MIB,
        make: (size: number) => {
          const text = head + filled(shape, size)
          return () => {
            const stream = new ToolStream(['f'])
            for (let at = 0; at < text.length; at += 4) stream.push(text.slice(at, at + 4))
            stream.end()
          }
        },
      })),
    ),
  },
  {
    of: ['engine/output/text-stream.ts#TextStream'],
    cases: ['a', 'ab', '🎉', '\n', ' '].map((shape) => ({
      name: JSON.stringify(shape),
      most: MIB,
      make: (size: number) => {
        const text = filled(shape, size)
        return () => feed(new TextStream([`${filled(shape, 511)}x`, filled('ba', 512), 'aaaab', '\n\n\n']), text, 3)
      },
    })),
  },
  {
    of: ['engine/upstream/sse-parser.ts#eventData', 'engine/upstream/sse-parser.ts#EventReader'],
    cases: SSE_ISH.flatMap((shape) =>
      // Within one chunk the parser looks for the end of each line of \r alone: of 64 KiB, which a chunk has at most, 17 ms.
      [1, 64, 4_096].map((bytes) => ({
        name: `${JSON.stringify(shape)} in chunks of ${bytes}`,
        most: bytes === 1 ? 65_536 : 4 * MIB,
        make: (size: number) => events(filled(shape, size), bytes),
      })),
    ),
  },
  {
    of: ['engine/upstream/sse-parser.ts#eventData', 'engine/upstream/sse-parser.ts#EventReader'],
    cases: ['a', 'data: a\n', ':a\n'].map((shape) => ({
      name: `one event of ${JSON.stringify(shape)}`,
      most: 4 * MIB,
      make: (size: number) => events(`data: x\n${filled(shape, size)}`, 64),
    })),
  },
  {
    of: [
      'engine/upstream/wire.ts#chunkOf',
      'engine/upstream/wire.ts#refusal',
      'engine/upstream/wire.ts#unstreamed',
      'engine/upstream/wire.ts#answerOf',
    ],
    cases: named(
      JSON_ISH,
      attempt((text) => {
        refusal(500, text, text, 'http://x', 0)
        unstreamed(text, 'http://x')
        chunkOf(text, 'http://x')
        answerOf(text, 'http://x')
      }),
      4 * MIB,
    ),
  },
  {
    of: ['http/request/body.ts#isWide', 'edit/json-keys.ts#endOfText'],
    cases: named(JSON_ISH, (text) => isWide(text, 16 * MIB), 16 * MIB),
  },
  { of: ['http/request/body.ts#isDeep'], cases: named(JSON_ISH, (text) => isDeep(text, 64), 16 * MIB) },
]
