/**
 * What a batch would do that its author may not have meant: contradictions, edits that give way to others, relations that another edit tells
 * differently from the other side, names that are found too easily. For dry runs: it embeds, and takes its time.
 */
import { setImmediate as yieldToLoop } from 'node:timers/promises'
import { type Edit, statement } from '../edit/edit.ts'
import { show } from '../edit/values.ts'
import { words } from '../edit/words.ts'
import { easyName } from './easy-names.ts'
import { overlap } from './landing.ts'
import type { HeldEdit, LandingResult } from './memory.ts'
import { type Mirror, mirrorOf } from './mirror.ts'
import { namesOf, plainlySameRelation, relationTextsOf, sameRelation, sameSubject, sameTarget, type Vectors } from './sameness.ts'

/** The weightiest first. */
export const FINDING_KINDS = [
  'conflict', // two edits of the batch say different things of the same (subject, relation): the last wins
  'conflict_in_other_words', // the same, worded differently: the last wins when a question meets both
  'duplicate', // two records of the batch say the same
  'supersedes', // an edit in memory gives way
  'outdates', // the same, worded differently: the one in memory stays live and is left out when a question meets both
  'symmetric_missing', // "the spouse of A is B", and nothing says whose spouse B is
  'symmetric_conflict', // … or B's spouse is someone else
  'inverse_missing', // "the capital of A is B", and nothing says what B is the capital of
  'inverse_conflict', // "X was written by Y", but Z wrote X
  'common_name', // a subject or alias of everyday words
  'short_name', // of one or two letters
] as const
export type FindingKind = (typeof FINDING_KINDS)[number]

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
  /** Pairs of one subject and different targets whose wordings were compared, and those beyond the limit that were not. */
  readonly pairs: { readonly compared: number; readonly left: number }
  /** Why wordings could not be compared, where the embedder failed. */
  readonly fault: string | null
}

export const REPORT_LIMITS = { findings: 1_000, pairs: 20_000, texts: 2_000, textsAtOnce: 64, editsAtOnce: 2_000 } as const

export interface ReportInput {
  readonly edits: readonly Edit[]
  /** Of the same edits, from a dry run. */
  readonly results: readonly LandingResult[]
  /** All that the tenant holds. */
  readonly held: readonly HeldEdit[]
  /** Vectors of texts, a few at a time. */
  readonly embed: (texts: readonly string[]) => Promise<Vectors>
  /** Told how many of the texts that have to be compared are embedded. */
  readonly progress?: (done: number, total: number) => void
}

/** An edit of either side, with what is compared. */
interface Entry extends Side {
  readonly edit: Edit
  readonly names: readonly string[]
  readonly mirror: Mirror | undefined
}

const nameKey = (text: string): string => words(text).join(' ')

export async function landingReport({ edits, results, held, embed, progress }: ReportInput): Promise<LandingReport> {
  // Of edits under one id, the last is what will be held.
  const lastIndex = new Map(edits.map(({ id }, index) => [id, index]))
  const batch = edits.flatMap((edit, index) => (lastIndex.get(edit.id) === index ? [entry(edit, index)] : []))
  const replaced = new Set([...lastIndex.keys(), ...results.flatMap(({ supersedes }) => supersedes)])
  const near = await nearby(batch, held, replaced)
  const bySubject = groups([...batch, ...near], ({ names }) => names)
  const byTarget = groups(
    [...batch, ...near].filter(({ mirror }) => mirror !== undefined),
    ({ edit }) => [nameKey(edit.targetNew)],
  )
  const { pairs, left } = rivals(batch, bySubject)
  const { vectors, dropped, fault } = await vectorsOf(pairs, embed, progress)
  const findings = [
    ...results.flatMap((result) => ofResult(result, edits, lastIndex)),
    ...pairs.flatMap((pair) => ofPair(pair, vectors)),
    ...batch.flatMap((one) => ofMirror(one, bySubject, byTarget)),
    ...batch.flatMap(ofNames),
  ]
  const counts = Object.fromEntries(FINDING_KINDS.map((kind) => [kind, findings.filter((f) => f.kind === kind).length]))
  return {
    findings: weightiest(findings).sort((a, b) => a.edit.index - b.edit.index),
    counts: counts as Record<FindingKind, number>,
    pairs: { compared: pairs.length - dropped, left: left + dropped },
    fault,
  }
}

