import { type Edit, statement } from '../edit/edit.ts'
import { normalized } from '../edit/words.ts'
import type { Message } from '../request.ts'

/** What the reader reads, and what is embedded. `editor/palimpsest_reader/text.py` writes the same: a test compares the two. */
const LAST_CHARS = 900
const EARLIER_CHARS = 200
const EARLIER_TURNS = 3
const EDIT_CHARS = 480
const SHOWN_ALIASES = 4
/** A longer message is also searched for part by part, … */
const WHOLE_CHARS = 300
const PART_CHARS = 260
/** … in at most so many parts: the first and the last ones. */
const PARTS = 12
/** The end of a long message, which often asks, is read with each of its parts. */
const TAIL_CHARS = 240

/** The beginning and the end of a long text: two fifths and three fifths of `chars` (code points). */
export function cut(text: string, chars: number): string {
  if (text.length <= chars) return text
  const points = Array.from(text)
  if (points.length <= chars) return text
  const head = Math.floor((chars * 2) / 5)
  return `${points.slice(0, head).join('')} … ${points.slice(points.length - (chars - head)).join('')}`
}

/** The last message, and before it the end of what was said: user and assistant alternate. */
export function conversationEnd(earlier: readonly string[], last: string): string {
  const before = earlier.slice(-EARLIER_TURNS).map((text) => cut(normalized(text), EARLIER_CHARS))
  const end = cut(normalized(last), LAST_CHARS)
  return before.length === 0 ? end : `${before.join(' | ')} || ${end}`
}

/** The same for the user turn at `messages[turn]`; system and tool messages are not read. */
export function earlierOf(messages: readonly Message[], turn: number): string[] {
  return messages
    .slice(0, turn)
    .flatMap(({ role, content }) => ((role === 'user' || role === 'assistant') && content.trim() !== '' ? [content] : []))
}

export function editText(edit: Edit): string {
  const prompt = normalized(edit.prompt)
  const target = normalized(edit.targetNew)
  if (edit.kind === 'sentence') return cut(prompt, EDIT_CHARS)
  if (edit.kind === 'rule') return cut(`${edit.always ? 'always' : prompt} → ${target}`, EDIT_CHARS)
  const subject = normalized(edit.subject)
  const lead = subject === '' || prompt.toLowerCase().includes(subject.toLowerCase()) ? '' : `${subject}: `
  const names = edit.aliases.slice(0, SHOWN_ALIASES).map(normalized)
  const known = names.length === 0 ? '' : ` (= ${names.join('; ')})`
  return cut(`${lead}${prompt} ${target}${known}`, EDIT_CHARS)
}

/** A conversation's end with what earlier hops of a question have found. */
export function withKnown(text: string, edits: readonly Edit[]): string {
  return edits.length === 0 ? text : `${text} [${edits.map((edit) => normalized(statement(edit))).join(' ; ')}]`
}

/** One stretch of a message: what is embedded and searched for names, and what the reader reads where it finds something. */
export interface Part {
  readonly searched: string
  readonly read: string
}

/** A short message is one part; a long one the whole of it and its stretches, at sentence and line ends. */
export function partsOf(earlier: readonly string[], last: string): Part[] {
  const whole = { searched: cut(last, LAST_CHARS), read: conversationEnd(earlier, last) }
  if (last.length <= WHOLE_CHARS) return [whole]
  const stretches = stretchesOf(last)
  const shown = stretches.length <= PARTS ? stretches : [...stretches.slice(0, PARTS / 2), ...stretches.slice(-PARTS / 2)]
  // What fits the reader whole is read whole.
  const fits = last.length <= LAST_CHARS
  const tail = last.slice(-TAIL_CHARS)
  return [
    whole,
    ...shown.map((searched) => ({ searched, read: fits ? whole.read : conversationEnd(earlier, `${searched} … ${tail}`) })),
  ]
}

const SENTENCE_END = /(?<=[.!?…]["”')\]]?)\s+|(?<=[。！？])|\n+/u

function stretchesOf(text: string): string[] {
  const out: string[] = []
  for (const sentence of text.split(SENTENCE_END)) {
    for (let from = 0; from < sentence.length; from += PART_CHARS) {
      const piece = sentence.slice(from, from + PART_CHARS)
      const last = out.at(-1)
      if (last !== undefined && last.length + piece.length < PART_CHARS) out[out.length - 1] = `${last} ${piece}`
      else if (piece.trim() !== '') out.push(piece)
    }
  }
  return out
}
