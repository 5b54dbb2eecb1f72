import { WORD, words } from '../edit/edit.ts'

/** A word of a text: its comparable form, where it stands, and whether it is written with a capital or digit first. */
export interface Token {
  readonly word: string
  readonly start: number
  readonly end: number
  readonly capital: boolean
}

export interface Span {
  readonly start: number
  readonly end: number
}

/** Words with character offsets into `text`. One written word can yield several tokens with the same span ("½"). */
export function tokens(text: string): Token[] {
  const out: Token[] = []
  for (const match of text.matchAll(WORD)) {
    const written = match[0]
    const start = match.index
    const capital = /^[\p{Lu}\p{Lt}\p{N}]/u.test(written)
    for (const word of words(written)) out.push({ word, start, end: start + written.length, capital })
  }
  return out
}

/** Abbreviations after which a full stop ends no sentence; single initials are recognised by shape. */
const ABBREVIATION =
  /(?:^|[\s(])(?:\p{Lu}|Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|vs|No|Vol|Fig|Gen|Col|Lt|Sgt|Rev|Hon|Inc|Ltd|Co|Corp|etc|e\.g|i\.e)\.\s*$/u

const SEGMENTER = new Intl.Segmenter('en', { granularity: 'sentence' })

let latest: { readonly text: string; readonly spans: readonly Span[] } = { text: '', spans: [] }

/** Sentences as spans that cover the text; a break inside a line of initials or after an abbreviation is undone. */
export function sentences(text: string): readonly Span[] {
  // Asked for each name in a text, one after the other.
  if (text !== latest.text) latest = { text, spans: divided(text) }
  return latest.spans
}

function divided(text: string): Span[] {
  const out: { start: number; end: number }[] = []
  for (const { segment, index } of SEGMENTER.segment(text)) {
    const last = out.at(-1)
    const end = index + segment.length
    if (
      last !== undefined &&
      ABBREVIATION.test(text.slice(last.start, last.end)) &&
      !/\n\s*$/.test(text.slice(last.start, last.end))
    )
      last.end = end
    else out.push({ start: index, end })
  }
  return out
}