/** Where there are too many to list, contradictions come before names. */
function weightiest(findings: readonly Finding[]): Finding[] {
  const weight = ({ kind }: Finding) => FINDING_KINDS.indexOf(kind)
  return findings.toSorted((a, b) => weight(a) - weight(b)).slice(0, REPORT_LIMITS.findings)
}

/** One of the batch. */
type Landing = Entry & { readonly index: number }

function entry<I extends number | null>(edit: Edit, index: I): Entry & { readonly index: I } {
  return { index, id: edit.id, edit, names: namesOf(edit), mirror: mirrorOf(edit) }
}

/** Live edits of the memory that share a name with the batch, as subject or as target. Lets others run now and then: memory may be large. */
async function nearby(batch: readonly Entry[], held: readonly HeldEdit[], replaced: ReadonlySet<string>): Promise<Entry[]> {
  const wanted = new Set(batch.flatMap(({ names, edit, mirror }) => (mirror ? [...names, nameKey(edit.targetNew)] : names)))
  const near: Entry[] = []
  for (const [i, { edit, state }] of held.entries()) {
    if (i % REPORT_LIMITS.editsAtOnce === 0) await yieldToLoop()
    if (state !== 'live' || replaced.has(edit.id)) continue
    if (namesOf(edit).some((name) => wanted.has(name)) || wanted.has(nameKey(edit.targetNew))) near.push(entry(edit, null))
  }
  return near
}

type Groups = ReadonlyMap<string, readonly Entry[]>

function groups(entries: readonly Entry[], keys: (entry: Entry) => readonly string[]): Groups {
  const out = new Map<string, Entry[]>()
  for (const one of entries)
    for (const key of new Set(keys(one))) {
      const group = out.get(key)
      if (group === undefined) out.set(key, [one])
      else group.push(one)
    }
  return out
}

type Pair = readonly [edit: Landing, earlier: Entry]

/** Whether both can be true at one time for one model. What is said for certain models only is meant to differ from what is said for all. */
function meet(a: Edit, b: Edit): boolean {
  return overlap(a, b) && a.models?.join() === b.models?.join()
}

/** Pairs that would contradict each other if their relations were the same; equal keys are the landing's own business. */
function rivals(batch: readonly Landing[], bySubject: Groups): { pairs: Pair[]; left: number } {
  const pairs: Pair[] = []
  let left = 0
  for (const one of batch) {
    const others = new Set(one.names.flatMap((name) => bySubject.get(name) ?? []))
    for (const other of others) {
      if (pairs.length === REPORT_LIMITS.pairs) {
        left += others.size
        break
      }
      if ((other.index ?? -1) >= one.index) continue
      if (!sameSubject(one.names, other.names) || sameTarget(one.edit, other.edit) || !meet(one.edit, other.edit)) continue
      if (plainlySameRelation(one.edit, other.edit) === undefined) pairs.push([one, other])
    }
  }
  return { pairs, left }
}

interface Embedded {
  readonly vectors: Vectors
  /** Pairs for whose texts there was no room. */
  readonly dropped: number
  readonly fault: string | null
}

/** Without vectors the rest of the report stands: an embedder that fails is no reason to hold it back. */
async function vectorsOf(
  pairs: readonly Pair[],
  embed: ReportInput['embed'],
  progress: ReportInput['progress'],
): Promise<Embedded> {
  const texts = new Set<string>()
  let dropped = 0
  for (const pair of pairs) {
    const own = pair.flatMap(({ edit }) => relationTextsOf(edit))
    if (texts.size + own.length <= REPORT_LIMITS.texts || own.every((text) => texts.has(text)))
      for (const text of own) texts.add(text)
    else dropped++
  }
  const vectors = new Map<string, Float32Array>()
  const all = [...texts]
  try {
    for (let from = 0; from < all.length; from += REPORT_LIMITS.textsAtOnce) {
      progress?.(from, all.length)
      for (const [text, vector] of await embed(all.slice(from, from + REPORT_LIMITS.textsAtOnce))) vectors.set(text, vector)
    }
    return { vectors, dropped, fault: null }
  } catch (error) {
    return { vectors, dropped: pairs.length, fault: error instanceof Error ? error.message : String(error) }
  }
}

