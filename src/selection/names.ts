import type { Edit } from '../edit/edit.ts'
import { type Token, tokens, words } from '../edit/words.ts'

/** How a text names a subject: in full, by an alias, in full but misspelt, or by some of its words ("Ancelotti"). */
export type NameKind = 'exact' | 'alias' | 'misspelt' | 'partial'

export interface NameMatch {
  readonly editId: string
  readonly kind: NameKind
  /** Share of the name's weight (rarer words weigh more) that the text has; 1 for exact and alias. */
  readonly coverage: number
  /** Offsets into the text. */
  readonly start: number
  readonly end: number
}

type Called = Pick<NameMatch, 'editId' | 'kind'>

interface Name {
  readonly words: readonly string[]
  readonly kind: 'exact' | 'alias'
  /** "US", "IT", "C": the text must write it in capitals, too. */
  readonly capitals: boolean
  readonly edits: Set<string>
}

/** Longer names are indexed by their first words only; a title of 24 words is unmistakable by then. */
const NAME_WORDS = 24
/** A word this short has too many neighbours at one edit's distance. */
const MISSPELT_WORD_CHARS = 5
/** A longer one has too many: its deletions would be quadratic. */
const MISSPELT_LONGEST_CHARS = 32
/** Partial and misspelt matches looked at per text, and the least share of a name. */
const LOOSE_MATCHES = 64
const LEAST_COVERAGE = 0.45
/** The same where another's whole name has those words. */
const LEAST_SHARED = 0.25
/** A word that more names than this share identifies none of them. */
const COMMON_WORD_NAMES = 50
/** Words that may be meant by a misspelt one, and names that have them, looked at for it: more identify none. */
const NEAR_WORDS = 256
const NEAR_NAMES = 200
/** Edits offered for one name. */
const NAMESAKES = 64
/** A word of one letter, of any script, stands for no longer name. */
const LOOSE_WORD_CHARS = 2

/** Every string with one character of `word` left out: two words within one edit share one of these or each other (Garbe's symmetric delete). */
function deletions(word: string): Set<string> {
  const out = new Set<string>()
  for (let i = 0; i < word.length; i++) out.add(word.slice(0, i) + word.slice(i + 1))
  return out
}

const spellable = (word: string) => word.length >= MISSPELT_WORD_CHARS && word.length <= MISSPELT_LONGEST_CHARS

/** True within Damerau–Levenshtein distance 1: one letter more, less, other, or two neighbours swapped. */
export function withinOneEdit(a: string, b: string): boolean {
  if (a === b) return true
  if (Math.abs(a.length - b.length) > 1) return false
  let start = 0
  while (start < a.length && a[start] === b[start]) start++
  let endA = a.length
  let endB = b.length
  while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) {
    endA--
    endB--
  }
  if (endA - start <= 1 && endB - start <= 1) return true
  return endA - start === 2 && endB - start === 2 && a[start] === b[start + 1] && a[start + 1] === b[start]
}

/** Names of one tenant's subjects, for finding them in text. Holds every edit ever landed; who is live is the caller's question. */
export class NameIndex {
  readonly #names = new Map<string, Name>()
  readonly #byWord = new Map<string, Name[]>()
  readonly #byDeletion = new Map<string, string[]>()
  /** Names by their words without signs. */
  readonly #byBare = new Map<string, Name[]>()
  readonly #namesOf = new Map<string, Name[]>()
  /** Words of the longest name that begins with a word. */
  readonly #longest = new Map<string, number>()

  /** Edits ever added. */
  get edits(): number {
    return this.#namesOf.size
  }

  has(editId: string): boolean {
    return this.#namesOf.has(editId)
  }

