import { resolve } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Edit } from '../../../src/edit/edit.ts'
import { render, type ScopedEdit } from '../../../src/prompt/render.ts'
import { openTemplates } from '../../../src/prompt/templates.ts'
import type { Template } from '../../../src/prompt/turn.ts'
import type { Message } from '../../../src/request.ts'

const templates = openTemplates({
  dir: resolve(import.meta.dirname, '../../../templates'),
  watch: false,
  log: { info: () => {}, warn: () => {} },
})

/** A template whose text is easy to read back, with `demonstrations` places. */
const plain = (demonstrations = 0): Template => ({
  name: 'plain',
  hash: '00000000',
  description: '',
  demonstrations,
  render: (turn) =>
    [...turn.demonstrations.map(({ fact }) => `d:${fact}`), ...turn.edits.map((e) => e.statement), turn.question].join('\n'),
})

const edit = (id: string, score: number): ScopedEdit => ({
  score,
  edit: {
    id,
    subject: id,
    aliases: [],
    prompt: `${id} is`,
    targetNew: `new${id}`,
    paraphrases: [],
    tags: [],
    tenant: 'default',
  } satisfies Edit,
})
const user = (content: string): Message => ({ role: 'user', content })
const said = (content: string): Message => ({ role: 'assistant', content })
const lines = (messages: readonly Message[]) => messages.reduce((sum, { content }) => sum + content.split('\n').length, 0)
const AMPLE = { contextTokens: 1e9, reserveTokens: 0, count: lines }
const room = (contextTokens: number, reserveTokens = 0) => ({ contextTokens, reserveTokens, count: lines })
const ids = (placed: readonly { edit: Edit; turn: number }[]) => placed.map(({ edit, turn }) => `${turn}${edit.id}`)

describe('render', () => {
  it('writes edits into their turn, the surest next to the question, and leaves all other messages the same objects', () => {
    const messages = [{ role: 'system', content: 'S' } as const, user('one'), said('yes'), user('two')]
    const {
      messages: out,
      applied,
      dropped,
    } = render(messages, new Map([[3, [edit('A', 0.9), edit('B', 0.6), edit('C', 0.7)]]]), plain(), AMPLE)
    expect(out[3]).toEqual(user('B is newB\nC is newC\nA is newA\ntwo'))
    for (const i of [0, 1, 2]) expect(out[i]).toBe(messages[i])
    expect(messages[3]).toEqual(user('two'))
    expect([ids(applied), applied[2]?.score, dropped]).toEqual([['3B', '3C', '3A'], 0.9, []])
  })

  it('changes nothing where nothing is in scope, and writes only into user turns', () => {
    const messages = [user('one'), said('yes')]
    for (const scopes of [new Map(), new Map([[0, []]]), new Map([[1, [edit('A', 1)]]]), new Map([[7, [edit('A', 1)]]])]) {
      expect(render(messages, scopes, plain(), room(0))).toEqual({ messages, applied: [], dropped: [] })
    }
  })

  it('counts no tokens when there is nothing to fit', () => {
    const count = () => expect.fail('counted')
    expect(render([user('one')], new Map(), plain(8), { contextTokens: 1, reserveTokens: 0, count }).applied).toEqual([])
  })
})

describe('the budget', () => {
  const messages = [user('one'), said('yes'), user('two')]
  const scopes = new Map([
    [2, [edit('A', 0.8), edit('B', 0.9)]],
    [0, [edit('C', 0.95), edit('D', 0.5)]],
  ])
  const at = (tokens: number, reserve = 0) => render(messages, scopes, plain(2), room(tokens, reserve))
  const shown = (tokens: number) =>
    at(tokens).messages.map(({ content }) => content.split('\n').filter((line) => line.startsWith('d:')).length)

  it('drops demonstrations first: the oldest turn first, the farthest first', () => {
    expect([11, 10, 9, 8, 7].map((n) => shown(n).join())).toEqual(['2,0,2', '1,0,2', '0,0,2', '0,0,1', '0,0,0'])
    const full = at(11).messages[2]?.content.split('\n') as string[]
    expect(at(8).messages[2]?.content.split('\n')).toEqual(full.slice(1))
    expect(at(7).dropped).toEqual([])
  })

  it('then edits: the oldest turn first, the lowest score first', () => {
    expect([7, 6, 5, 4, 3].map((n) => ids(at(n).dropped))).toEqual([
      [],
      ['0D'],
      ['0D', '0C'],
      ['0D', '0C', '2A'],
      ['0D', '0C', '2A', '2B'],
    ])
    expect(ids(at(4).applied)).toEqual(['2B'])
    expect(at(5).messages[0]).toBe(messages[0])
  })

  it('keeps the reserve free', () => {
    expect(at(11, 1)).toEqual(at(10))
    expect(at(12, 1)).toEqual(at(11))
  })

  it('never cuts what people wrote: what cannot fit goes out without edits, whole', () => {
    expect(at(2).messages).toEqual(messages)
    expect(at(2).applied).toEqual([])
  })

  it('measures a prompt only about log2 of the choices many times', () => {
    let counted = 0
    const many = Array.from({ length: 200 }, (_, i) => edit(`e${i}`, i / 200))
    const count = (m: readonly Message[]) => {
      counted++
      return lines(m)
    }
    const { applied } = render([user('q')], new Map([[0, many]]), plain(8), { contextTokens: 101, reserveTokens: 0, count })
    expect(applied).toHaveLength(100)
    expect(counted).toBeLessThan(12)
  })
})

describe('prefix stability', () => {
  const word = fc.string({ minLength: 1, maxLength: 12 })
  const scoped = fc
    .record({ id: word, score: fc.double({ min: 0, max: 1, noNaN: true }) })
    .map(({ id, score }) => edit(id, score))
  const exchange = fc.record({ question: word, answer: word, edits: fc.array(scoped, { maxLength: 3 }) })

  it('renders the beginning of a conversation the same however it goes on, with every template', () => {
    fc.assert(
      fc.property(
        fc.array(exchange, { minLength: 1, maxLength: 5 }),
        fc.nat(4),
        fc.constantFrom(...templates.names()),
        (talk, cut, name) => {
          const template = templates.get(name, 'chatml')
          const messages = talk.flatMap(({ question, answer }) => [user(question), said(answer)])
          const scopes = new Map(talk.map(({ edits }, i) => [2 * i, edits]))
          const shorter = messages.slice(0, 2 * cut + 1)
          const early = new Map([...scopes].filter(([turn]) => turn < shorter.length))
          const whole = render(messages, scopes, template, AMPLE).messages
          expect(whole.slice(0, shorter.length)).toEqual(render(shorter, early, template, AMPLE).messages)
          for (const [turn, { edits }] of talk.entries()) if (edits.length === 0) expect(whole[2 * turn]).toBe(messages[2 * turn])
        },
      ),
    )
  })

  it('holds one edit in two turns without mixing them up', () => {
    const twice = edit('A', 0.9)
    const { applied, dropped } = render(
      [user('x'), said('y'), user('z')],
      new Map([
        [0, [twice]],
        [2, [twice]],
      ]),
      plain(),
      room(4),
    )
    expect([ids(applied), ids(dropped)]).toEqual([['2A'], ['0A']])
  })
})
