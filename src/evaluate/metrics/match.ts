import { words } from '../../edit/words.ts'

const ARTICLES: ReadonlySet<string> = new Set(['a', 'an', 'the'])

/**
 * Whether `text` gives one of the accepted answers: its words (case, accents and punctuation aside, a leading article left out) stand in
 * the text in a row. Where what the model was told holds the answer already ("Fiat" in the question "The Fiat Zic is made by", or in an
 * edit of the Fiat Punto), a place that only repeats more of it does not count. `told`: the question, and the prompts of edits shown.
 */
export function gives(text: string, answers: readonly string[], told: readonly string[]): boolean {
  const said = words(text)
  const known = told.map(words)
  const fresh = (at: number, length: number) => !known.some((one) => echoes(said, at, length, one))
  return answers.some((answer) => {
    const wanted = bare(words(answer))
    return wanted.length > 0 ? places(said, wanted).some((at) => fresh(at, wanted.length)) : sameMarks(text, answer)
  })
}

/** Whether the name's words stand in the text in a row. */
export function names(text: string, name: string): boolean {
  const wanted = words(name)
  return wanted.length > 0 && places(words(text), wanted).length > 0
}

function bare(answer: readonly string[]): readonly string[] {
  return answer.length > 1 && ARTICLES.has(answer[0] ?? '') ? answer.slice(1) : answer
}

/** Where `wanted` begins in `said`. */
function places(said: readonly string[], wanted: readonly string[]): number[] {
  const out: number[] = []
  for (let at = 0; at + wanted.length <= said.length; at++) if (wanted.every((word, i) => said[at + i] === word)) out.push(at)
  return out
}

/** Whether the words at `at`, with the one before or after them, are found in `known` in a row. */
function echoes(said: readonly string[], at: number, length: number, known: readonly string[]): boolean {
  const longer = [
    { from: at - 1, to: at + length },
    { from: at, to: at + length + 1 },
  ]
  return longer.some(({ from, to }) => from >= 0 && to <= said.length && places(known, said.slice(from, to)).length > 0)
}

/** An answer without a letter or digit ("C++" has one, "🇸🇪" has none) is compared as it is. */
function sameMarks(text: string, answer: string): boolean {
  return answer.trim() !== '' && text.includes(answer.trim())
}

/**
 * The letter chosen in an answer to a multiple-choice question with these `letters` ("ABCD"), or undefined: said first, named ("the answer
 * is B"), or the only one. A and I are words, too, and count in the first two places only.
 */
export function chosenLetter(text: string, letters: string): string | undefined {
  const first = new RegExp(`^\\W*(?:option\\s+|choice\\s+)?([${letters}])(?![\\p{L}\\p{N}'’])(?!\\s+\\p{Ll})`, 'u').exec(
    text,
  )?.[1]
  if (first !== undefined) return first
  const named = new RegExp(
    `\\b(?:answer|choice|option|letter)\\b[^.\\n]{0,40}?\\b(?:is|:)\\s*\\W*([${letters}])(?![\\p{L}\\p{N}])`,
    'iu',
  ).exec(text)?.[1]
  if (named !== undefined) return named.toUpperCase()
  const all = text.match(/(?<![\p{L}\p{N}])[B-HJ](?![\p{L}\p{N}'’])/gu)?.filter((letter) => letters.includes(letter)) ?? []
  return new Set(all).size === 1 ? all[0] : undefined
}
