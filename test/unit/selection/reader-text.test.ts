import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type EditFields, editOf } from '../../../src/evaluate/firing/edits.ts'
import { conversationEnd, editText } from '../../../src/selection/text.ts'

const ROOT = join(import.meta.dirname, '../../..')
const CORPUS = join(ROOT, 'corpus')

interface Item {
  readonly type: string
  readonly messages: readonly { readonly role: string; readonly content: string }[]
}

interface Entry {
  readonly id: string
  readonly team: string
  readonly language: string
  readonly domain: string
  readonly edit: EditFields
  readonly in_scope: readonly Item[]
  readonly near_miss: readonly Item[]
  readonly always?: true
}

const entries = readdirSync(CORPUS)
  .filter((name) => name.endsWith('.jsonl'))
  .flatMap((name) => readFileSync(join(CORPUS, name), 'utf8').trim().split('\n'))
  .map((line) => JSON.parse(line) as Entry)

const PYTHON = `
import json, sys
sys.path.insert(0, 'editor')
from palimpsest_reader.text import conversation_end, edit_text
asked = json.load(sys.stdin)
json.dump([[edit_text(e) for e in asked['edits']], [conversation_end(t) for t in asked['turns']]], sys.stdout)
`

test('the reader reads in TypeScript what it was taught to read in Python', () => {
  const long = 'é𝄞 ligature ﬁ, full width ＡＢＣ, soft\u00adhyphen and zero\u200bwidth. '.repeat(40)
  const turns = entries.flatMap((e) => [...e.in_scope, ...e.near_miss].map((i) => i.messages.map((m) => m.content)))
  const asked = { edits: entries.map((e) => e.edit), turns: [...turns, [long], [long, long, long]] }
  const input = JSON.stringify(asked)
  const said = execFileSync('python3', ['-c', PYTHON], { cwd: ROOT, input, encoding: 'utf8', maxBuffer: 2 ** 28 })
  const [edits, ends] = JSON.parse(said) as [string[], string[]]
  expect(entries.map(({ id, edit }) => editText(editOf(edit, id)))).toEqual(edits)
  expect(asked.turns.map((t) => conversationEnd(t.slice(0, -1), t.at(-1) ?? ''))).toEqual(ends)
})

test('the corpus is as large and as varied as it says', () => {
  const count = <T>(values: readonly T[]) => new Set(values).size
  expect(entries.length).toBeGreaterThanOrEqual(1_500)
  expect(count(entries.map((e) => e.id))).toBe(entries.length)
  expect(count(entries.map((e) => e.domain))).toBeGreaterThanOrEqual(25)
  expect(count(entries.map((e) => e.language))).toBeGreaterThanOrEqual(10)
  for (const { id, in_scope: right, near_miss: wrong, always } of entries) {
    expect(right.length, id).toBeGreaterThanOrEqual(5)
    if (always === undefined) expect(wrong.length, id).toBeGreaterThanOrEqual(5)
  }
})

test('no message stands in the corpus for two teams', () => {
  const teams = new Map<string, Set<string>>()
  for (const { team, in_scope, near_miss } of entries)
    for (const { messages } of [...in_scope, ...near_miss]) {
      const said = messages.map(({ content }) => content.toLowerCase().trim()).join('\n')
      teams.set(said, (teams.get(said) ?? new Set()).add(team))
    }
  expect([...teams].filter(([said, own]) => own.size > 1 && said.length > 60).map(([said]) => said)).toEqual([])
})

const SHARED = join(ROOT, '../shared/data')
const benchmark = () => {
  const read = (name: string) => readFileSync(join(SHARED, name), 'utf8')
  const lines = ['trial/trial-dev.jsonl', 'hallueditbench/dev-8-topics.jsonl', 'dune/new-info-dev-100.jsonl'].flatMap((name) =>
    read(name)
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Entry),
  )
  return new Set(
    lines.flatMap(({ in_scope, near_miss }) =>
      [...in_scope, ...near_miss].map(({ messages }) =>
        (messages.at(-1)?.content ?? '')
          .toLowerCase()
          .replace(/[^\p{L}\p{N}]+/gu, ' ')
          .trim(),
      ),
    ),
  )
}

test.skipIf(!readdirSync(join(ROOT, '..')).includes('shared'))('nothing of the corpus is from the trial or a benchmark', () => {
  const known = benchmark()
  const own = entries.flatMap(({ in_scope, near_miss }) =>
    [...in_scope, ...near_miss].flatMap(({ messages }) => messages.filter((m) => m.role === 'user').map((m) => m.content)),
  )
  const same = own.filter(
    (said) =>
      known.has(
        said
          .toLowerCase()
          .replace(/[^\p{L}\p{N}]+/gu, ' ')
          .trim(),
      ) && said.length > 25,
  )
  expect(same).toEqual([])
})
