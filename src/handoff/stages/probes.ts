import type { Edit } from '../../edit/edit.ts'
import { words } from '../../edit/words.ts'
import type { DataRecord } from '../../evaluate/data/dataset.ts'
import type { Kind, Probe } from '../../evaluate/data/probe.ts'
import { UNRELATED } from '../../evaluate/data/unrelated.ts'
import { randomFrom, shuffled } from '../../evaluate/metrics/random.ts'
import { draw } from '../../evaluate/preflight.ts'
import type { Settings } from '../job.ts'
import { ABILITY } from './ability.ts'
import { messagesOf, nearMisses, split } from './messages.ts'

/** Prompts of edits that the adapter does not hold. */
const HELD_PROMPTS = 8
const STILL_PROMPTS = 48
/** Probes of one sort about one edit. */
const PER_EDIT = 2
/** Kinds of a data file's probes that are asked. */
const FROM_DATA: ReadonlySet<Kind> = new Set(['generalization', 'portability', 'locality'])

/** Everyday questions that stages are asked; the others are what training holds still, so that no method is measured on what it has seen. */
const ASKED = UNRELATED.filter((_, i) => i % 2 === 0)
export const TRAINED: readonly string[] = UNRELATED.filter((_, i) => i % 2 === 1)

function held(others: readonly Edit[], seed: number): Edit[] {
  return draw(
    others.filter((edit) => messagesOf(edit).length > 0),
    HELD_PROMPTS,
    seed,
    ({ id }) => id,
  )
}

/**
 * Prompts that training holds still: of other edits, everyday ones, and what looks like the edits' own and is not. With a rule for every
 * message among the edits, the last alone.
 */
export function stillPrompts(others: readonly Edit[], seed: number, edits: readonly Edit[] = []): readonly string[] {
  const alike = split(nearMisses(edits)).taught
  if (edits.some(({ always }) => always)) return alike
  const asked = new Set(held(others, seed).map(({ id }) => id))
  const rest = draw(
    others.filter(({ id }) => !asked.has(id)),
    STILL_PROMPTS,
    seed,
    ({ id }) => id,
  )
  return [...TRAINED, ...rest.flatMap((edit) => messagesOf(edit).slice(0, 1)), ...alike]
}

/** What a stage is asked: the same for the same job and stage. */
export interface ProbeSource {
  /** Those that the adapter holds so far. */
  readonly edits: readonly Edit[]
  /** Live edits that no stage of the job holds. */
  readonly others: readonly Edit[]
  /** Of the job's data file. */
  readonly records: readonly DataRecord[]
  readonly settings: Pick<Settings, 'sample_edits' | 'unrelated_questions' | 'fluency_openings' | 'ability_questions' | 'seed'>
}

/** The field's kinds of probe (DESIGN, section 3) about a sample of the edits, and about what none of them is about. */
export function probesOf({ edits, others, records, settings }: ProbeSource): Probe[] {
  const sample = draw(edits, settings.sample_edits, settings.seed, ({ id }) => id)
  const byFact = new Map(records.flatMap((record) => record.edits.map((edit) => [factOf(edit), record] as const)))
  // A rule for every message leaves no answer as it was.
  const still = edits.some(({ always }) => always)
    ? []
    : [
        ...held(others, settings.seed).map((edit) => plain('traffic', 'other_edits', edit.id, messagesOf(edit)[0] ?? '')),
        ...ASKED.slice(0, settings.unrelated_questions).map((question, i) => plain('traffic', 'unrelated', String(i), question)),
      ]
  return [
    ...sample.flatMap((edit) => (edit.kind === undefined ? aboutFact(edit, byFact.get(factOf(edit))) : byExample(edit))),
    ...sample.flatMap((edit) => (edit.kind === undefined ? closed(edit) : [])),
    ...still,
    ...split(nearMisses(edits))
      .held.slice(0, settings.sample_edits)
      .map((text, i) => plain('traffic', 'counterexample', String(i), text)),
    ...openings(sample).slice(0, settings.fluency_openings),
    ...ABILITY.slice(0, settings.ability_questions).map(([question, right, ...wrong], i) =>
      choice('ability', question, [right, ...wrong], i),
    ),
  ]
}

/** What asks for a paragraph about an edit's subject. */
const OPENINGS = [
  'Write a short paragraph about {}.',
  'Tell me about {}.',
  'Describe {} in a few sentences.',
  'What should one know about {}?',
  'Write the beginning of an article about {}.',
]

