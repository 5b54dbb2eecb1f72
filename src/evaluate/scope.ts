/**
 * Neighbours that are edited after all. A probe meant to be out of scope is in scope of another record's edit when that edit's subject
 * stands in it as a whole name (`named`) and it asks for the same relation (`sameRelation`). It then wants that edit. The record's own edits
 * never count: its locality probes are made about them. Where the rule is in doubt the probe stays out of scope.
 */
import { type Edit, MASK, maskSubject, words } from '../edit/edit.ts'
import type { Embedder } from '../engine/engine.ts'
import type { DataRecord } from './dataset.ts'
import type { Probe } from './probe.ts'

/** Cosine of masked texts from which two wordings are one relation … */
export const SAME_WORDING = 0.9
/** … or from which they are, when the same true answer is known of both. */
export const SAME_TRUTH = 0.5

/** Longest subject looked for, words. */
const NAME_WORDS = 24
/** Probes that have their record's relation, by construction of the data. */
const OF_THE_RELATION: ReadonlySet<string> = new Set(['neighbourhood', 'attribute'])
/** Capitalised only because they begin a sentence, so that no longer name begins with them. */
const OPENERS: ReadonlySet<string> = new Set(
  'in at on of for to from by the a an is was are were does do did has who what which where when why how whose name tell'.split(
    ' ',
  ),
)

/** The probes with those that are edited after all turned into `in_scope_neighbour`. `live`: every edit that answers may come from. */
export async function settleScope(
  probes: readonly Probe[],
  records: ReadonlyMap<number, DataRecord>,
  live: readonly Edit[],
  embedder: Embedder,
): Promise<readonly Probe[]> {
  const bySubject = group(live, (edit) => words(edit.subject).join(' '))
  const labels = relationLabels(live)
  const out: Probe[] = []
  for (const probe of probes) {
    const outside = probe.kind === 'locality' || probe.kind === 'traffic'
    const own = probe.record === null ? [] : (records.get(probe.record)?.edits ?? [])
    const candidates = outside
      ? named(probe.turns.at(-1) ?? '', bySubject).filter((edit) => !own.some(({ id }) => id === edit.id))
      : []
    const relations = new Set(OF_THE_RELATION.has(probe.sub) ? own.flatMap(labels) : [])
    let best: { edit: Edit; closeness: number } | undefined
    for (const edit of candidates) {
      const closeness = labels(edit).some((label) => relations.has(label)) ? 1 : await sameRelation(probe, edit, embedder)
      if (closeness !== null && closeness > (best?.closeness ?? 0)) best = { edit, closeness }
    }
    out.push(best === undefined ? probe : inScopeOf(best.edit, probe))
  }
  return out
}

function inScopeOf(edit: Edit, { id, record, sub, turns }: Probe): Probe {
  const rival = edit.targetTrue === undefined ? {} : { rival: edit.targetTrue }
  return { id, record, sub, turns, kind: 'in_scope_neighbour', wants: [edit.id], answers: [edit.targetNew], ...rival }
}

function group<T>(items: readonly T[], key: (item: T) => string): Map<string, T[]> {
  const out = new Map<string, T[]>()
  for (const item of items) {
    const had = out.get(key(item))
    if (had === undefined) out.set(key(item), [item])
    else had.push(item)
  }
  return out
}

/** Relation labels of an edit: its own, or those of edits with the same words around another subject. */
function relationLabels(edits: readonly Edit[]): (edit: Edit) => readonly string[] {
  const frame = (edit: Edit) => words(maskSubject(edit.prompt, edit.subject)).join(' ')
  const labelled = group(
    edits.filter(({ relation }) => relation !== undefined),
    frame,
  )
  return (edit) =>
    edit.relation !== undefined
      ? [edit.relation]
      : [...new Set(labelled.get(frame(edit))?.flatMap(({ relation }) => relation ?? []))]
}

