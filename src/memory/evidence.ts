import { type Edit, MASK, maskSubject, words } from '../edit/edit.ts'
import type { NameMatch } from './subject-index.ts'
import { sentences, type Token } from './tokens.ts'

/**
 * What speaks for "this text asks for this edit", by name, each in about [0, 1]. Two kinds, weighed separately because a cosine of
 * whole texts mixes them up (DESIGN, section 5): is the subject meant, and is it this relation that is asked of it?
 */
export const EVIDENCE = [
  'exact', // the subject's name, or an alias, in full
  'misspelt', // all its words, at least one misspelt: share of weight
  'partial', // some of its words: share of weight
  'antecedent', // named in an earlier turn, and this turn has a pronoun for it
  'lone_word', // the name is one word: easily another thing's name
  'name_chars', // log of the name's length
  'case_mismatch', // a capitalised name, written small in a text that uses capitals
  'extended_left', // a capitalised word right before it: part of a longer name
  'extended_right', // a capitalised word, number or bracket right after it
  'inside_longer', // inside another edit's longer name
  'relation', // cosine of the sentence with the name masked and the prompt with the subject masked
  'relation_window', // the same for the few words around the name
  'relation_words', // share of the prompt's relation words that the sentence has
  'bare', // the sentence is nothing but the name
  'decoy', // how much nearer the text is to some other common relation than the edit is
  'whole', // cosine of the sentence and the prompt, nothing masked
  'rival', // how much better another edit of the same subject fits
] as const
export type EvidenceName = (typeof EVIDENCE)[number]
export type Evidence = Readonly<Record<EvidenceName, number>>

/** Words on each side of a name that make up its surroundings. */
const WINDOW_WORDS = 5

const STOP = new Set(
  'a an the is are was were be been being of in on at to for from by with as and or that which who whom whose what where when how does do did has have had it its this name there'.split(
    ' ',
  ),
)

/** Crude English stem: enough that "originates", "originated" and "origin" share five letters. */
function stem(word: string): string {
  return word.length <= 5 ? word.replace(/s$/, '') : word.slice(0, 5)
}

export function relationWords(masked: string): Set<string> {
  return new Set(
    words(masked.replaceAll(MASK, ' '))
      .filter((w) => !STOP.has(w))
      .map(stem),
  )
}

/** Texts of the relation: the prompt and its paraphrases with the subject masked. */
export function relationTexts(edit: Edit): string[] {
  return [edit.prompt, ...edit.paraphrases].map((t) => maskSubject(t, edit.subject).trim())
}

/** The sentence around a match, with the name masked, and the few words around the name. */
export function surroundings(
  text: string,
  tokens: readonly Token[],
  match: NameMatch,
): { sentence: string; masked: string; window: string } {
  const spans = sentences(text)
  const from = spans.findLast((s) => s.start <= match.start)?.start ?? 0
  const to = spans.find((s) => s.end >= match.end)?.end ?? text.length
  const mask = (start: number, end: number) => `${text.slice(start, match.start)}${MASK}${text.slice(match.end, end)}`.trim()
  const left = tokens[Math.max(0, match.firstToken - WINDOW_WORDS)]
  const right = tokens[Math.min(tokens.length - 1, match.firstToken + match.tokenCount - 1 + WINDOW_WORDS)]
  return {
    sentence: text.slice(from, to).trim(),
    masked: mask(from, to),
    window: mask(Math.max(from, left?.start ?? from), Math.min(to, right?.end ?? to)),
  }
}

/** Evidence about the name alone; everything here is read off the text. */
export function nameEvidence(text: string, tokens: readonly Token[], match: NameMatch, edit: Edit, all: readonly NameMatch[]) {
  const before = tokens[match.firstToken - 1]
  const after = tokens[match.firstToken + match.tokenCount]
  const own = tokens.slice(match.firstToken, match.firstToken + match.tokenCount)
  const usesCapitals = tokens.some((t, i) => t.capital && i > 0 && /\p{L}/u.test(t.word))
  const nameCapital = /^\p{Lu}/u.test(edit.subject)
  const startsSentence = before === undefined || /[.!?:\n"“]\s*$/.test(text.slice(before.end, match.start) || ' ')
  const gapBefore = before === undefined ? '' : text.slice(before.end, match.start)
  const gapAfter = after === undefined ? '' : text.slice(match.end, after.start)
  const firstOfSentence =
    before === undefined ||
    match.firstToken === 1 ||
    /[.!?\n]\s*\S*$/.test(text.slice(Math.max(0, before.start - 2), before.start))
  return {
    exact: match.kind === 'exact' || match.kind === 'alias' ? 1 : 0,
    misspelt: match.kind === 'misspelt' ? match.coverage : 0,
    partial: match.kind === 'partial' ? match.coverage : 0,
    lone_word: match.matchedWords === 1 ? 1 : 0,
    name_chars: Math.min(1, Math.log2(1 + match.end - match.start) / 6),
    case_mismatch: nameCapital && usesCapitals && !startsSentence && !own.some((t) => t.capital) ? 1 : 0,
    extended_left: before?.capital === true && !firstOfSentence && /^[\s-]+$/.test(gapBefore) && nameCapital ? 1 : 0,
    extended_right:
      after !== undefined && ((after.capital && /^[\s-]+$/.test(gapAfter)) || /^\s*\($/.test(gapAfter)) && nameCapital ? 1 : 0,
    inside_longer: all.some((o) => o.editId !== match.editId && longerAround(o, match)) ? 1 : 0,
  }
}

function longerAround(other: NameMatch, match: NameMatch): boolean {
  const whole = other.kind === 'exact' || other.kind === 'alias'
  return whole && other.start <= match.start && other.end >= match.end && other.end - other.start > match.end - match.start
}
