import type { Edit } from '../edit/edit.ts'
import type { Considered, Reason } from '../trace.ts'
import { asks } from './evidence.ts'
import { type HopSource, type Hops, nearness, placeOf, type Reading, read, relationOf, verdict } from './reading.ts'
import type { Candidate } from './retrieve.ts'

/** Edits in a row, the first included. */
export const CHAIN_HOPS = 4
/** Readings of a question that are put to the gate, per hop: the likeliest ones. */
const GATED_READINGS = 3
/** Parts of a question put to the gate by themselves, per reading. */
const GATED_PARTS = 2
/** Edits of the first hop looked at because a description may ask for them. */
const DESCRIBED_EDITS = 8
/** How far the two halves of a reading must come apart, in cosine: what is left nearer to the second edit, the described part to the first. */
const SPLIT = 0.15
/** The same for the first edit alone: how much less what is left must ask for it than the described part does. */
const APART = 0.1
/** A question this near to an edit asks for it and describes nothing. */
const PLAIN = 0.9
/**
 * Least probability of an edit that another one draws in: the question does not name its subject, so it has to be surer than one that is
 * named (measured in docs/LOG.md).
 */
const DRAWN_IN = 0.6

export interface Link {
  readonly edit: Edit
  readonly score: number
  readonly hop: number
}

/** What was found behind one edit of the first hop. */
export interface Chain {
  /** Edits that the question needs beyond those that apply to it as it is, in order. */
  readonly links: readonly Link[]
  /** The same and those refused, with their reasons. */
  readonly considered: readonly Considered[]
  /** The question with what is known in the place of its descriptions; null where nothing was replaced. */
  readonly asked: string | null
}

export const NO_CHAIN: Chain = { links: [], considered: [], asked: null }

/**
 * Chains behind all edits that apply to a question, and behind those that a description in it asks for although the question as a whole
 * does not. `considered` is the gate's verdict on `candidates`; `asked` is where the longest chain leads.
 */
export async function chains(
  question: string,
  candidates: readonly Candidate[],
  considered: readonly Considered[],
  hops: Hops,
): Promise<Chain> {
  const edits = new Map(candidates.map(({ edit }) => [edit.id, edit]))
  const those = (reason: Reason) =>
    considered.flatMap((c) =>
      c.reason === reason && edits.has(c.id) ? [{ edit: edits.get(c.id) as Edit, score: c.score, hop: 1 }] : [],
    )
  const applying = those('selected')
  const described = await describing(question, those('other_relation'), applying, hops)
  const found: Followed[] = []
  for (const root of [...applying, ...described.links]) found.push(await chain(question, root, hops))
  return joined([described, ...found.filter((one) => !found.some((other) => outdoes(other, one)))], applying)
}

/** A description by one name asks for one thing: the edit of that subject which it asks for most clearly leads on, and no other. */
function outdoes(other: Followed, one: Followed): boolean {
  return other.subject === one.subject && other.clarity > one.clarity
}

/** Edits that a description asks for where the question as a whole asks something else of their subject, and no other edit of it applies. */
async function describing(question: string, refused: readonly Link[], applying: readonly Link[], hops: Hops): Promise<Chain> {
  const links: Link[] = []
  const considered: Considered[] = []
  const open = refused.filter(({ edit }) => !applying.some((a) => a.edit.subject === edit.subject))
  for (const { edit } of open.slice(0, DESCRIBED_EDITS)) {
    const place = placeOf(question, edit)
    if (place === null || !asking(question, place.text)) continue
    const part = plainest(await read(place, edit, hops.source))?.part
    if (part === undefined) continue
    const [taken] = (await verdict(`What is ${part}?`, hops)).considered
    if (taken?.reason !== 'selected' || taken.id !== edit.id || taken.score < DRAWN_IN) continue
    links.push({ edit, score: taken.score, hop: 1 })
    considered.push(taken)
  }
  return { links, considered, asked: null }
}

/** Whether this sentence of a text asks something; what a text only tells describes nothing that is to be looked up. */
function asking(text: string, sentence: string): boolean {
  return asks({ sentence, followed: text.slice(text.indexOf(sentence) + sentence.length).trim() !== '' })
}

/** Chains of one question together, each edit once, those of `applying` left out; the longest says what is asked. */
export function joined(chains: readonly Chain[], applying: readonly { readonly edit: Edit }[]): Chain {
  const links = new Map<string, Link>()
  const considered = new Map<string, Considered>()
  for (const link of chains.flatMap((c) => c.links)) if (!links.has(link.edit.id)) links.set(link.edit.id, link)
  for (const one of chains.flatMap((c) => c.considered)) if (!considered.has(one.id)) considered.set(one.id, one)
  for (const { edit } of applying) for (const map of [links, considered]) map.delete(edit.id)
  const leading = chains.filter((c) => c.asked !== null).sort((a, b) => b.links.length - a.links.length)
  return { links: [...links.values()], considered: [...considered.values()], asked: leading[0]?.asked ?? null }
}

