export { type Token, tokens } from '../edit/words.ts'

export interface Span {
  readonly start: number
  readonly end: number
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