/**
 * Edits whose subject stands in the text as a whole name: its words in a row (case and accents aside), inside no longer subject, and with
 * no capitalised word or number next to them that would make it a longer name ("Adobe Flash" in "Adobe Flash Player").
 */
function named(text: string, bySubject: ReadonlyMap<string, readonly Edit[]>): readonly Edit[] {
  const written = text.split(/\s+/).filter((word) => words(word).length > 0)
  const said = written.map((word) => words(word).join(' '))
  const taken = new Set<number>()
  const out: Edit[] = []
  for (let length = Math.min(NAME_WORDS, said.length); length > 0; length--) {
    for (let from = 0; from + length <= said.length; from++) {
      const edits = bySubject.get(subjectOf(said, from, length))
      const places = Array.from({ length }, (_, i) => from + i)
      if (edits === undefined || places.every((place) => taken.has(place))) continue
      for (const place of places) taken.add(place)
      if (!goesOn(written, from, length)) out.push(...edits)
    }
  }
  return out
}

/** A possessive is no part of the name: "Baku's". */
function subjectOf(said: readonly string[], from: number, length: number): string {
  return said
    .slice(from, from + length)
    .join(' ')
    .replace(/ s$/, '')
}

function goesOn(written: readonly string[], from: number, length: number): boolean {
  const [before, first, last, after] = [written[from - 1], written[from], written[from + length - 1], written[from + length]]
  // Anywhere in the word: "iPhone", "(2nd".
  const isName = (word: string | undefined) => word !== undefined && /[\p{Lu}\p{N}]/u.test(word)
  const ends = (word: string | undefined) => /(?:[,.;:!?)"”]|['’]s)$/u.test(word ?? '')
  if (!isName(first)) return false
  const right = isName(after) && !ends(last)
  const left = isName(before) && !ends(before) && !OPENERS.has(words(before ?? '').join(' '))
  return right || left
}

/**
 * How sure it is that the probe asks what the edit states, in [0, 1]; null: it isn't. Once the subject is masked, they have the same words;
 * or a cosine of SAME_WORDING with the name on the same side of every word they share ("who is X's father" is not "whose father is X"); or
 * a cosine of SAME_TRUTH and the same true answer.
 */
async function sameRelation(probe: Probe, edit: Edit, embedder: Embedder): Promise<number | null> {
  const asked = maskSubject(probe.turns.at(-1) ?? '', edit.subject)
  const wordings = [edit.prompt, ...edit.paraphrases].map((wording) => maskSubject(wording, edit.subject))
  const plain = (text: string) => words(text).join(' ')
  if (wordings.some((wording) => plain(wording) === plain(asked))) return 1
  const sameTruth = probe.answers.some((answer) => plain(answer) === plain(edit.targetTrue ?? ''))
  const [vector, ...stated] = await embedder.embed([asked, ...wordings], 'query')
  const close = wordings.map((wording, i) => {
    const cosine = dot(vector, stated[i])
    return cosine >= (sameTruth ? SAME_TRUTH : SAME_WORDING) && (sameTruth || sameSide(asked, wording)) ? cosine : 0
  })
  const best = Math.max(...close)
  return best > 0 ? best : null
}

/** Whether the masked name stands before or after the same words in both texts. */
function sameSide(one: string, other: string): boolean {
  const sides = (text: string) => {
    const at = text.indexOf(MASK)
    const part = (from: number, to?: number) => words(text.slice(from, to)).filter((word) => word.length > 3)
    return at === -1 ? null : { before: new Set(part(0, at)), after: new Set(part(at + MASK.length)) }
  }
  const [a, b] = [sides(one), sides(other)]
  if (a === null || b === null) return false
  return ![...a.before].some((word) => b.after.has(word)) && ![...a.after].some((word) => b.before.has(word))
}

function dot(a: Float32Array | undefined, b: Float32Array | undefined): number {
  return a === undefined || b === undefined ? 0 : a.reduce((sum, x, i) => sum + x * (b[i] ?? 0), 0)
}
