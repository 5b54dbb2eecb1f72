import type { Edit } from '../edit/edit.ts'
import { words } from '../edit/words.ts'
import type { Span, Token } from './tokens.ts'

/** How a text names a subject: in full, by an alias, in full but misspelt, by some of its words ("Ancelotti"), or by a name alike. */
export type NameKind = 'exact' | 'alias' | 'misspelt' | 'partial' | 'alike'

export interface NameMatch extends Span {
  readonly editId: string
  readonly kind: NameKind
  /** Share of the name's weight (rarer words weigh more) that the text has; 1 for exact and alias; for one alike, its likeness. */
  readonly coverage: number
  /** Words of the name that matched. */
  readonly matchedWords: number
  /** Position of the first matched word in the token list, and how many tokens the match covers. */
  readonly firstToken: number
  readonly tokenCount: number
}

interface Name {
  readonly words: readonly string[]
  /** Its words that carry it, each once. */
  readonly telling: readonly string[]
  readonly kind: 'exact' | 'alias'
  readonly edits: Set<string>
}

/** Longer names are indexed by their first words only; a title of 24 words is unmistakable by then. */
const NAME_WORDS = 24
/** A word this short has too many neighbours at one edit's distance. */
const MISSPELT_WORD_CHARS = 5
/** Partial and misspelt matches looked at per text. */
const LOOSE_MATCHES = 64
/** A word that more names than this share identifies none of them. */
const COMMON_WORD_NAMES = 50

/** Words that carry no name by themselves. */
const FUNCTION_WORDS = new Set(
  'the a an of and or in on at to for by with from de la le el der die das von van da di du los las i s is as it'.split(' '),
)

/** Every string with one character of `word` left out: two words within one edit share one of these or each other (Garbe's symmetric delete). */
function deletions(word: string): string[] {
  const out: string[] = []
  for (let i = 0; i < word.length; i++) out.push(word.slice(0, i) + word.slice(i + 1))
  return out
}

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
export class SubjectIndex {
  readonly #names = new Map<string, Name>()
  readonly #byWord = new Map<string, Name[]>()
  readonly #byDeletion = new Map<string, Set<string>>()
  readonly #namesOf = new Map<string, string[]>()
  /** Words of the longest name that begins with a word. */
  readonly #longest = new Map<string, number>()

