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
const PART_CHARS = 260
/** … in at most so many parts: the first and the last ones. */
const PARTS = 12
/** The end of a long message, which often asks, is read with each of its parts. */
const TAIL_CHARS = 240
/** Of a longer text so many characters of its beginning and of its end are looked at. */
const END_CHARS = 20_000

/** The beginning and the end of a long text: two fifths and three fifths of `chars` (code points). */
export function cut(text: string, chars: number): string {
  if (text.length <= chars) return text
  // No character has more than two units, so the middle of a long text is not looked at.
  const points = Array.from(text.length <= 4 * chars ? text : text.slice(0, 2 * chars) + text.slice(-2 * chars))
  if (points.length <= chars) return text
  const head = Math.floor((chars * 2) / 5)
  return `${points.slice(0, head).join('')} … ${points.slice(points.length - (chars - head)).join('')}`
}

/** The last message, and before it the end of what was said: user and assistant alternate. */
export function conversationEnd(earlier: readonly string[], last: string): string {
  return behind(earlierRead(earlier), messageRead(last))
}

/** null: nothing was said before. */
export function earlierRead(earlier: readonly string[]): string | null {
  if (earlier.length === 0) return null
  return earlier
    .slice(-EARLIER_TURNS)
    .map((text) => cut(normalized(endsOf(text)), EARLIER_CHARS))
    .join(' | ')
}

export function messageRead(last: string): string {
  return cut(normalized(endsOf(last)), LAST_CHARS)
}

/** What is read of a message, behind what is read of the turns before it. */
export function behind(before: string | null, read: string): string {
  return before === null ? read : `${before} || ${read}`
}

/** What is embedded of each text that was said before. */
export function saidOf(earlier: readonly string[]): string[] {
  return earlier.slice(-EARLIER_TURNS).map((text) => normalized(cut(endsOf(text), EARLIER_CHARS)))
}

/** What is looked at of a long text: its beginning and its end. */
export function endsOf(text: string): string {
  return text.length <= 2 * END_CHARS ? text : `${text.slice(0, END_CHARS)}\n${text.slice(-END_CHARS)}`
}

/** Positions of the messages that were said, for each conversation. */
const spoken = new WeakMap<readonly Message[], readonly number[]>()

function spokenIn(messages: readonly Message[]): readonly number[] {
  const known = spoken.get(messages)
  if (known !== undefined) return known
  const found = messages.flatMap(({ role, content }, i) =>
    (role === 'user' || role === 'assistant') && /\S/.test(content) ? [i] : [],
  )
  spoken.set(messages, found)
  return found
}

/** The last `most` texts that were said before `messages[turn]`, in order; system and tool messages are not read. */
export function earlierOf(messages: readonly Message[], turn: number, most: number): string[] {
  const all = spokenIn(messages)
  let [end, beyond] = [0, all.length]
  while (end < beyond) {
    const middle = (end + beyond) >> 1
    if ((all[middle] ?? turn) < turn) end = middle + 1
    else beyond = middle
  }
  return all.slice(Math.max(0, end - most), end).map((i) => messages[i]?.content ?? '')
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

/** One stretch of a message: what is embedded and searched for names, and what of the message the reader reads where it finds something. */
export interface Part {
  readonly searched: string
  readonly read: string
  /** It is a sentence of a message that the reader reads whole. */
  readonly isSentence?: boolean
}

/** The whole message, and its sentences where there are some; of a long one its stretches, at sentence and line ends. */
export function partsOf(last: string): Part[] {
  const whole = { searched: cut(last, LAST_CHARS), read: messageRead(last) }
  // What fits the reader whole is read whole, but for sentences that have nothing to do with an edit.
  if (last.length <= LAST_CHARS)
    return [whole, ...sentencesOf(last).map((searched) => ({ searched, read: whole.read, isSentence: true }))]
  const stretches = stretchesOf(endsOf(last))
  const shown = stretches.length <= PARTS ? stretches : [...stretches.slice(0, PARTS / 2), ...stretches.slice(-PARTS / 2)]
  const tail = last.slice(-TAIL_CHARS)
  return [whole, ...shown.map((searched) => ({ searched, read: messageRead(`${searched} … ${tail}`) }))]
}

/** None where the message is one sentence; of very many, stretches of some. */
function sentencesOf(text: string): string[] {
  const sentences = text.split(ASKED_END).filter((sentence) => /\S/.test(sentence))
  if (sentences.length < 2) return []
  return sentences.length <= PARTS ? sentences : stretchesOf(text).slice(-PARTS)
}

const ASKS = /[?？؟]/

/**
 * Of a message's sentences those that the reader reads with an edit: what asks, and what `isAbout` the edit. Where nothing asks, all: the message
 * is a request, or a text to be continued.
 */
export function sentencesFor<T extends Pick<Part, 'searched'>>(sentences: readonly T[], isAbout: (sentence: T) => boolean): T[] {
  const asks = ({ searched }: T) => ASKS.test(searched)
  return sentences.some(asks) ? sentences.filter((one) => asks(one) || isAbout(one)) : [...sentences]
}

/** How an item of a list begins. */
const ITEM = String.raw`(?:[-*•–]|\(?(?:\p{L}|\d{1,2})[.)．）])\s`
/** As `SENTENCE_END`, but items of a list, as the choices of a question, belong to what they follow. */
const ASKED_END = new RegExp(
  String.raw`(?<=[.!?…]["”')\]]?)(?<!(?:[\s(]\p{L}|(?:^|\n)[ \t(]{0,4}\d{1,2})[.)])\s+(?=\S)(?!${ITEM})|(?<=[。！？])\s*(?=\S)(?!${ITEM})|\n\s*(?=\S)(?!${ITEM})`,
  'u',
)
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