function finding(
  kind: FindingKind,
  edit: Landing | (Side & { readonly index: number }),
  other: Side | null,
  message: string,
): Finding {
  const side = <S extends Side>({ index, id }: S): { index: S['index']; id: string } => ({ index, id })
  return { kind, edit: side(edit), other: other && side(other), message }
}

const said = (edit: Edit | undefined): string => (edit === undefined ? 'another edit' : show(statement(edit)))

/** What the landing itself found: equal keys and equal contents. */
function ofResult(
  { index, id, supersedes, duplicateOf, conflictsWith }: LandingResult,
  edits: readonly Edit[],
  lastIndex: ReadonlyMap<string, number>,
): Finding[] {
  const one = { index, id }
  const others = conflictsWith.map((other) => ({ id: other, index: lastIndex.get(other) ?? index }))
  return [
    ...(duplicateOf === undefined
      ? []
      : [finding('duplicate', one, { index: duplicateOf, id }, `${said(edits[index])} is there twice`)]),
    // Told once, of the later of the two.
    ...others
      .filter((other) => other.index < index)
      .map((other) =>
        finding('conflict', one, other, `${said(edits[index])} contradicts ${said(edits[other.index])}; the later wins`),
      ),
    ...supersedes
      .filter((other) => !lastIndex.has(other))
      .map((other) =>
        finding('supersedes', one, { index: null, id: other }, `${said(edits[index])} takes the place of an edit in memory`),
      ),
  ]
}

function ofPair([one, earlier]: Pair, vectors: Vectors): Finding[] {
  if (!sameRelation(one.edit, earlier.edit, vectors)) return []
  const both = `${said(one.edit)} contradicts ${said(earlier.edit)} in other words`
  return earlier.index === null
    ? [finding('outdates', one, earlier, `${both}; the one in memory is left out where a question meets both`)]
    : [finding('conflict_in_other_words', one, earlier, `${both}; the later wins where a question meets both`)]
}

/** What the edit's own mirror image, stated elsewhere, says differently; or that it is missing. */
function ofMirror(one: Landing, bySubject: Groups, byTarget: Groups): Finding[] {
  const { mirror, edit, names } = one
  if (mirror === undefined) return []
  const target = nameKey(edit.targetNew)
  const facing = (other: Entry) =>
    other.id !== one.id && other.mirror?.base === mirror.base && overlap(other.edit, edit) && faces(other.mirror, mirror)
  const ofTarget = (bySubject.get(target) ?? []).filter(facing)
  const toSubject = names.flatMap((name) => byTarget.get(name) ?? []).filter(facing)
  const told = ofTarget.some((other) => names.includes(nameKey(other.edit.targetNew)))
  // Whose place is single on the other side: of what the subject is by what the target has, and the reverse where it is one to one.
  const wrong = [
    ...(mirror.side === 'has' || mirror.single ? toSubject.filter((other) => !other.names.includes(target)) : []),
    ...(mirror.side === 'is' || mirror.single ? ofTarget.filter((other) => !names.includes(nameKey(other.edit.targetNew))) : []),
  ].filter((other) => (other.index ?? -1) < one.index)
  const kind = mirror.side === 'both' ? 'symmetric' : 'inverse'
  const conflicts = [...new Set(wrong)].map((other) =>
    finding(`${kind}_conflict`, one, other, `${said(edit)} does not agree with ${said(other.edit)}, read from the other side`),
  )
  if (told || conflicts.length > 0 || (mirror.side !== 'both' && !mirror.single)) return conflicts
  return [
    finding(
      `${kind}_missing`,
      one,
      null,
      `${said(edit)}, and no edit says so of ${show(edit.targetNew)}: asked from that side, the model answers as before`,
    ),
  ]
}

function faces(other: Mirror, mirror: Mirror): boolean {
  return mirror.side === 'both' ? other.side === 'both' : other.side !== 'both' && other.side !== mirror.side
}

function ofNames(one: Landing): Finding[] {
  return [one.edit.subject, ...one.edit.aliases].flatMap((name) => {
    const why = easyName(name)
    if (why === undefined) return []
    const what = why === 'short' ? 'is very short' : 'is everyday words'
    return [finding(`${why}_name`, one, null, `the name ${show(name)} ${what}: texts hold it without meaning this subject`)]
  })
}
