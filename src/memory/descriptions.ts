import type { Span, Token } from './tokens.ts'
import { sentences, tokens } from './tokens.ts'

/**
 * Part of a question that stands for something by describing it, around a name: in "Who leads the country where Ann Lee was born?" the
 * words "the country where Ann Lee was born". Offsets are into the text it was found in.
 */
export interface Description extends Span {
  /** The name it describes by. */
  readonly name: Span
}

/** How far a description reaches to each side of its name. */
const LEFT_WORDS = 14
const RIGHT_WORDS = 10
/** Descriptions looked at in one sentence. */
const DESCRIPTIONS = 24

const ARTICLE = /^(?:the|a|an)$/
/** Says nothing about which relation is meant. */
const EMPTY = new Set(
  `a an the is are was were be been being am do does did has have had of in on at to for from by with as and or that which who whom whose
  what when where why how it its this these those s t name named person please tell me you know can could would current currently now held
  hold holds called`.split(/\s+/),
)

/** "Which city is …", "Which city serves as …": what follows is all that is asked, so it describes nothing further. */
const IDENTITY =
  /^\W*(?:who|what|which)(?: [\p{L}\p{N}-]+){0,3}? (?:is|are|was|were|be|been|(?:(?:is|are|was|were) )?(?:\p{L}+ly )?\p{L}+ (?:as|to be))\s*["“]?$/iu

/** The sentence of `text` that holds `span`; a line break ends one. */
export function sentenceAround(text: string, span: Span): Span {
  const all = sentences(text)
  const from = all.findLast((s) => s.start <= span.start)?.start ?? 0
  const to = all.find((s) => s.end >= span.end)?.end ?? text.length
  const end = text.indexOf('\n', span.end)
  return { start: Math.max(from, text.lastIndexOf('\n', span.start - 1) + 1), end: end === -1 ? to : Math.min(to, end) }
}

/** Words of a text that can tell one relation from another. */
export function tellingWords(words: readonly Pick<Token, 'word'>[]): string[] {
  return words.map(({ word }) => word).filter((word) => !EMPTY.has(word))
}

/** The descriptions by `name` in one sentence: each leaves something asked outside of it. The innermost beginning comes first. */
export function descriptions(sentence: string, name: Span): Description[] {
  const words = tokens(sentence)
  const first = words.findIndex((w) => w.end > name.start)
  const last = words.findLastIndex((w) => w.start < name.end)
  if (first < 0 || last < first) return []
  const out: Description[] = []
  for (const at of beginnings(sentence, words, first, name)) {
    for (let to = last; to < words.length && to - last <= RIGHT_WORDS && out.length < DESCRIPTIONS; to++) {
      // "X's" is no end: what is X's must follow.
      if (to > last && /^s$/.test(words[to]?.word ?? '') && /['’]/.test(sentence.charAt((words[to]?.start ?? 0) - 1))) continue
      const inside = [...words.slice(at, first), ...words.slice(last + 1, to + 1)]
      const outside = [...words.slice(0, at), ...words.slice(to + 1)]
      if (tellingWords(inside).length === 0 || tellingWords(outside).length === 0) continue
      if (to === words.length - 1 && IDENTITY.test(sentence.slice(0, words[at]?.start))) continue
      out.push({ ...withMarks(sentence, words[at]?.start ?? 0, words[to]?.end ?? 0), name })
    }
  }
  return out
}

/** With the quotation mark or bracket that would otherwise be torn from its partner. */
function withMarks(sentence: string, start: number, end: number): Span {
  const inside = sentence.slice(start, end)
  if (/["“”]/.test(sentence.charAt(end)) && (inside.match(/["“”]/g)?.length ?? 0) % 2 === 1) return { start, end: end + 1 }
  if (/["“]/.test(sentence.charAt(start - 1)) && (inside.match(/["“”]/g)?.length ?? 0) % 2 === 1) return { start: start - 1, end }
  if (sentence.charAt(end) === ')' && inside.lastIndexOf('(') > inside.lastIndexOf(')')) return { start, end: end + 1 }
  return { start, end }
}

/**
 * Where a description of the name may begin: at the name when something is its own ("Ann Lee's mother"), and at articles before it. (Words
 * after a preposition, "wife of author of …", were tried too: they let through three times as many plain questions.)
 */
function* beginnings(sentence: string, words: readonly Token[], first: number, name: Span): Generator<number> {
  if (/^["”]?['’]s?\s/.test(sentence.slice(name.end, name.end + 4))) yield first
  for (let at = first - 1; at >= 0 && first - at <= LEFT_WORDS; at--) if (ARTICLE.test(words[at]?.word ?? '')) yield at
}

/** Names that can be told without knowing them, as spans: runs of capitalised words or numbers, and what stands in quotes. */
export function likelyNames(sentence: string): Span[] {
  const quoted = [...sentence.matchAll(/["“]([^"”]+)["”]/gu)].map((m) => ({
    start: m.index + 1,
    end: m.index + 1 + (m[1] ?? '').length,
  }))
  const out: { start: number; end: number }[] = [...quoted]
  const words = tokens(sentence)
  for (const [i, word] of words.entries()) {
    if (!word.capital || (i === 0 && !/[\p{L}\p{N}]/u.test(sentence.charAt(word.end + 1)))) continue
    if (i === 0 && (EMPTY.has(word.word) || words[1]?.capital !== true)) continue
    if (quoted.some((q) => q.start <= word.start && word.end <= q.end)) continue
    const run = out.at(-1)
    const gap = run === undefined ? '' : sentence.slice(run.end, word.start)
    if (run !== undefined && i > 0 && words[i - 1]?.capital === true && run.end === words[i - 1]?.end && /^[\s.&'’-]*$/.test(gap))
      run.end = word.end
    else out.push({ start: word.start, end: word.end })
  }
  return out
}
