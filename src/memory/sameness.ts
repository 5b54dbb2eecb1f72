/**
 * Whether two edits state the same (subject, relation) in other words: closeness of their relations' vectors, unless something in the
 * wording speaks against it. Built to be sure rather than to find all, for a pair taken for the same hides the earlier edit: thresholds
 * and figures are measured by `npm run bench:sameness` (docs/LOG.md). Pure; vectors are given.
 */
import { type Edit, maskSubject } from '../edit/edit.ts'
import { canonicalRelation, relationKey, SUBJECT } from '../edit/relation.ts'
import { words } from '../edit/words.ts'
import { contrast, meaning } from './contrasts.ts'

/** Least cosine of two masked wordings of one relation, by all-MiniLM-L6-v2. */
const SAME_COSINE = 0.7
/** The same where one wording is the other with another word or two: what they share makes any two of those close. */
const SAME_FRAME_COSINE = 0.9
/** The same where one question clearly asks for both edits: that alone says that they answer the same. */
const ASKED_TOGETHER_COSINE = 0.5
/** Wordings of an edit that are compared: its prompt and its first paraphrases. */
const WORDINGS = 3
/** Words that two wordings of one frame differ in, at most. */
const FRAME_WORDS = 3

/** Vectors of texts by the text; one that is missing is near to nothing. */
export type Vectors = ReadonlyMap<string, Float32Array>

const nameKey = (name: string): string => words(name).join(' ')

/** The names of an edit's subject, as compared; the subject first. */
export function namesOf({ subject, aliases }: Pick<Edit, 'subject' | 'aliases'>): string[] {
  return [subject, ...aliases].map(nameKey)
}

/** One is about what the other calls its subject, in its subject or an alias. An alias in common is not enough: "Paris" is two cities'. */
export function sameSubject(a: readonly string[], b: readonly string[]): boolean {
  return (a[0] !== undefined && b.includes(a[0])) || (b[0] !== undefined && a.includes(b[0]))
}

export function sameTarget(a: Edit, b: Edit): boolean {
  return nameKey(a.targetNew) === nameKey(b.targetNew)
}

interface Wording {
  /** Canonical, the subject as `SUBJECT`; and its words. */
  readonly said: string
  readonly words: readonly string[]
  /** What is embedded: as written, the subject masked. */
  readonly text: string
}

/** Worked out once an edit: a turn may compare each with many. */
interface Reading {
  readonly key: string
  readonly wordings: readonly Wording[]
}
const names = new WeakMap<Edit, readonly string[]>()
const readings = new WeakMap<Edit, Reading>()

function reading(edit: Edit): Reading {
  const known = readings.get(edit)
  if (known !== undefined) return known
  const read = { key: relationKey(edit), wordings: wordingsOf(edit) }
  readings.set(edit, read)
  return read
}

function wordingsOf(edit: Edit): Wording[] {
  return [edit.prompt, ...edit.paraphrases].slice(0, WORDINGS).map((text) => {
    const name = [edit.subject, ...edit.aliases].find((n) => maskSubject(text, n) !== text) ?? edit.subject
    const said = canonicalRelation(text, edit)
    return { said, words: said.split(' '), text: maskSubject(text, name).trim() }
  })
}

/** The texts whose vectors `sameRelation` looks up for an edit. */
export function relationTextsOf(edit: Edit): string[] {
  return reading(edit).wordings.map(({ text }) => text)
}

/** Whether labels or equal words decide; undefined where only vectors can. Two labels decide always: the user knows best. */
export function plainlySameRelation(a: Edit, b: Edit): boolean | undefined {
  if (reading(a).key === reading(b).key) return true
  return a.relation !== undefined && b.relation !== undefined ? false : undefined
}

/** Whether the edits, of one subject, ask the same of it; `together`: one question clearly asks for both. */
export function sameRelation(a: Edit, b: Edit, vectors: Vectors, together = false): boolean {
  const plain = plainlySameRelation(a, b)
  if (plain !== undefined) return plain
  const least = together ? ASKED_TOGETHER_COSINE : SAME_COSINE
  return reading(a).wordings.some((one) => reading(b).wordings.some((other) => sameWording(one, other, vectors, least)))
}

function sameWording(a: Wording, b: Wording, vectors: Vectors, least: number): boolean {
  if (a.said === b.said) return true
  const [va, vb] = [vectors.get(a.text), vectors.get(b.text)]
  if (va === undefined || vb === undefined) return false
  return cosine(va, vb) >= (sameFrame(a.words, b.words) ? SAME_FRAME_COSINE : least) && !opposed(a.words, b.words)
}

function cosine(a: Float32Array, b: Float32Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += (a[i] ?? 0) * (b[i] ?? 0)
  return sum
}

/** Where two wordings differ, when they are one sentence with a few words replaced or added in one place; undefined when they are not. */
function difference(a: readonly string[], b: readonly string[]): [readonly string[], readonly string[]] | undefined {
  const shorter = Math.min(a.length, b.length)
  let start = 0
  while (start < shorter && a[start] === b[start]) start++
  let end = 0
  while (end < shorter - start && a.at(-1 - end) === b.at(-1 - end)) end++
  const [restA, restB] = [a.slice(start, a.length - end), b.slice(start, b.length - end)]
  return start + end > 0 && Math.max(restA.length, restB.length) <= FRAME_WORDS ? [restA, restB] : undefined
}

function meanings(text: readonly string[]): string {
  return [...new Set(text.map(meaning))]
    .filter((said) => said !== '')
    .toSorted()
    .join(' ')
}

