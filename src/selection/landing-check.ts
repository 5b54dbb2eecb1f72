/**
 * What a batch would do that its author may not have meant: contradictions, edits that give way to others, edits that do not fire on their own
 * words or fire on others'. For dry runs and `verify`: it reads, and takes its time.
 */
import { setImmediate as yieldToLoop } from 'node:timers/promises'
import { type Edit, statement } from '../edit/edit.ts'
import { supersessionKey } from '../edit/relation.ts'
import { show } from '../edit/values.ts'
import { normalized } from '../edit/words.ts'
import type { TextPair } from '../engine/engine.ts'
import { product } from '../memory/graph/vector.ts'
import { overlap } from '../memory/log/landing.ts'
import type { HeldEdit, LandingResult, VectorHit } from '../memory/memory.ts'
import { inSlices } from '../memory/slices.ts'
import { unread } from './candidate.ts'
import { EVERYDAY } from './everyday.ts'
import { type Calibration, score } from './gate.ts'
import { NameIndex } from './names.ts'
import { asksSame, rivals, samenessPairs } from './sameness.ts'
import { editText } from './text.ts'

/** The weightiest first. */
export const FINDING_KINDS = [
  'conflict', // two edits of the batch say different things of the same (subject, relation): the last wins
  'conflict_in_other_words', // the same, worded differently: the last wins when a question meets both
  'duplicate', // two records of the batch say the same
  'supersedes', // an edit in memory gives way
  'outdates', // the same, worded differently: the one in memory stays live and is left out when a question meets both
  'misses_own_prompt', // asked in its own words, it does not apply
  'misses_paraphrase', // … or in those of a paraphrase or example
  'subject_not_in_prompt', // its prompt names neither the subject nor an alias
  'fires_on_other', // it applies to the question of another edit
  'fires_on_everyday', // it applies to a message that has nothing to do with it
] as const
export type FindingKind = (typeof FINDING_KINDS)[number]
/** Findings for which `verify` refuses a batch. */
export const REFUSED: ReadonlySet<FindingKind> = new Set([
  'conflict',
  'conflict_in_other_words',
  'misses_own_prompt',
  'misses_paraphrase',
  'subject_not_in_prompt',
  'fires_on_other',
  'fires_on_everyday',
] as const)

/** `index` is the position in the batch; null: held in memory. */
export interface Side {
  readonly index: number | null
  readonly id: string
}

export interface Finding {
  readonly kind: FindingKind
  readonly edit: Side & { readonly index: number }
  /** The other edit concerned, where there is one. */
  readonly other: Side | null
  readonly message: string
}

export interface LandingReport {
  /** At most REPORT_LIMITS.findings, by position in the batch. */
  readonly findings: readonly Finding[]
  /** How many of each kind, unlisted ones included. */
  readonly counts: Readonly<Record<FindingKind, number>>
  /** Edits whose words were read, and those beyond the limit that were not. */
  readonly pairs: { readonly compared: number; readonly left: number }
  /** Why nothing could be read, where embedder or reader failed. */
  readonly fault: string | null
}

export const REPORT_LIMITS = { findings: 1_000, readEdits: 400, paraphrases: 4, near: 4, editsAtOnce: 8 } as const
/** Least cosine at which an everyday message is read against an edit. */
const PLAUSIBLE_EVERYDAY = 0.8
/** Least cosine at which two edits' words are compared. */
const NEAR = 0.85

export interface ReportInput {
  readonly edits: readonly Edit[]
  /** Of the same edits, from a dry run. */
  readonly results: readonly LandingResult[]
  readonly calibration: Calibration
  readonly read: (pairs: readonly TextPair[]) => Promise<Float32Array>
  readonly embed: (texts: readonly string[]) => Promise<readonly Float32Array[]>
  /** Live edits of the tenant's memory near a vector. */
  readonly search: (vector: Float32Array, k: number) => readonly VectorHit[]
  readonly held: (id: string) => HeldEdit | undefined
  /** Told how many edits are read. */
  readonly progress?: (done: number, total: number) => void
}

interface CheckedEdit {
  readonly index: number
  readonly edit: Edit
}