  add(edit: Edit): void {
    for (const name of this.#namesOf.get(edit.id) ?? []) name.edits.delete(edit.id)
    const named = [edit.subject, ...edit.aliases].map((text, i) => this.#name(text, i === 0 ? 'exact' : 'alias'))
    // A copy has room for just what it holds, a filtered list for seventeen.
    const own = named.filter((name) => name !== undefined).slice()
    for (const name of own) name.edits.add(edit.id)
    this.#namesOf.set(edit.id, own)
  }

  #name(text: string, kind: Name['kind']): Name | undefined {
    const said = words(text).slice(0, NAME_WORDS)
    if (said.length === 0) return undefined
    // Signs tell a name as well as capitals do: "c++" is found.
    const capitals = said.length === 1 && /^\p{L}{1,3}$/u.test(said[0] ?? '') && tokens(text)[0]?.upper === true
    // Joined, it is one flat text; a template would keep its parts beside it, for every name.
    const key = [kind, capitals ? '^:' : ':', said.join(' ')].join('')
    const known = this.#names.get(key)
    if (known !== undefined) return known
    const name: Name = { words: said, kind, capitals, edits: new Set() }
    this.#names.set(key, name)
    append(this.#byBare, bare(said), name)
    const first = said[0] ?? ''
    this.#longest.set(first, Math.max(this.#longest.get(first) ?? 0, said.length))
    for (const word of new Set(said)) {
      if (!this.#byWord.has(word) && spellable(word)) for (const d of deletions(word)) append(this.#byDeletion, d, word)
      append(this.#byWord, word, name)
    }
    return name
  }

  /**
   * The names of eligible edits in `text`, whole names first; each edit once a place. A whole name pushes out loose ones on the same words, and
   * a longer whole name a shorter one inside it. Edits that are not eligible push out nothing.
   */
  find(text: string, eligible: (editId: string) => boolean = () => true): NameMatch[] {
    return this.#named(text, eligible).named
  }

  outdone(text: string, eligible: (editId: string) => boolean = () => true): ReadonlySet<string> {
    return this.look(text, eligible).outdone
  }

  /**
   * What `find` finds, and `outdone`: eligible edits of whose name the text has some words only inside the whole name of another: "Mario Weber" where it says "Maria Weber"; and
   * those whose name differs from it by its signs: "C++" where it says "C".
   */
  look(text: string, eligible: (editId: string) => boolean): { named: NameMatch[]; outdone: ReadonlySet<string> } {
    const { read, whole, outside, named } = this.#named(text, eligible)
    const besides = new Set([...whole, ...outside].map((m) => m.editId))
    const inside = whole.length === 0 ? [] : this.#loose(read, whole, eligible, true, LEAST_SHARED).map((m) => m.editId)
    const written = new Set(whole.map((m) => bare(words(text.slice(m.start, m.end)))))
    const signed = [...written].flatMap((one) => this.#byBare.get(one) ?? [])
    const ids = [...inside, ...signed.flatMap((name) => [...name.edits].filter(eligible))]
    return { named, outdone: new Set(ids.filter((id) => !besides.has(id))) }
  }

  #named(text: string, eligible: (editId: string) => boolean) {
    const read = tokens(text)
    const whole = this.#whole(read, eligible)
    const outside = this.#loose(read, whole, eligible, false, 0)
    return { read, whole, outside, named: [...whole, ...outside.filter(({ coverage }) => coverage >= LEAST_COVERAGE)] }
  }

  #whole(text: readonly Token[], eligible: (editId: string) => boolean): NameMatch[] {
    const out: NameMatch[] = []
    const known = new Map<string, readonly Called[]>()
    let covered = -1
    for (let first = 0; first < text.length; first++) {
      const longest = Math.min(this.#longest.get(at(text, first).word) ?? 0, text.length - first)
      for (let count = longest; count >= 1; count--) {
        const end = at(text, first + count - 1).end
        if (end <= covered) break
        const found = this.#called(text.slice(first, first + count), eligible, known)
        if (found.length === 0) continue
        for (const { editId, kind } of found) out.push({ editId, kind, coverage: 1, start: at(text, first).start, end })
        covered = end
        break
      }
    }
    return out
  }

  /** `known`: what has been found in this text, which may name one subject a thousand times. */
  #called(
    own: readonly Token[],
    eligible: (editId: string) => boolean,
    known: Map<string, readonly Called[]>,
  ): readonly Called[] {
    const key = own.map(({ word }) => word).join(' ')
    const capital = `${own[0]?.upper ? '^' : ''}${key}`
    const found = known.get(capital) ?? this.#calledBy(key, own[0]?.upper === true, eligible)
    known.set(capital, found)
    return found
  }

  #calledBy(key: string, upper: boolean, eligible: (editId: string) => boolean): Called[] {
    const out: Called[] = []
    for (const kind of ['exact', 'alias'] as const) {
      const names = [this.#names.get(`${kind}:${key}`), upper ? this.#names.get(`${kind}^:${key}`) : undefined]
      for (const name of names)
        for (const editId of name?.edits ?? []) {
          if (out.length === NAMESAKES) return out
          if (eligible(editId) && !out.some((m) => m.editId === editId)) out.push({ editId, kind })
        }
    }
    return out
  }

  /** Names of which the text has only some words, or has them with a slip of the pen, outside of whole names or `inside` them. */
  #loose(
    text: readonly Token[],
    whole: readonly NameMatch[],
    eligible: (editId: string) => boolean,
    inside: boolean,
    least: number,
  ): NameMatch[] {
    const found = this.#touched(text, whole, inside)
    const named = new Set(whole.map((m) => m.editId))
    const out: NameMatch[] = []
    const weights = new Map<string, number>()
    for (const [name, { first, last, hits }] of found) {
      const coverage = this.#coverage(name, hits, weights)
      if (coverage < least) continue
      const kind: NameKind = hits.size >= new Set(name.words).size ? 'misspelt' : 'partial'
      for (const editId of name.edits) {
        if (named.has(editId) || !eligible(editId)) continue
        out.push({ editId, kind, coverage, start: at(text, first).start, end: at(text, last).end })
      }
    }
    return out.sort((a, b) => b.coverage - a.coverage).slice(0, LOOSE_MATCHES)
  }

  /** Names that share words with the text, outside of whole names or `inside` them, and where. */
  #touched(text: readonly Token[], whole: readonly NameMatch[], inside: boolean): Map<Name, Touched> {
    const found = new Map<Name, Touched>()
    let passed = 0
    for (const [i, { word: written, start, end }] of text.entries()) {
      while ((whole[passed]?.end ?? end) <= start) passed++
      if (written.length < LOOSE_WORD_CHARS || (whole[passed]?.start ?? end) < end !== inside) continue
      for (const [word, same] of this.#wordsLike(written))
        for (const name of this.#byWord.get(word) ?? [])
          if (name.edits.size > 0 && !name.capitals) found.set(name, touch(found.get(name), name, i, word, same))
    }
    return found
  }

  /** Indexed words equal to `word`, or within one edit of it when none is equal; the flag says which. */
  *#wordsLike(word: string): Generator<[string, boolean]> {
    const holders = this.#byWord.get(word)
    if (holders !== undefined) {
      if (holders.length <= COMMON_WORD_NAMES) yield [word, true]
      return
    }
    if (!spellable(word)) return
    const tried = new Set<string>()
    let names = 0
    for (const candidate of this.#near(word)) {
      if (tried.has(candidate)) continue
      if (tried.add(candidate).size > NEAR_WORDS || names > NEAR_NAMES) return
      const shared = this.#byWord.get(candidate)?.length ?? 0
      if (shared > COMMON_WORD_NAMES || !withinOneEdit(word, candidate)) continue
      names += shared
      yield [candidate, false]
    }
  }

  /** Indexed words that may be within one edit of `word`, some of them more than once. */
  *#near(word: string): Generator<string> {
    yield* this.#byDeletion.get(word) ?? []
    for (const d of deletions(word)) {
      if (this.#byWord.has(d)) yield d
      yield* this.#byDeletion.get(d) ?? []
    }
  }

  /** Weight of the matched words over the weight of all, a word weighing the log of how few names have it; a misspelt one counts 0.9. */
  #coverage({ words }: Name, hits: ReadonlyMap<string, boolean>, weights: Map<string, number>): number {
    let total = 0
    let matched = 0
    for (const word of new Set(words)) {
      let weight = weights.get(word)
      if (weight === undefined) {
        weight = Math.log(1 + this.#names.size / (this.#byWord.get(word)?.length ?? 1))
        weights.set(word, weight)
      }
      total += weight
      const hit = hits.get(word)
      if (hit !== undefined) matched += hit ? weight : 0.9 * weight
    }
    return total === 0 ? 0 : matched / total
  }
}

/** Where in a text the words of a name stand, by token, and whether each is written as it is. */
interface Touched {
  readonly first: number
  readonly last: number
  readonly hits: Map<string, boolean>
}

/** A name's words stand together: start anew when the gap is longer than the name itself. */
function touch(seen: Touched | undefined, { words }: Name, at: number, word: string, same: boolean): Touched {
  if (seen === undefined || at - seen.last > words.length) return { first: at, last: at, hits: new Map([[word, same]]) }
  seen.hits.set(word, same || (seen.hits.get(word) ?? false))
  return { ...seen, last: at }
}

const bare = (name: readonly string[]): string => name.map((word) => word.replace(/[^\p{L}\p{N}]/gu, '')).join(' ')

function append<Value>(map: Map<string, Value[]>, key: string, value: Value): void {
  const list = map.get(key)
  if (list === undefined) map.set(key, [value])
  else list.push(value)
}

function at(text: readonly Token[], index: number): Token {
  const token = text[index]
  if (token === undefined) throw new RangeError(`token ${index} of ${text.length}`)
  return token
}
