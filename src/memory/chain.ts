import type { Edit } from '../edit/edit.ts'
import type { SelectionQuery } from '../request.ts'
import type { Considered } from '../trace.ts'
import { type Calibration, gate } from './gate.ts'
import { type HopSource, nearness, placeOf, type Reading, read, relationOf } from './reading.ts'

/** Edits in a row, the first included. */
export const CHAIN_HOPS = 4
/** Readings of a question that are put to the gate, per hop: the likeliest ones. */
const GATED_READINGS = 3
/** How much worse than the whole question the described part may ask for the edit that stands for it. */
const SLACK = 0.05

export interface Link {
  readonly edit: Edit
  readonly score: number
  readonly hop: number
}

/** What was found behind one edit of the first hop. */
export interface Chain {
  /** Edits of the second and later hops, in order. */
  readonly links: readonly Link[]
  /** The same and those refused, with their reasons. */
  readonly considered: readonly Considered[]
  /** The question with what is known in the place of its descriptions; null where nothing was replaced. */
  readonly asked: string | null
}

export const NO_CHAIN: Chain = { links: [], considered: [], asked: null }

/** Chains behind all edits that apply to a question. `asked` is where the longest one leads. */
export async function chains(
  query: SelectionQuery,
  question: string,
  applying: readonly { readonly edit: Edit; readonly score: number }[],
  source: HopSource,
  calibration: Calibration,
): Promise<Chain> {
  let all = NO_CHAIN
  for (const { edit, score } of applying)
    all = joined(all, await chain(query, question, { edit, score, hop: 1 }, source, calibration), applying)
  return all
}

/** Two chains of one question together, each edit once, those of `applying` left out; the longer one says what is asked. */
export function joined(a: Chain, b: Chain, applying: readonly { readonly edit: Edit }[]): Chain {
  const known = new Set([...applying, ...a.links].map(({ edit }) => edit.id))
  return {
    links: [...a.links, ...b.links.filter(({ edit }) => !known.has(edit.id))],
    considered: [...a.considered, ...b.considered.filter(({ id }) => !known.has(id) && !a.considered.some((c) => c.id === id))],
    asked: b.asked !== null && (a.asked === null || b.links.length > a.links.length) ? b.asked : a.asked,
  }
}

/**
 * Follows a selected edit into the edits about its target, as far as the question asks for them. "Who leads the country where X was
 * born?" with an edit "X was born in Y" is read as "Who leads Y?", and that question goes through retrieval and gate like any other.
 * A reading counts only if the part replaced asks for the first edit about as clearly as the whole question does, and what is left
 * asks for the second rather than the first: so "Where was X born?" leaves nothing to follow.
 */
export async function chain(
  query: SelectionQuery,
  question: string,
  first: Link,
  source: HopSource,
  calibration: Calibration,
): Promise<Chain> {
  const links: Link[] = []
  const considered: Considered[] = []
  let place = placeOf(question, first.edit)
  let last = first
  let asked: string | null = null
  while (place !== null && last.hop < CHAIN_HOPS) {
    const { edit, score, hop } = last
    const used = new Set([first.edit.id, ...links.map((l) => l.edit.id)])
    const next = source.about(query, edit.targetNew).filter((e) => !used.has(e.id))
    const readings = await read(place, edit, source)
    const found = await follow(query, readings, next, source, calibration)
    const reading = found?.reading ?? plainest(readings)
    asked = reading?.asked ?? asked
    if (found === null) break
    for (const c of found.considered) considered.push({ ...c, score: c.score * score, hop: hop + 1, via: edit.id })
    last = { edit: found.edit, score: found.score * score, hop: hop + 1 }
    links.push(last)
    place = { text: found.reading.asked, name: found.reading.name }
  }
  return { links, considered, asked }
}

interface Followed {
  readonly reading: Reading
  readonly edit: Edit
  readonly score: number
  readonly considered: readonly Considered[]
}

/** The reading under which the gate is surest of one of `next`; null when it takes none. */
async function follow(
  query: SelectionQuery,
  readings: readonly Reading[],
  next: readonly Edit[],
  source: HopSource,
  calibration: Calibration,
): Promise<Followed | null> {
  if (next.length === 0) return null
  const relations = await Promise.all(next.map((edit) => relationOf(edit, source)))
  const ranked = readings
    .map((reading) => ({ reading, gain: Math.max(...relations.map((r) => nearness(reading.outer, r))) - reading.rest }))
    .filter(({ reading, gain }) => gain > 0 && reading.inner >= reading.whole - (reading.loose ? 0 : SLACK))
    .sort((a, b) => b.gain + b.reading.inner - (a.gain + a.reading.inner))
    .slice(0, GATED_READINGS)
  const about = new Map(next.map((edit) => [edit.id, edit]))
  let best: Followed | null = null
  for (const { reading } of ranked) {
    const asking = { ...query, messages: [{ role: 'user' as const, content: reading.asked }] }
    const { candidates } = await source.candidates(asking, 0)
    const considered = onlyFirst(gate(candidates, calibration).filter((c) => about.has(c.id)))
    const [taken] = considered
    if (taken?.reason !== 'selected' || taken.score <= (best?.score ?? 0)) continue
    best = { reading, edit: about.get(taken.id) as Edit, score: taken.score, considered }
  }
  return best
}

/** A hop adds one edit: the question asks one thing of what it describes. */
function onlyFirst(considered: readonly Considered[]): Considered[] {
  return considered.map((c, i) => (i > 0 && c.reason === 'selected' ? { ...c, reason: 'outranked' } : c))
}

/** Where the next hop is left to the model: the reading whose described part asks for the edit most clearly, and the rest least. */
function plainest(readings: readonly Reading[]): Reading | null {
  const clear = readings.filter((r) => !r.loose && r.inner >= r.whole && r.inner > r.rest)
  return clear.sort((a, b) => b.inner - b.rest - (a.inner - a.rest))[0] ?? null
}
