import type { CallPiece } from '../engine.ts'
import { CALL, CALL_END } from '../format/tool-format.ts'

/** What a stretch of an answer comes to, in order: text to be shown, and parts of calls. */
export type Told = readonly (string | CallPiece)[]

type Telling = (string | CallPiece)[]

/** Longest head of a call, and longest run of blanks where one may begin: what is held back is read anew with each token. */
const HEAD_CHARS = 1_000
/** Up to where the arguments begin; a call whose name comes otherwise is none. */
const HEAD = /^\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:/

/**
 * Tells calls from text in an answer as the model writes it, however it is cut up. Held back is only what could still become the tag of a
 * call, the line break before it, and a call up to its arguments. What turns out to be no call is text after all. Models that were not
 * trained on the tags well (Qwen2.5-Coder) leave them out: an answer that begins, bare or in a code fence, as a call of one of `names` is one.
 */
export class ToolStream {
  readonly #names: readonly string[]
  #state: 'opening' | 'text' | 'head' | 'arguments' | 'tail' | 'over' = 'opening'
  #held = ''
  /** What was left out before the tag that was read last. */
  #lead = ''
  /** Since the last call only blanks have come: no text. */
  #quiet = false
  #calls = 0
  #scan = new JsonEnd()
  #bare: string | null = null
  /** A call has just begun, and what follows is to be written under a grammar. */
  #atStart = false

  constructor(names: readonly string[]) {
    this.#names = names
  }

  /** Calls begun. */
  get calls(): number {
    return this.#calls
  }

  /** A call has begun, by its tag or bare, and not yet ended. */
  get inCall(): boolean {
    return this.#state !== 'text' && this.#state !== 'opening'
  }

  /** The name of a call that was begun without a tag. */
  get bare(): string | null {
    return this.#bare
  }

