/**
 * What each probe wants, once all edits are in one memory.
 *
 * A probe made to be out of scope is in scope of another record's edit when that edit's subject stands in it as a whole name (`named`) and
 * it asks for the same relation (`sameRelation`). It then wants that edit; of several, the latest. The record's own edits never count:
 * its locality probes are made about them. Where the rule is in doubt the probe stays out of scope.
 *
 * Two edits of one subject whose prompts ask the same state the same fact. With the same target either is right (`equals`); otherwise the
 * later one holds, and a probe that wants the earlier asks for what no longer is (zsRE: a fifth of its records).
 */

import { type Edit, MASK, maskSubject } from '../../edit/edit.ts'
import { words } from '../../edit/words.ts'
import type { Embedder } from '../../engine/engine.ts'
import { product } from '../../memory/graph/vector.ts'
import type { DataRecord } from './dataset.ts'
import type { Probe } from './probe.ts'

/** Cosine of masked texts from which two wordings are one relation … */
const SAME_WORDING = 0.9
/** … or from which they are, when the same true answer is known of both. */
const SAME_TRUTH = 0.5

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

/** A live edit and when it landed; larger is later. */
export interface Held {
  readonly edit: Edit
  readonly seq: number
}

export interface Settled {
  readonly probes: readonly Probe[]
  /** Records that a later one contradicts in other words: their in-scope probes are left out. */
  readonly contradicted: number
}

/** `live`: every edit that answers may come from. */
export async function settleScope(
  probes: readonly Probe[],
  records: ReadonlyMap<number, DataRecord>,
  live: readonly Held[],
  embedder: Embedder,
): Promise<Settled> {
  const memory: Memory = {
    byId: new Map(live.map((held) => [held.edit.id, held])),
    bySubject: group(live, ({ edit }) => words(edit.subject).join(' ')),
    labels: relationLabels(live.map(({ edit }) => edit)),
    rivals: new Map(),
    embedder,
  }
  const out: Probe[] = []
  const contradicted = new Set<number | null>()
  for (const probe of probes) {
    const settled = probe.wants.length > 0 ? await inside(probe, memory) : await outside(probe, memory, records)
    if (settled === null) contradicted.add(probe.record)
    else out.push(settled)
  }
  return { probes: out, contradicted: contradicted.size }
}

interface Memory {
  readonly byId: ReadonlyMap<string, Held>
  readonly bySubject: ReadonlyMap<string, readonly Held[]>
  readonly labels: (edit: Edit) => readonly string[]
  /** Other edits of the same fact, by id of the edit; filled as they are asked for. */
  readonly rivals: Map<string, readonly Held[]>
  readonly embedder: Embedder
}

/** A probe that wants edits, with those that state the same; null when a later edit says otherwise. */
async function inside(probe: Probe, memory: Memory): Promise<Probe | null> {
  const wanted = probe.wants.flatMap((id) => memory.byId.get(id) ?? [])
  const equals: string[] = []
  for (const held of wanted) {
    for (const other of await sameFact(held, memory)) {
      if (probe.wants.includes(other.edit.id)) continue
      if (sameWords(other.edit.targetNew, held.edit.targetNew)) equals.push(other.edit.id)
      else if (other.seq > held.seq) return null
    }
  }
  return equals.length === 0 ? probe : { ...probe, equals }
}

async function sameFact({ edit }: Held, { bySubject, rivals, embedder }: Memory): Promise<readonly Held[]> {
  const had = rivals.get(edit.id)
  if (had !== undefined) return had
  const out: Held[] = []
  const asked = { text: edit.prompt, answers: edit.targetTrue === undefined ? [] : [edit.targetTrue] }
  for (const other of bySubject.get(words(edit.subject).join(' ')) ?? []) {
    if (other.edit.id !== edit.id && (await sameRelation(asked, other.edit, embedder))) out.push(other)
  }
  rivals.set(edit.id, out)
  return out
}

async function outside(probe: Probe, memory: Memory, records: ReadonlyMap<number, DataRecord>): Promise<Probe> {
  if (probe.kind !== 'locality' && probe.kind !== 'traffic') return probe
  const text = probe.turns.at(-1) ?? ''
  const own = probe.record === null ? [] : (records.get(probe.record)?.edits ?? [])
  const relations = new Set(OF_THE_RELATION.has(probe.sub) ? own.flatMap(memory.labels) : [])
  const found: Held[] = []
  for (const held of named(text, memory.bySubject)) {
    if (own.some(({ id }) => id === held.edit.id)) continue
    const labelled = memory.labels(held.edit).some((label) => relations.has(label))
    if (labelled || (await sameRelation({ text, answers: probe.answers }, held.edit, memory.embedder))) found.push(held)
  }
  const [latest, ...others] = found.sort((a, b) => b.seq - a.seq).map(({ edit }) => edit)
  if (latest === undefined) return probe
  const equals = others.filter(({ targetNew }) => sameWords(targetNew, latest.targetNew)).map(({ id }) => id)
  const { id, record, sub, turns } = probe
  const rival = latest.targetTrue === undefined ? {} : { rival: latest.targetTrue }
  return { id, record, sub, turns, kind: 'in_scope_neighbour', wants: [latest.id], equals, answers: [latest.targetNew], ...rival }
}

const sameWords = (one: string, other: string): boolean => words(one).join(' ') === words(other).join(' ')

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
function named(text: string, bySubject: ReadonlyMap<string, readonly Held[]>): readonly Held[] {
  const written = text.split(/\s+/).filter((word) => words(word).length > 0)
  const said = written.map((word) => words(word).join(' '))
  const taken = new Set<number>()
  const out: Held[] = []
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
 * Whether a text about the edit's subject asks what the edit states. Once the subject is masked, they have the same words; or a cosine of
 * SAME_WORDING with the name on the same side of every word they share ("who is X's father" is not "whose father is X"); or a cosine of
 * SAME_TRUTH and the same true answer.
 */
async function sameRelation(
  { text, answers }: { readonly text: string; readonly answers: readonly string[] },
  edit: Edit,
  embedder: Embedder,
): Promise<boolean> {
  const asked = maskSubject(text, edit.subject)
  const wordings = [edit.prompt, ...edit.paraphrases].map((wording) => maskSubject(wording, edit.subject))
  if (wordings.some((wording) => sameWords(wording, asked))) return true
  const sameTruth = answers.some((answer) => sameWords(answer, edit.targetTrue ?? ''))
  const [vector, ...stated] = await embedder.embed([asked, ...wordings], 'query')
  return wordings.some((wording, i) => {
    const cosine = product(vector, stated[i])
    return sameTruth ? cosine >= SAME_TRUTH : cosine >= SAME_WORDING && sameSide(asked, wording)
  })
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
