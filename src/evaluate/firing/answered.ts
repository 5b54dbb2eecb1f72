/** What the model answers with what was selected, and whether it answers as the untouched model where nothing was. */
import { normalized } from '../../edit/words.ts'
import type { Gateway } from '../../gateway.ts'
import { answer } from '../../pipeline.ts'
import type { Arm } from '../../request.ts'
import { Trace } from '../../trace.ts'
import { type Figure, wilson } from '../metrics/intervals.ts'
import type { Tick } from '../run.ts'
import { type Fired, requestOf } from './ask.ts'
import { type Case, isFound } from './case.ts'
import type { Tenants } from './place.ts'

/** `expected` null: nothing was selected, and the base arm was asked too. */
export interface Answered {
  readonly case: Case
  readonly text: string
  readonly base: string | null
  readonly expected: Case['keys'] | null
  /** The answer holds what it should, or is byte for byte the base's. */
  readonly holds: boolean
}

export interface AnsweredFigures {
  /** By group: answers that hold what the wanted edit says, of the messages for which it was selected. */
  readonly right: readonly { readonly group: string; readonly figure: Figure | null }[]
  /** Answers equal to the untouched model's, of messages for which nothing was selected. */
  readonly identical: Figure | null
}

export interface Answering {
  readonly gateway: Gateway
  readonly tenants: Tenants
  readonly answerTokens: number
  readonly tick: Tick
  readonly signal: AbortSignal
}

/** Messages without a selected edit that both arms answer, spread over all there are. */
const UNCHANGED = 60

export async function answerAll(fired: readonly Fired[], answering: Answering): Promise<Answered[]> {
  const found = fired.filter((one) => one.case.keys !== undefined && one.case.wants.length > 0 && isFound(one.case, one.selected))
  const empty = fired.filter(({ selected }) => selected.length === 0)
  const every = Math.max(1, Math.ceil(empty.length / UNCHANGED))
  const some = [...found, ...empty.filter((_, i) => i % every === 0)]
  const out: Answered[] = []
  for (const [done, { case: one, selected }] of some.entries()) {
    answering.tick({ label: 'answers', done, total: some.length })
    const text = await ask(one, 'edited', answering)
    if (selected.length > 0) {
      const expected = one.keys ?? []
      out.push({ case: one, text, base: null, expected, holds: holdsKeys(text, expected) })
    } else {
      const base = await ask(one, 'base', answering)
      out.push({ case: one, text, base, expected: null, holds: text === base })
    }
  }
  return out
}

async function ask(one: Case, arm: Arm, { gateway, tenants, answerTokens, signal }: Answering): Promise<string> {
  // Seeded, so that an answer does not depend on what the engine kept of earlier ones.
  const sampling = { temperature: 0, topP: 1, seed: 0, maxTokens: answerTokens, stop: [] }
  const request = { ...requestOf(one, { gateway, tenants }), arm, sampling }
  let text = ''
  for await (const piece of answer(request, gateway, new Trace('evaluation', gateway.now), signal)) text += piece.text
  return text
}

/**
 * Every group has one wording that stands in the answer, case aside. Numbers and short words are not found inside longer ones; words of
 * INFLECTED_CHARS are, since languages inflect and join them. Not `names` of match.ts, to which an address is one word: a host is to be found in it.
 */
export function holdsKeys(answer: string, keys: readonly (readonly string[])[]): boolean {
  const text = normalized(answer).toLowerCase()
  return keys.every((wordings) => wordings.some((wording) => stands(text, normalized(wording).toLowerCase())))
}

const INFLECTED_CHARS = 5

function stands(text: string, wording: string): boolean {
  if (wording.length >= INFLECTED_CHARS && /^\p{L}+$/u.test(wording)) return text.includes(wording)
  const inWord = (a: string | undefined, b: string | undefined) => /^[\p{Script=Latin}\p{N}]{2}$/u.test(`${a ?? ' '}${b ?? ' '}`)
  for (let at = text.indexOf(wording); at !== -1; at = text.indexOf(wording, at + 1)) {
    const end = at + wording.length
    if (!inWord(text[at - 1], wording[0]) && !inWord(wording.at(-1), text[end])) return true
  }
  return false
}

export function answeredFigures(answered: readonly Answered[]): AnsweredFigures {
  const edited = answered.filter(({ expected }) => expected !== null)
  const plain = answered.filter(({ expected }) => expected === null)
  const groups = [...new Set(edited.map((one) => one.case.group))]
  const right = groups.map((group) => {
    const own = edited.filter((one) => one.case.group === group)
    return { group, figure: wilson(own.filter(({ holds }) => holds).length, own.length) }
  })
  return { right, identical: wilson(plain.filter(({ holds }) => holds).length, plain.length) }
}
