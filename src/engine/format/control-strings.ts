import type { VocabularyTable } from '../output/token-bytes.ts'
import type { Vocabulary } from './chat-format.ts'

/** GGUF's token types that are sought in a text as they stand: where it may hold special tokens, and in every text. */
const UNKNOWN = 2
const CONTROL = 3
const USER_DEFINED = 4

/** Control strings in one piece of a text. */
const AT_ONCE = 32

/**
 * `tokenize`, with the same result, in pieces that begin at control strings. llama.cpp seeks each kind of these in all that lies between those
 * already found, so that a text full of them takes time by the square of its length: 500 kB, seconds in which nobody is answered.
 */
export function inPieces(tokenize: Vocabulary['tokenize'], table: Pick<VocabularyTable, 'tokens' | 'token_type'>) {
  const marksOf = (types: readonly number[]) =>
    alternatives(table.tokens.filter((token, i) => token !== '' && types.includes(table.token_type[i] ?? 0)))
  const marks = { special: marksOf([UNKNOWN, CONTROL, USER_DEFINED]), plain: marksOf([USER_DEFINED]) }
  return (text: string, special = false): number[] =>
    piecesOf(text, special ? marks.special : marks.plain).flatMap((piece) => tokenize(piece, special))
}

function piecesOf(text: string, marks: RegExp | null): string[] {
  if (marks === null) return [text]
  const pieces: string[] = []
  let from = 0
  let count = 0
  for (const { index } of text.matchAll(marks)) {
    if (count++ % AT_ONCE !== 0 || index === from) continue
    pieces.push(text.slice(from, index))
    from = index
  }
  return [...pieces, text.slice(from)]
}

/** The longest first, as llama.cpp seeks them. */
function alternatives(texts: readonly string[]): RegExp | null {
  if (texts.length === 0) return null
  const sorted = [...new Set(texts)].sort((a, b) => b.length - a.length)
  return new RegExp(sorted.map((text) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')).join('|'), 'g')
}
