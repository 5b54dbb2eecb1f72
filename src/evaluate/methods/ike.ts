/**
 * In-context knowledge editing as published (Zheng et al. 2023, "Can We Edit Factual Knowledge by In-Context Learning?", section 4, and
 * their code): demonstrations "New Fact: P T", "Prompt: Q A" from the records nearest to the edit, in the kinds copy, update and retain,
 * the nearest last; then a copy demonstration of the edit itself; then the fact again, and the text to go on with.
 * Where we differ: demonstrations come from the other records of the same file (theirs from a part of CounterFact kept for it), and where
 * a record lacks what its kind needs the next nearest takes its place. Theirs is a text to complete; a chat model gets each demonstration
 * as a turn and its answer, since in one turn it talks about the text instead of completing it (docs/LOG.md).
 */

import { type Edit, statement } from '../../edit/edit.ts'
import type { Embedder } from '../../engine/engine.ts'
import { product } from '../../memory/graph/vector.ts'
import type { Message } from '../../request.ts'
import type { DataRecord } from '../data/dataset.ts'
import { randomFrom, shuffled } from '../metrics/random.ts'
import { restates, retains } from './methods.ts'

type DemonstrationKind = 'copy' | 'update' | 'retain'

/** Of 32. */
const MIX: Readonly<Record<DemonstrationKind, number>> = { copy: 4, update: 12, retain: 16 }
const MIX_TOTAL = MIX.copy + MIX.update + MIX.retain

interface Demonstration {
  readonly fact: string
  readonly question: string
  readonly answer: string
}

/** What stands before a record's questions, the same for all of them, so that its cache is reused. */
export interface IkeContext {
  readonly fact: string
  /** The nearest last, then the edit's own. */
  readonly shown: readonly Demonstration[]
}

export interface IkePrompts {
  context(record: DataRecord, edit: Edit): Promise<IkeContext>
}

export interface IkeOptions {
  readonly records: readonly DataRecord[]
  readonly embedder: Embedder
  readonly seed: number
  readonly demonstrations: number
  /** Whether the messages leave room for the question and the answer. */
  readonly fits: (messages: readonly Message[]) => boolean
}

/** The published text, up to where the answer begins. */
export function ikeText({ fact, shown }: IkeContext, question: string): string {
  const told = shown.map((one) => `New Fact: ${one.fact}\nPrompt: ${one.question} ${one.answer}\n\n`)
  return `${told.join('')}New Fact: ${fact}\nPrompt: ${question}`
}

/** The same, in turns. */
export function ikeMessages({ fact, shown }: IkeContext, question: string): Message[] {
  const asked = (told: string, prompt: string): Message => ({ role: 'user', content: `New Fact: ${told}\nPrompt: ${prompt}` })
  const turns = shown.flatMap((one): Message[] => [asked(one.fact, one.question), { role: 'assistant', content: one.answer }])
  return [...turns, asked(fact, question)]
}

export function ikePrompts(options: IkeOptions): IkePrompts {
  const { records, embedder, seed, fits } = options
  const made = new Map<number, IkeContext>()
  let vectors: Promise<readonly Float32Array[]> | undefined
  const vectorsOf = async () => {
    vectors ??= embedder.embed(records.map(factOf), 'import')
    return vectors
  }
  return {
    async context(record, edit) {
      const had = made.get(record.index)
      if (had !== undefined) return had
      const all = await vectorsOf()
      const own = all[records.indexOf(record)]
      const near = records
        .map((other, i) => ({ other, similarity: product(own, all[i]) }))
        .filter(({ other }) => other !== record && !sameFact(other, edit))
        .sort((a, b) => b.similarity - a.similarity || a.other.index - b.other.index)
        .map(({ other }) => other)
      const demonstrations = demonstrate(near, options.demonstrations, randomFrom('ike', seed, record.index))
      const fact = statement(edit)
      const copy: Demonstration = { fact, question: edit.prompt, answer: edit.targetNew }
      const whole = (count: number): IkeContext => ({
        fact,
        shown: [...demonstrations.slice(demonstrations.length - count), copy],
      })
      let count = demonstrations.length
      while (count > 0 && !fits(ikeMessages(whole(count), ''))) count--
      made.set(record.index, whole(count))
      return whole(count)
    },
  }
}

/** The farthest first. */
function demonstrate(near: readonly DataRecord[], count: number, random: () => number): Demonstration[] {
  const waiting = [...near]
  const out: Demonstration[] = []
  for (const kind of kinds(count, random)) {
    const at = waiting.findIndex((record) => material(record, kind).length > 0)
    const [record] = at === -1 ? [] : waiting.splice(at, 1)
    if (record === undefined) continue
    const choice = material(record, kind)
    const [question, answer] = choice[Math.floor(random() * choice.length)] as readonly [string, string]
    out.push({ fact: factOf(record), question, answer })
  }
  return out.reverse()
}

/** Kinds in the published mix, in random order; fewer than 32 keep the proportion. */
function kinds(count: number, random: () => number): DemonstrationKind[] {
  const some = (kind: DemonstrationKind) => Array<DemonstrationKind>(Math.ceil((MIX[kind] * count) / MIX_TOTAL)).fill(kind)
  return shuffled([...some('retain'), ...some('update'), ...some('copy')].slice(0, count), random)
}

/** Question and answer pairs that a record offers for a kind. */
function material(record: DataRecord, kind: DemonstrationKind): readonly (readonly [question: string, answer: string])[] {
  const [edit] = record.edits
  if (edit === undefined) return []
  switch (kind) {
    case 'copy':
      return [[edit.prompt, edit.targetNew]]
    case 'update':
      return record.probes.filter(restates).map(({ turns }) => [turns[0] ?? '', edit.targetNew])
    case 'retain':
      return record.probes.filter(retains).map(({ turns, answers }) => [turns[0] ?? '', answers[0] ?? ''])
    default:
      return kind satisfies never
  }
}

function factOf({ edits: [edit] }: DataRecord): string {
  return edit === undefined ? '' : statement(edit)
}

/** Another record of the same fact would show the answer, or contradict it. */
function sameFact({ edits }: DataRecord, { subject, prompt }: Edit): boolean {
  return edits.some((other) => other.subject === subject && other.prompt === prompt)
}