export async function landingReport(input: ReportInput): Promise<LandingReport> {
  const { edits, results, progress } = input
  // Of edits under one id, the last is what will be held.
  const lastIndex = new Map(edits.map(({ id }, index) => [id, index]))
  const batch = edits.flatMap((edit, index) => (lastIndex.get(edit.id) === index ? [{ edit, index }] : []))
  const findings = [
    ...(await inSlices(results, (result) => ofResult(result, edits, lastIndex))).flat(),
    ...(await inSlices(batch, ofSubject)).flat(),
  ]
  const readable = batch.slice(0, REPORT_LIMITS.readEdits)
  const replaced = new Set([...lastIndex.keys(), ...results.flatMap(({ supersedes }) => supersedes)])
  const keys = new Map<Edit, string>()
  const keyOf = (edit: Edit) => {
    const key = keys.get(edit) ?? supersessionKey(edit)
    keys.set(edit, key)
    return key
  }
  let compared = 0
  let fault: string | null = null
  try {
    const everyday = await input.embed(EVERYDAY.map(normalized))
    const prompts = await input.embed(readable.map(({ edit }) => normalized(askedBy(edit))))
    for (; compared < readable.length; compared++) {
      const one = readable[compared] as CheckedEdit
      if (compared % REPORT_LIMITS.editsAtOnce === 0) {
        progress?.(compared, readable.length)
        // An embedder and a reader that know all answers already wait for nothing.
        await yieldToLoop()
      }
      const vector = prompts[compared] ?? new Float32Array()
      const own = await ofOwnWords(one, input)
      const near = nearest(one, vector, readable, prompts, replaced, keyOf, input)
      findings.push(...own, ...(await ofOthers(one, near, input)), ...(await ofEveryday(one, vector, everyday, input)))
    }
  } catch (error) {
    fault = error instanceof Error ? error.message : String(error)
  }
  const counts = Object.fromEntries(FINDING_KINDS.map((kind) => [kind, findings.filter((f) => f.kind === kind).length]))
  const weight = ({ kind }: Finding) => FINDING_KINDS.indexOf(kind)
  return {
    findings: findings
      .toSorted((a, b) => weight(a) - weight(b))
      .slice(0, REPORT_LIMITS.findings)
      .sort((a, b) => a.edit.index - b.edit.index),
    counts: counts as Record<FindingKind, number>,
    pairs: { compared, left: batch.length - compared },
    fault,
  }
}

/** What asks for an edit: its prompt, its sentence, the occasion of a rule. */
const askedBy = (edit: Edit): string => (edit.prompt === '' ? statement(edit) : edit.prompt)
const said = (edit: Edit | undefined): string => (edit === undefined ? 'another edit' : show(statement(edit)))

function finding(kind: FindingKind, { index, edit: { id } }: CheckedEdit, other: Side | null, message: string): Finding {
  return { kind, edit: { index, id }, other: other && { index: other.index, id: other.id }, message }
}

/** What the landing itself found: equal keys and equal contents. */
function ofResult(
  { index, id, supersedes, duplicateOf, conflictsWith }: LandingResult,
  edits: readonly Edit[],
  lastIndex: ReadonlyMap<string, number>,
): Finding[] {
  const edit = edits[index]
  if (edit === undefined) return []
  const one = { index, edit }
  return [
    ...(duplicateOf === undefined ? [] : [finding('duplicate', one, { index: duplicateOf, id }, `${said(edit)} is there twice`)]),
    // Told once, of the later of the two.
    ...conflictsWith
      .map((other) => ({ id: other, index: lastIndex.get(other) ?? index }))
      .filter((other) => other.index < index)
      .map((other) => finding('conflict', one, other, `${said(edit)} contradicts ${said(edits[other.index])}; the later wins`)),
    ...supersedes
      .filter((other) => !lastIndex.has(other))
      .map((other) =>
        finding('supersedes', one, { index: null, id: other }, `${said(edit)} takes the place of an edit in memory`),
      ),
  ]
}

function ofSubject(one: CheckedEdit): Finding[] {
  const { edit } = one
  if (edit.kind !== undefined || edit.subject === '') return []
  const names = new NameIndex()
  names.add(edit)
  if (names.find(edit.prompt).length > 0) return []
  return [finding('subject_not_in_prompt', one, null, `the prompt ${show(edit.prompt)} does not name ${show(edit.subject)}`)]
}

/** Whether the gate would let the edit through for this text, by the reader's log-odds and by whether the text names its subject. */
function applying(edit: Edit, calibration: Calibration): (text: string, logit: number | undefined) => boolean {
  const names = new NameIndex()
  names.add(edit)
  return (text, logit) => {
    const name = names.find(text).find(({ kind }) => kind === 'exact' || kind === 'alias') ?? null
    return score({ ...unread(edit, text), name, logit: logit ?? -100 }, calibration) >= calibration.threshold
  }
}