  push(text: string): Told {
    this.#held += text
    const told: Telling = []
    this.#atStart = false
    while (!this.#atStart && this.#step(told)) {}
    return told
  }

  /** Forget, and return, what was read after the beginning of a call. */
  dropHead(): string {
    const held = this.inCall ? this.#held : ''
    if (this.inCall) this.#held = ''
    return held
  }

  /** Whatever was held back; of a call that broke off before its arguments, its text. */
  end(): Told {
    const told: Telling = []
    while (this.#step(told)) {}
    const rest = this.#state === 'head' ? `${this.#lead}${CALL}${this.#held}` : this.#held
    const text = this.#state === 'opening' || this.#state === 'text' || this.#state === 'head'
    if (text && rest !== '' && !(this.#quiet && rest.trim() === '')) told.push(rest)
    this.#held = ''
    this.#state = 'over'
    return told
  }

  /** Whether there is more to do with what is held. */
  #step(told: Telling): boolean {
    switch (this.#state) {
      case 'opening':
        return this.#readOpening(told)
      case 'text':
        return this.#readText(told)
      case 'head':
        return this.#readHead(told)
      case 'arguments':
        return this.#readArguments(told)
      case 'tail':
        return this.#readTail()
      case 'over':
        this.#held = ''
        return false
      default:
        return this.#state satisfies never
    }
  }

  #readOpening(told: Telling): boolean {
    const found = bareHead(this.#held, this.#names)
    if (found === 'maybe' && this.#held.length <= HEAD_CHARS) return false
    if (found === 'maybe' || found === 'no') this.#state = 'text'
    else {
      this.#bare = found.name
      this.#begin(found.name, found.length, told)
      this.#atStart = true
    }
    return true
  }

  /** A call whose arguments come after `length` characters. */
  #begin(name: string, length: number, told: Telling): void {
    told.push({ index: this.#calls++, name, arguments: '' })
    this.#held = this.#held.slice(length)
    this.#scan = new JsonEnd()
    this.#state = 'arguments'
  }

  #readText(told: Telling): boolean {
    const at = this.#held.indexOf(CALL)
    if (at === -1) {
      const shown = this.#held.length - possibleTag(this.#held)
      const text = this.#held.slice(0, shown)
      if (this.#quiet && text.length <= HEAD_CHARS && text.trim() === '') return false
      if (text !== '') told.push(text)
      this.#quiet &&= text === ''
      this.#held = this.#held.slice(shown)
      return false
    }
    const before = this.#held.slice(0, at)
    const blank = this.#quiet && before.length <= HEAD_CHARS && before.trim() === ''
    const text = blank ? '' : before.replace(/\n$/, '')
    if (text !== '') told.push(text)
    this.#quiet &&= text === ''
    this.#lead = before.slice(text.length)
    this.#held = this.#held.slice(at + CALL.length)
    this.#state = 'head'
    this.#atStart = true
    return true
  }

  #readHead(told: Telling): boolean {
    const head = HEAD.exec(this.#held)
    if (head === null) {
      const end = this.#held.indexOf(CALL_END)
      if (end === -1 && this.#held.length <= HEAD_CHARS) return false
      if (end === -1) {
        this.#held = `${this.#lead}${CALL}${this.#held}`
        return this.#noCall(told)
      }
      told.push(`${this.#lead}${CALL}${this.#held.slice(0, end + CALL_END.length)}`)
      this.#quiet = false
      this.#held = this.#held.slice(end + CALL_END.length)
      this.#state = 'text'
      return true
    }
    this.#begin(nameOf(head[1] ?? '""'), head[0].length, told)
    return true
  }

  #readArguments(told: Telling): boolean {
    if (!this.#scan.begun) this.#held = this.#held.trimStart()
    if (this.#held === '') return false
    const end = this.#scan.find(this.#held)
    const part = end === -1 ? this.#held : this.#held.slice(0, end)
    if (part !== '') told.push({ index: this.#calls - 1, arguments: part })
    this.#held = this.#held.slice(part.length)
    if (end !== -1) this.#state = this.#bare === null ? 'tail' : 'over'
    return end !== -1
  }

  #readTail(): boolean {
    const at = this.#held.indexOf(CALL_END)
    if (at === -1) {
      this.#held = this.#held.slice(1 - CALL_END.length)
      return false
    }
    this.#held = this.#held.slice(at + CALL_END.length)
    this.#state = 'text'
    this.#quiet = true
    return true
  }

  /** What began as a call is text as far as it came. */
  #noCall(told: Telling): true {
    told.push(this.#held)
    this.#held = ''
    this.#quiet = false
    this.#state = 'text'
    return true
  }
}

function nameOf(json: string): string {
  try {
    return String(JSON.parse(json))
  } catch {
    return json.slice(1, -1)
  }
}

const FENCE = /^```[a-z]*\s+/
const FENCE_BEGUN = /^(?:`{1,2}|```[a-z]*)$/

/** How an answer begins that is a call without a tag. `length`: up to the arguments. */
function bareHead(text: string, names: readonly string[]): { readonly name: string; readonly length: number } | 'maybe' | 'no' {
  let rest = text.trimStart()
  if (rest.startsWith('`')) {
    const fence = FENCE.exec(rest)
    if (fence === null) return FENCE_BEGUN.test(rest) ? 'maybe' : 'no'
    rest = rest.slice(fence[0].length)
  }
  let name = ''
  for (const part of ['{', '"name"', ':', names, ',', '"arguments"', ':']) {
    rest = rest.trimStart()
    const ways = typeof part === 'string' ? [part] : part.map((one) => JSON.stringify(one))
    const found = ways.find((way) => rest.startsWith(way))
    if (found === undefined) return ways.some((way) => way.startsWith(rest)) ? 'maybe' : 'no'
    if (typeof part !== 'string') name = nameOf(found)
    rest = rest.slice(found.length)
  }
  return { name, length: text.length - rest.length }
}

/** Length of the longest ending of `text` that could become the tag of a call, the line break before it included. */
function possibleTag(text: string): number {
  for (let length = Math.min(CALL.length - 1, text.length); length > 0; length--)
    if (CALL.startsWith(text.slice(-length))) return length + (text.at(-length - 1) === '\n' ? 1 : 0)
  return text.endsWith('\n') ? 1 : 0
}

/** Finds the end of one JSON value that comes in parts. */
class JsonEnd {
  #depth = 0
  #inString = false
  #escaped = false
  #begun = false

  get begun(): boolean {
    return this.#begun
  }

  /** Where in `text` the value ends; -1: not yet. */
  find(text: string): number {
    for (let at = 0; at < text.length; at++) {
      const end = this.#inString ? this.#string(text.charAt(at)) : this.#outside(text.charAt(at))
      if (end !== null) return at + end
    }
    return -1
  }

  /** 1: the value ends with this character; null: it goes on. */
  #string(char: string): 1 | null {
    if (this.#escaped) this.#escaped = false
    else if (char === '\\') this.#escaped = true
    else if (char === '"') {
      this.#inString = false
      return this.#depth === 0 ? 1 : null
    }
    return null
  }

  /** 0: the value ended before this character; 1: it ends with it; null: it goes on. */
  #outside(char: string): 0 | 1 | null {
    const space = /\s/.test(char)
    if (this.#depth === 0 && (char === '}' || char === ']')) return 0
    if (this.#depth === 0 && this.#begun && (char === ',' || space)) return 0
    if (char === '{' || char === '[') this.#depth++
    if (char === '}' || char === ']') return --this.#depth === 0 ? 1 : null
    this.#inString = char === '"'
    this.#begun ||= !space
    return null
  }
}