/**
 * Follows a selected edit into the edits about its target, as far as the question asks for them. "Who leads the country where X was
 * born?" with an edit "X was born in Y" is read as "Who leads Y?", and that question goes through retrieval and gate like any other.
 * A reading counts only if the part replaced asks for the first edit and what is left for something else (`clear`, `splits`; measured in
 * docs/LOG.md): "Where was X born?" leaves nothing to follow.
 */
export async function chain(question: string, first: Link, hops: Hops): Promise<Followed> {
  const links: Link[] = []
  const considered: Considered[] = []
  let place = placeOf(question, first.edit)
  let last = first
  let asked: string | null = null
  let clearly = Number.NEGATIVE_INFINITY
  while (place !== null && last.hop < CHAIN_HOPS) {
    const { edit, score, hop } = last
    const used = new Set([first.edit.id, ...links.map((l) => l.edit.id)])
    const next = hops.source.about(hops.query, edit.targetNew).filter((e) => !used.has(e.id))
    const readings = await read(place, edit, hops.source)
    const found = await follow(readings, next, hops)
    const reading = found?.reading ?? plainest(readings)
    if (reading !== null && last === first) clearly = clarity(reading)
    asked = reading?.asked ?? asked
    if (found === null) break
    for (const c of found.considered) considered.push({ ...c, score: c.score * score, hop: hop + 1, via: edit.id })
    last = { edit: found.edit, score: found.score * score, hop: hop + 1 }
    links.push(last)
    place = { text: found.reading.asked, name: found.reading.name }
  }
  return { links, considered, asked, subject: first.edit.subject, clarity: clearly }
}

/** A chain, and how clearly a description asks for the edit that it begins with; nothing describes by its subject: minus infinity. */
export interface Followed extends Chain {
  readonly subject: string
  readonly clarity: number
}

interface Step {
  readonly reading: Reading
  readonly edit: Edit
  readonly score: number
  readonly considered: readonly Considered[]
}

/**
 * The innermost reading under which the gate takes one of `next`: for what is left of the question, or else for a part of that which
 * describes in its turn.
 */
async function follow(readings: readonly Reading[], next: readonly Edit[], hops: Hops): Promise<Step | null> {
  if (next.length === 0) return null
  for (const reading of await likely(readings, next, hops.source)) {
    for (const text of [reading.asked, ...(await parts(reading, next, hops.source))]) {
      const about = (await verdict(text, hops)).considered.filter((c) => next.some((edit) => edit.id === c.id))
      const considered = onlyFirst(about)
      const edit = next.find(({ id }) => id === considered[0]?.id)
      const [best] = considered
      if (edit !== undefined && best?.reason === 'selected' && best.score >= DRAWN_IN)
        return { reading, edit, score: best.score, considered }
    }
  }
  return null
}

/** Readings by which the described part asks for the edit that stands for it, and what is left for one of `next` or for something else. */
async function likely(readings: readonly Reading[], next: readonly Edit[], source: HopSource): Promise<Reading[]> {
  const relations = await Promise.all(next.map((edit) => relationOf(edit, source)))
  const gain = ({ outer, rest }: Reading) => Math.max(...relations.map((r) => nearness(outer, r))) - rest
  return readings.filter((reading) => clear(reading) || splits(reading, gain(reading))).slice(0, GATED_READINGS)
}

/** What is left asks for a second edit, `gain` nearer to it than to the first, by more than the part loses against the whole question. */
function splits({ inner, whole }: Reading, gain: number): boolean {
  return gain > 0 && gain + inner - whole > SPLIT && whole < PLAIN
}

/** Parts of what is left of a question that describe by the name just put in, and ask for one of `next`; as questions. */
async function parts(reading: Reading, next: readonly Edit[], source: HopSource): Promise<string[]> {
  const place = { text: reading.asked, name: reading.name }
  const all = (await Promise.all(next.map((edit) => read(place, edit, source)))).flat().filter(clear)
  const best = all.sort((a, b) => clarity(b) - clarity(a)).map(({ part }) => `What is ${part}?`)
  return [...new Set(best)].slice(0, GATED_PARTS)
}

/** A hop adds one edit: the question asks one thing of what it describes. */
function onlyFirst(considered: readonly Considered[]): Considered[] {
  return considered.map((c, i) => (i > 0 && c.reason === 'selected' ? { ...c, reason: 'outranked' } : c))
}

/** Where the next hop is left to the model: the reading whose described part asks for the edit most clearly, and the rest of it least. */
function plainest(readings: readonly Reading[]): Reading | null {
  return readings.filter(clear).sort((a, b) => clarity(b) - clarity(a))[0] ?? null
}

/** The part asks for the edit no less clearly than the whole question, and what is left hardly does. */
function clear({ inner, whole, rest }: Reading): boolean {
  return inner >= whole && inner > rest + APART && whole < PLAIN
}

function clarity({ inner, rest }: Reading): number {
  return 2 * inner - rest
}
