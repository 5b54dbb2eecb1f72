import { LRUCache } from 'lru-cache'
import { words } from '../edit/words.ts'
import { withinOneEdit } from './subject-index.ts'
import type { Span, Token } from './tokens.ts'

/** A stretch of text written like a name: capitalised words, with the small words that names hold inside. */
export interface Mention extends Span {
  readonly firstToken: number
  readonly tokenCount: number
  readonly words: readonly string[]
}

const PARTICLES = new Set('of the de del della di da la le el al von van der den ter bin ibn and & y i'.split(' '))
/** Longest run taken for one name. */
const MENTION_WORDS = 12
/** Runs looked at in one text. */
const MENTIONS = 16

/** Subjects whose words are kept: each is compared with every mention in a text. */
const KNOWN_SUBJECTS = 1_024
const known = new LRUCache<string, readonly string[]>({ max: KNOWN_SUBJECTS })

function tellingWords(subject: string): readonly string[] {
  const told = known.get(subject) ?? words(subject).filter((w) => !PARTICLES.has(w))
  known.set(subject, told)
  return told
}

/** Everyday forms of English first names, each row one name. Only forms that a prefix does not show already. */
const NICKNAMES: ReadonlyMap<string, number> = new Map(
  `robert bob rob bobby | william bill will billy | richard dick rick | michael mike mick | james jim jimmy | john jack johnny
  edward ted ed eddie ned | charles chuck charlie | henry harry hank | margaret peggy maggie meg | elizabeth liz beth betty eliza
  katherine catherine kate kathy cathy katie | anthony tony | theodore ted theo | francis frank | lawrence larry laurence
  joseph joe joey | thomas tom tommy | stephen steven steve | peter pete | ernest ernie | raymond ray | ronald ron | donald don
  gerald gerry jerry | walter walt | albert al bert | alexander alex sasha | andrew andy drew | anne ann anna annie nancy
  patricia pat patty trish | susan sue | deborah debbie | barbara barb | dorothy dot dolly | christopher chris | daniel dan danny
  david dave | matthew matt | nicholas nick | samuel sam | timothy tim | gregory greg | kenneth ken | leonard len | philip phil`
    .split(/\s*[|\n]\s*/)
    .flatMap((row, i) => row.split(' ').map((name): [string, number] => [name, i])),
)

/** What stands in the text like a name, in order. */
export function mentions(text: string, tokens: readonly Token[]): Mention[] {
  const out: Mention[] = []
  for (let first = 0; first < tokens.length && out.length < MENTIONS; first++) {
    if (tokens[first]?.capital !== true) continue
    let end = first + 1
    for (let i = first + 1; i < Math.min(tokens.length, first + MENTION_WORDS); i++) {
      const gap = text.slice(tokens[i - 1]?.end, tokens[i]?.start)
      if (!/^[\s.,'’–/-]{0,2}$/.test(gap)) break
      if (tokens[i]?.capital === true || (end === i && /^['’-]$/.test(gap) && tokens[i]?.word !== 's')) end = i + 1
      else if (!PARTICLES.has(tokens[i]?.word ?? '') || /[.,]/.test(gap)) break
    }
    const own = tokens.slice(first, end)
    const spelled = own.map((t) => t.word)
    out.push({
      ...{ firstToken: first, tokenCount: own.length, words: spelled },
      ...{ start: own[0]?.start ?? 0, end: own.at(-1)?.end ?? 0 },
    })
    first = end - 1
  }
  return out
}

/**
 * How alike two names are, in [0, 1]: Dice's coefficient over their words, where an initial, an everyday form, a slip of the pen or a common
 * beginning counts in part. Names that differ in a number are different things ("Nokia N80", "Nokia N85"): 0.
 */
export function likeness(mention: readonly string[], subject: string): number {
  const a = mention.filter((w) => !PARTICLES.has(w))
  const b = tellingWords(subject)
  if (a.length === 0 || b.length === 0) return 0
  if (numbers(a) !== numbers(b)) return 0
  if (a.join('') === b.join('')) return 1
  const left = [...b]
  let shared = 0
  let strong = false
  for (const word of a) {
    let best = 0
    let at = -1
    for (const [i, other] of left.entries()) {
      const near = wordLikeness(word, other)
      if (near > best) [best, at] = [near, i]
    }
    if (at === -1) continue
    left.splice(at, 1)
    shared += best
    strong ||= best >= 0.7 && word.length > 2
  }
  return strong ? (2 * shared) / (a.length + b.length) : 0
}

/** Least likeness of two words that may be forms of one: an initial, an everyday form, a slip of the pen. */
const FORM = 0.8

/**
 * Whether one name can be a form of the other: each word of the shorter is one of the longer's, or an initial, everyday form, abbreviation or
 * slip of it ("T. S. Lodge", "Thomas Soutter Lodge"; "Ann Lee Roe", "Ann Roe"; not "Joseph Archer", "François Archer"). 1, or ½ where the last
 * words differ ("Robinson J", "Julia Robinson"), or 0.
 */
export function agrees(mention: readonly string[], subject: string): number {
  const a = mention.filter((w) => !PARTICLES.has(w))
  const b = words(subject).filter((w) => !PARTICLES.has(w))
  if (a.length > 0 && a.join('') === b.join('')) return 1
  const [short, long] = a.length <= b.length ? [a, b] : [b, a]
  if (short.length === 0 || numbers(a) !== numbers(b)) return 0
  const left = [...long]
  for (const word of short) {
    const at = left.findIndex((other) => wordLikeness(word, other) >= FORM)
    if (at === -1) return 0
    left.splice(at, 1)
  }
  if (!short.some((w) => w.length > 2 && long.some((o) => o.length > 2 && wordLikeness(w, o) >= FORM))) return 0
  return wordLikeness(a.at(-1) ?? '', b.at(-1) ?? '') >= FORM ? 1 : 0.5
}

function numbers(parts: readonly string[]): string {
  return parts.filter((w) => /\d|^(?:i{2,3}|iv|vi{1,3}|ix|xi{1,3}|xiv|xvi{0,3}|xx)$/.test(w)).join(' ')
}

/** Abbreviations that names hold, each row one word. */
const ABBREVIATED: ReadonlyMap<string, number> = new Map(
  `limited ltd | incorporated inc | corporation corp | company co | brothers bros | saint st ste | mount mt | fort ft | junior jr | senior sr
  doctor dr | professor prof | university univ | department dept | association assoc | institute inst | national natl | international intl
  and & | bc bce | ad ce | street st | avenue ave | road rd | captain capt | general gen | colonel col | lieutenant lt | sergeant sgt | number no`
    .split(/\s*[|\n]\s*/)
    .flatMap((row, i) => row.split(' ').map((word): [string, number] => [word, i])),
)

function wordLikeness(a: string, b: string): number {
  if (a === b) return 1
  const short = ABBREVIATED.get(a)
  if (short !== undefined && short === ABBREVIATED.get(b)) return 0.95
  if (a.length === 1 || b.length === 1) return a[0] === b[0] ? 0.8 : 0
  const nickname = NICKNAMES.get(a)
  if (nickname !== undefined && nickname === NICKNAMES.get(b)) return 0.9
  if (Math.min(a.length, b.length) >= 4 && withinOneEdit(a, b)) return 0.85
  const common = commonStart(a, b)
  return common >= 4 || common === Math.min(a.length, b.length, 3) ? (2 * common) / (a.length + b.length) : 0
}

function commonStart(a: string, b: string): number {
  let n = 0
  while (n < Math.min(a.length, b.length) && a[n] === b[n]) n++
  return n
}
