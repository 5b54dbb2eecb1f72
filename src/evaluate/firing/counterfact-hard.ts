/**
 * CounterFact-Hard (EREN, Chen et al. 2024): other questions about the same subject, and the same question about its neighbours. Its own
 * file is read, and CounterFact's, from which the like is derived: what other records ask, asked of this record's subject.
 */
import { z } from 'zod'
import type { Located } from '../../edit/records.ts'
import type { Problem } from '../../errors.ts'
import { randomFrom, sample } from '../metrics/random.ts'
import { asked, type Case, type CasesRead } from './case.ts'
import { editOf, filled } from './edits.ts'

const texts = z.array(filled, { error: 'expected a list of texts' })
const Hard = z.object({
  edit_statement: filled,
  subject_name: filled,
  edit_scope: z.array(z.tuple([filled, filled]), { error: 'expected a list of [question, answer]' }),
  unrelated: z.object({ neighbor_subj: texts.default([]), same_subj: texts.default([]) }),
})
const Plain = z.object({
  requested_rewrite: z.object({ prompt: filled, subject: filled, relation_id: filled, target_new: z.object({ str: filled }) }),
  paraphrase_prompts: texts.default([]),
  neighborhood_prompts: texts.default([]),
})

/** Questions of other relations that are derived for each record of CounterFact. */
const DERIVED = 4
/** The language someone speaks or writes (P1412) and the mother tongue (P103) ask nearly the same; EREN leaves the first out, too. */
const LEFT_OUT = 'P1412'

/** What one record comes to, before its questions are bound to its edit. */
interface Made {
  readonly edit: ReturnType<typeof editOf>
  readonly questions: readonly string[]
  readonly paraphrases: readonly string[]
  readonly sameSubject: readonly string[]
  readonly neighbours: readonly string[]
}

export function counterfactHard(records: readonly Located[], file: string): CasesRead {
  const [read, problems] = readAll(records, Hard, fromHard)
  const made = read.filter((one) => one !== null)
  const notes =
    made.length === read.length ? [] : [`${file}: ${read.length - made.length} records that ask nothing are left out.`]
  return { ...casesOf(file, made, problems), notes }
}

/** An edit is the statement without its end, where that is the target and the subject stands before it; else the first question. Null: it asks nothing, as 8 of the 1,024 do. */
function fromHard({
  edit_statement: statement,
  subject_name: subject,
  edit_scope,
  unrelated,
}: z.output<typeof Hard>): Made | null {
  const [first] = edit_scope
  if (first === undefined) return null
  const [question, target_new] = first
  const whole = statement.replace(/[.\s]+$/, '')
  const begun = whole.endsWith(target_new) ? whole.slice(0, -target_new.length).trim() : ''
  return {
    edit: editOf({ subject, prompt: begun.toLowerCase().includes(subject.toLowerCase()) ? begun : question, target_new }),
    questions: edit_scope.map(([one]) => one),
    paraphrases: [],
    sameSubject: unrelated.same_subj,
    neighbours: unrelated.neighbor_subj,
  }
}

export function counterfact(records: readonly Located[], file: string): CasesRead {
  const [plain, problems] = readAll(records, Plain, (record) => record)
  const templates = new Map<string, Set<string>>()
  for (const { requested_rewrite: own } of plain)
    templates.set(own.relation_id, (templates.get(own.relation_id) ?? new Set()).add(own.prompt))
  const made = plain.map((record, i): Made => {
    const { prompt, subject, relation_id, target_new } = record.requested_rewrite
    const others = [...templates].filter(([relation]) => relation !== relation_id && relation !== LEFT_OUT)
    const drawn = sample(others, DERIVED, randomFrom('counterfact-hard', i)).map(([, written]) => [...written][0] ?? '')
    return {
      edit: { ...editOf({ subject, prompt, target_new: target_new.str }), relation: relation_id },
      questions: [prompt.replace('{}', () => subject)],
      paraphrases: record.paraphrase_prompts,
      sameSubject: drawn.map((template) => template.replace('{}', () => subject)),
      neighbours: record.neighborhood_prompts,
    }
  })
  return casesOf(file, made, problems)
}

function readAll<T, M>(records: readonly Located[], shape: z.ZodType<T>, make: (record: T) => M): [M[], Problem[]] {
  const problems: Problem[] = []
  const made = records.flatMap(({ value, line }) => {
    const read = shape.safeParse(value)
    if (read.success) return [make(read.data)]
    problems.push(...read.error.issues.map((i) => ({ line, field: i.path.join('.') || null, message: i.message })))
    return []
  })
  return [made, problems]
}

function casesOf(file: string, made: readonly Made[], problems: readonly Problem[]): CasesRead {
  const memory = `${file} CounterFact`
  const cases = made.flatMap(({ edit, questions, paraphrases, sameSubject, neighbours }) => {
    const common = { memory, group: 'CounterFact-Hard', also: [], about: edit.id, derived: true as const }
    const make = (type: string, contents: readonly string[], wants: readonly string[]) =>
      [...new Set(contents)].map((content): Case => ({ ...common, type, messages: asked(content), wants }))
    return [
      ...make('question', questions, [edit.id]),
      ...make('paraphrase', paraphrases, [edit.id]),
      ...make('same subject', sameSubject, []),
      ...make('neighbour', neighbours, []).map((one): Case => ({ ...one, sameRelation: true })),
    ]
  })
  const edits = made.map(({ edit }) => edit)
  return { memories: new Map([[memory, { edits, always: [] }]]), cases, notes: [], problems }
}