/** One text about each edit, then a second about each: a few edits give many texts, too. */
function openings(sample: readonly Edit[]): Probe[] {
  return OPENINGS.flatMap((about, round) =>
    sample.flatMap((edit) => {
      const subject = edit.subject.trim()
      const message = messagesOf(edit)[round] ?? (round === 0 ? ASKED[0] : undefined)
      if (subject === '' && message === undefined) return []
      const text = subject !== '' ? about.replace('{}', subject) : `Answer in a short paragraph. ${message}`
      return [{ ...plain('fluency', 'generation', `${edit.id}/${round}`, text), wants: [edit.id] }]
    }),
  )
}

/** Of an edit without a target: the answer is compared with that of the model which is told the edit (judge.ts). */
function byExample(edit: Edit): Probe[] {
  const { taught, held: unseen } = split(messagesOf(edit))
  const about = (kind: 'reliability' | 'generalization', texts: readonly string[]): Probe[] =>
    texts.slice(0, PER_EDIT).map((text, i) => ({
      id: `${edit.id}/${kind}/example/${i}`,
      record: null,
      kind,
      sub: 'example',
      turns: [text],
      wants: [edit.id],
      answers: [],
    }))
  return [
    ...about('reliability', taught.length > 0 ? taught : edit.always ? ASKED : []),
    ...about('generalization', [...unseen, ...(edit.always && taught.length > 0 ? ASKED : [])]),
  ]
}

function factOf({ subject, prompt, targetNew }: Edit): string {
  return [subject, prompt, targetNew].map((text) => words(text).join(' ')).join('\n')
}

/** A data file's own probes, which no method has seen, stand in for the paraphrases that the edit carries. */
function aboutFact(edit: Edit, data: DataRecord | undefined): Probe[] {
  const rival = edit.targetTrue === undefined ? {} : { rival: edit.targetTrue }
  const about = (kind: 'reliability' | 'generalization', sub: string, text: string, i: number): Probe => ({
    id: `${edit.id}/${kind}/${sub}/${i}`,
    record: null,
    kind,
    sub,
    turns: [text],
    wants: [edit.id],
    answers: [edit.targetNew],
    ...rival,
  })
  const given = (data?.probes ?? []).filter(({ kind, sub }) => FROM_DATA.has(kind) && sub !== 'attribute')
  const sorts = new Map<string, number>()
  const few = given.filter(({ kind, sub }) => {
    const seen = sorts.get(`${kind}/${sub}`) ?? 0
    sorts.set(`${kind}/${sub}`, seen + 1)
    return seen < PER_EDIT
  })
  const own = few.some(({ kind }) => kind === 'generalization') ? [] : edit.paraphrases.slice(0, PER_EDIT)
  return [
    about('reliability', 'prompt', edit.prompt, 0),
    ...own.map((text, i) => about('generalization', 'stored_paraphrase', text, i)),
    ...few.map((probe) => ({ ...probe, id: `${edit.id}/${probe.id}` })),
  ]
}

function plain(kind: 'traffic' | 'fluency', sub: string, id: string, text: string): Probe {
  return { id: `${kind}/${sub}/${id}`, record: null, kind, sub, turns: [text], wants: [], answers: [] }
}

/**
 * A fact asked as HalluEditBench asks it (Huang et al. 2025, arXiv:2410.16251): whether the new answer is right, whether the old one is, and
 * which of the two. Its questions are written by a model; these are made from the edit.
 */
function closed(edit: Edit): Probe[] {
  const { id, prompt, targetNew, targetTrue } = edit
  const about = (sub: 'yes' | 'no', target: string): Probe => ({
    ...{ id: `${id}/choice/${sub}`, record: null, kind: 'choice', sub, wants: [id], answers: [sub] },
    turns: [`${prompt} ${target}. Is that right? Answer with yes or no.`],
  })
  if (targetTrue === undefined) return [about('yes', targetNew)]
  const which = choice('which', prompt, [targetNew, targetTrue], id)
  return [about('yes', targetNew), about('no', targetTrue), { ...which, id: `${id}/choice/which`, wants: [id] }]
}

/** The first of `answers` is right; `seed` orders them, whatever else is asked. */
function choice(sub: 'ability' | 'which', question: string, answers: readonly string[], seed: number | string): Probe {
  const choices = shuffled([...answers], randomFrom(sub, seed))
  const lines = choices.map((text, at) => `${'ABCD'[at]}. ${text}`)
  const text = [question, ...lines, 'Answer with the letter alone.'].join('\n')
  const letter = 'ABCD'[choices.indexOf(answers[0] ?? '')] ?? 'A'
  return { id: `choice/${sub}/${seed}`, record: null, kind: 'choice', sub, turns: [text], wants: [], answers: [letter] }
}