async function ofOwnWords(one: CheckedEdit, { read, calibration }: ReportInput): Promise<Finding[]> {
  const { edit } = one
  if (edit.always) return []
  const others = [...edit.paraphrases, ...(edit.examples ?? [])].slice(0, REPORT_LIMITS.paraphrases)
  const texts = [askedBy(edit), ...others]
  const logits = await read(texts.map((text): TextPair => [normalized(text), editText(edit)]))
  const applies = applying(edit, calibration)
  return texts.flatMap((text, i) =>
    applies(text, logits[i])
      ? []
      : [
          finding(
            i === 0 ? 'misses_own_prompt' : 'misses_paraphrase',
            one,
            null,
            `${said(edit)} does not apply to ${show(text)}`,
          ),
        ],
  )
}

interface Near extends Side {
  readonly edit: Edit
}

/** Edits of the batch and of the memory whose words are nearest. */
function nearest(
  one: CheckedEdit,
  vector: Float32Array,
  batch: readonly CheckedEdit[],
  vectors: readonly Float32Array[],
  replaced: ReadonlySet<string>,
  keyOf: (edit: Edit) => string,
  { search, held }: ReportInput,
): Near[] {
  const inMemory = search(vector, REPORT_LIMITS.near + 1).flatMap(({ editId, similarity }) => {
    const edit = replaced.has(editId) ? undefined : held(editId)?.edit
    return edit === undefined ? [] : [{ index: null, id: editId, edit, similarity }]
  })
  const inBatch = batch.flatMap(({ edit, index }, i) =>
    index < one.index ? [{ index, id: edit.id, edit, similarity: product(vector, vectors[i]) }] : [],
  )
  return [...inMemory, ...inBatch]
    .filter(({ edit, similarity }) => similarity >= NEAR && edit.id !== one.edit.id && meet(edit, one.edit, keyOf))
    .sort((a, b) => b.similarity - a.similarity)
    .slice(0, REPORT_LIMITS.near)
}

/**
 * Whether both can be true at one time for one model. What is said for certain models only is meant to differ from what is said for all; equal keys
 * are the landing's own business.
 */
function meet(a: Edit, b: Edit, keyOf: (edit: Edit) => string): boolean {
  return overlap(a, b) && a.models?.join() === b.models?.join() && keyOf(a) !== keyOf(b)
}

async function ofOthers(one: CheckedEdit, near: readonly Near[], { read, calibration }: ReportInput): Promise<Finding[]> {
  const logits = await read(near.flatMap(({ edit }) => samenessPairs(one.edit, edit)))
  const applies = applying(one.edit, calibration)
  return near.flatMap((other, i): Finding[] => {
    const [here = 0, there = 0] = [logits[2 * i], logits[2 * i + 1]]
    if (rivals(one.edit, other.edit) && asksSame([here, there])) {
      const both = `${said(one.edit)} contradicts ${said(other.edit)} in other words`
      return other.index === null
        ? [finding('outdates', one, other, `${both}; the one in memory is left out where a question meets both`)]
        : [finding('conflict_in_other_words', one, other, `${both}; the later wins where a question meets both`)]
    }
    // `there`: the other's question, read against this edit.
    const theirs = applies(askedBy(other.edit), there)
    const ours = applying(other.edit, calibration)(askedBy(one.edit), here)
    const fires = theirs && !ours && !one.edit.always && !other.edit.always
    return fires ? [finding('fires_on_other', one, other, `${said(one.edit)} also applies to ${show(askedBy(other.edit))}`)] : []
  })
}

async function ofEveryday(
  one: CheckedEdit,
  vector: Float32Array,
  everyday: readonly Float32Array[],
  input: ReportInput,
): Promise<Finding[]> {
  if (one.edit.always) return []
  const asked = EVERYDAY.filter((_, i) => product(vector, everyday[i]) >= PLAUSIBLE_EVERYDAY)
  const logits = await input.read(asked.map((text): TextPair => [normalized(text), editText(one.edit)]))
  const applies = applying(one.edit, input.calibration)
  const first = asked.find((text, i) => applies(text, logits[i]))
  return first === undefined ? [] : [finding('fires_on_everyday', one, null, `${said(one.edit)} also applies to ${show(first)}`)]
}