  add(edit: Edit): void {
    if (this.#namesOf.has(edit.id)) this.remove(edit.id)
    const keys: string[] = []
    const names: [string, 'exact' | 'alias'][] = [
      [edit.subject, 'exact'],
      ...edit.aliases.map((a): [string, 'alias'] => [a, 'alias']),
    ]
    for (const [text, kind] of names) {
      const parts = words(text).slice(0, NAME_WORDS)
      if (parts.length === 0) continue
      const key = `${kind}:${parts.join(' ')}`
      const name = this.#names.get(key) ?? this.#addName(key, parts, kind)
      name.edits.add(edit.id)
      keys.push(key)
    }
    this.#namesOf.set(edit.id, keys)
  }

  remove(editId: string): void {
    for (const key of this.#namesOf.get(editId) ?? []) {
      const name = this.#names.get(key)
      name?.edits.delete(editId)
    }
    this.#namesOf.delete(editId)
  }

  #addName(key: string, parts: readonly string[], kind: 'exact' | 'alias'): Name {
    const telling = [...new Set(parts)].filter((word) => !FUNCTION_WORDS.has(word))
    const name: Name = { words: parts, telling, kind, edits: new Set() }
    this.#names.set(key, name)
    const first = parts[0] ?? ''
    this.#longest.set(first, Math.max(this.#longest.get(first) ?? 0, parts.length))
    for (const word of telling) {
      const holders = this.#byWord.get(word)
      if (holders !== undefined) holders.push(name)
      else {
        this.#byWord.set(word, [name])
        if (word.length >= MISSPELT_WORD_CHARS) for (const d of deletions(word)) add(this.#byDeletion, d, word)
      }
    }
    return name
  }

  /** All names that occur in `text` (given as tokens), whole names first. One edit appears once per place and kind. */
  find(text: readonly Token[]): NameMatch[] {
    const whole = this.#wholeNames(text)
    return [...whole, ...this.#looseNames(text, whole)]
  }

  #wholeNames(text: readonly Token[]): NameMatch[] {
    const out: NameMatch[] = []
    for (let first = 0; first < text.length; first++) {
      let joined = ''
      const longest = this.#longest.get(at(text, first).word) ?? 0
      for (let count = 1; count <= longest && first + count <= text.length; count++) {
        joined = count === 1 ? at(text, first).word : `${joined} ${at(text, first + count - 1).word}`
        for (const kind of ['exact', 'alias'] as const) {
          for (const editId of this.#names.get(`${kind}:${joined}`)?.edits ?? []) {
            out.push({ ...place(text, first, count), editId, kind, coverage: 1, matchedWords: count })
          }
        }
      }
    }
    return out
  }

  /** Names of which the text has only some words, or has them with a slip of the pen. */
  #looseNames(text: readonly Token[], whole: readonly NameMatch[]): NameMatch[] {
    const found = new Map<Name, { first: number; last: number; hits: Map<string, boolean> }>()
    for (let i = 0; i < text.length; i++) {
      for (const [word, same] of this.#wordsLike(at(text, i).word)) {
        for (const name of this.#byWord.get(word) ?? []) {
          if (name.edits.size === 0) continue
          const seen = found.get(name)
          // A name's words stand together: start anew when the gap is longer than the name itself.
          if (seen === undefined || i - seen.last > name.words.length)
            found.set(name, { first: i, last: i, hits: new Map([[word, same]]) })
          else {
            seen.last = i
            seen.hits.set(word, same || (seen.hits.get(word) ?? false))
          }
        }
      }
    }
    const wholeEdits = new Set(whole.map((m) => m.editId))
    const out: NameMatch[] = []
    const weights = new Map<string, number>()
    for (const [name, { first, last, hits }] of found) {
      const coverage = this.#coverage(name, hits, weights)
      if (coverage < 0.3) continue
      const kind: NameKind = hits.size >= name.words.filter((w) => !FUNCTION_WORDS.has(w)).length ? 'misspelt' : 'partial'
      for (const editId of name.edits) {
        if (wholeEdits.has(editId)) continue
        out.push({ ...place(text, first, last - first + 1), editId, kind, coverage, matchedWords: hits.size })
      }
    }
    return out.sort((a, b) => b.coverage - a.coverage).slice(0, LOOSE_MATCHES)
  }

  /** Indexed words equal to `word`, or within one edit of it when none is equal; the flag says which. */
  *#wordsLike(word: string): Generator<[string, boolean]> {
    const holders = this.#byWord.get(word)
    if (holders !== undefined) {
      if (holders.length <= COMMON_WORD_NAMES) yield [word, true]
      return
    }
    if (word.length < MISSPELT_WORD_CHARS) return
    const near = new Set<string>(this.#byDeletion.get(word) ?? [])
    for (const d of deletions(word)) {
      if (this.#byWord.has(d)) near.add(d)
      for (const w of this.#byDeletion.get(d) ?? []) near.add(w)
    }
    for (const candidate of near) {
      if (withinOneEdit(word, candidate) && (this.#byWord.get(candidate)?.length ?? 0) <= COMMON_WORD_NAMES)
        yield [candidate, false]
    }
  }

  /** Weight of the matched words over the weight of all, a word weighing the log of how few names have it; a misspelt one counts 0.9. */
  #coverage({ telling }: Name, hits: ReadonlyMap<string, boolean>, weights: Map<string, number>): number {
    let total = 0
    let matched = 0
    for (const word of telling) {
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

function add(map: Map<string, Set<string>>, key: string, value: string): void {
  const set = map.get(key)
  if (set === undefined) map.set(key, new Set([value]))
  else set.add(value)
}

function at(text: readonly Token[], index: number): Token {
  const token = text[index]
  if (token === undefined) throw new RangeError(`token ${index} of ${text.length}`)
  return token
}

function place(text: readonly Token[], first: number, count: number): Span & { firstToken: number; tokenCount: number } {
  return { start: at(text, first).start, end: at(text, first + count - 1).end, firstToken: first, tokenCount: count }
}