/** Whether one is the other with a word of another meaning. */
export function sameFrame(a: readonly string[], b: readonly string[]): boolean {
  const rests = difference(a, b)
  return rests !== undefined && meanings(rests[0]) !== meanings(rests[1])
}

/** Whether the wordings rule out that two relations are the same, however close. */
export function opposed(a: readonly string[], b: readonly string[]): boolean {
  if (contrast(a, b) || turnsOnPreposition(a, b)) return true
  const [textA, textB] = [a.join(' '), b.join(' ')]
  const [endA, endB] = [openEnd(textA), openEnd(textB)]
  if (endA !== undefined && endB !== undefined && endA !== endB) return true
  return inverse(textA, textB) || inverse(textB, textA) || turned(textA, textB) || turned(textB, textA)
}

const PREPOSITIONS: ReadonlyMap<string, string> = new Map(
  ['by', 'to', 'from', 'for', 'as', 'with', 'about', 'against', 'in', 'at in', 'on in', 'within in'].map((line) => {
    const [word = '', meaning = word] = line.split(' ')
    return [word, meaning]
  }),
)

/** "X is paid by" and "X is paid to": one sentence but for a preposition. */
function turnsOnPreposition(a: readonly string[], b: readonly string[]): boolean {
  const rests = difference(a, b)
  if (rests === undefined || meanings(rests[0]) !== meanings(rests[1])) return false
  const [inA = [], inB = []] = rests.map((rest) => rest.flatMap((word) => PREPOSITIONS.get(word) ?? []))
  return inA.length > 0 && inB.length > 0 && !inA.some((word) => inB.includes(word))
}

/** What a statement's open end takes: an agent, a place or time, a role. ("At" may be either of the first two: "works at".) */
function openEnd(text: string): 'agent' | 'place' | 'role' | undefined {
  if (/ (?:by|for)(?: whom| who| what| which)?$/.test(text) || /^by (?:whom|what|which|who) /.test(text)) return 'agent'
  if (/ (?:in|on|within)$/.test(text)) return 'place'
  return / as$/.test(text) ? 'role' : undefined
}

const HAS_NOUN = new RegExp(`^(?:.* )?(\\S+) of ${SUBJECT}$`)
const IS_NOUN = new RegExp(
  `^${SUBJECT} (?:(?:is|was|became|remains) )?(?:the|a|an) (?:\\S+ )*?(\\S+) (?:of|for|to)\\b(?! ${SUBJECT})`,
)
/** Nouns of which "A is B's" says that B is A's. */
const MUTUAL = new Set(
  'spouse husband wife partner sibling brother sister twin cousin friend neighbour neighbor rival city'.split(' '),
)

/** "The father of X is" and "X is the father of". */
function inverse(a: string, b: string): boolean {
  const noun = HAS_NOUN.exec(a)?.[1]
  return noun !== undefined && noun === IS_NOUN.exec(b)?.[1] && !MUTUAL.has(noun)
}

const DONE_TO = / by$/
const DOES = new RegExp(`^(?:${SUBJECT} \\S+|(?:what|who|whom) (?:does|did) ${SUBJECT} \\S+)$`)

/** "X is followed by" and "X follows": it is done to the subject, or the subject does it. */
function turned(a: string, b: string): boolean {
  return DONE_TO.test(a) && DOES.test(b)
}

/** An edit with its place in the log: the larger `seq` landed later. */
export interface Dated {
  readonly edit: Edit
  readonly seq: number
}

/** Pairs (earlier, later) that would contradict each other if their relations were the same, those that labels rule out left aside. */
export function rivalPairs(held: readonly Dated[]): [earlier: Dated, later: Dated][] {
  const sorted = held.map((dated) => ({ dated, names: knownNames(dated.edit) })).sort((a, b) => a.dated.seq - b.dated.seq)
  const out: [Dated, Dated][] = []
  const met = new Set<string>()
  for (const [i, later] of sorted.entries()) {
    // Two of one subject have a name in common; most candidates have none with any other.
    const alone = !later.names.some((name) => met.has(name))
    for (const name of later.names) met.add(name)
    if (alone) continue
    for (const earlier of sorted.slice(0, i)) {
      const [a, b] = [earlier.dated.edit, later.dated.edit]
      if (!sameSubject(earlier.names, later.names) || sameTarget(a, b) || plainlySameRelation(a, b) === false) continue
      out.push([earlier.dated, later.dated])
    }
  }
  return out
}

function knownNames(edit: Edit): readonly string[] {
  const known = names.get(edit) ?? namesOf(edit)
  names.set(edit, known)
  return known
}

/**
 * The edits that a later one of the same (subject, relation) and another target makes untrue, with the id of the latest that follows from
 * it. `asked`: the edits that one question clearly asks for.
 */
export function outdated(
  pairs: readonly (readonly [earlier: Dated, later: Dated])[],
  vectors: Vectors,
  asked: ReadonlySet<string> = new Set(),
): Map<string, string> {
  const next = new Map<string, string>()
  const together = (one: Dated, other: Dated) => asked.has(one.edit.id) && asked.has(other.edit.id)
  for (const [earlier, later] of pairs)
    if (sameRelation(earlier.edit, later.edit, vectors, together(earlier, later))) next.set(earlier.edit.id, later.edit.id)
  // From earlier to later only, so that this ends.
  const last = (id: string): string => {
    const after = next.get(id)
    return after === undefined ? id : last(after)
  }
  return new Map([...next.keys()].map((id) => [id, last(id)]))
}
