import type { CallPiece } from './engine.ts'
import { CALL, CALL_END } from './tool-format.ts'

/** What a stretch of an answer comes to: text to be shown, and parts of calls. */
export interface Told {
  readonly text: string
  readonly calls: readonly CallPiece[]
}

/** Up to where the arguments begin; a call whose name comes otherwise is none. */
const HEAD = /^\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\S)/

/**
 * Tells calls from text in an answer as the model writes it, however it is cut up. Held back is only what could still become the tag of a
 * call, the line break before it, and a call up to its arguments. What turns out to be no call is text after all.
 */
export class ToolStream {
  #state: 'text' | 'head' | 'arguments' | 'tail' = 'text'
  #held = ''
  #calls = 0
  #scan = new JsonEnd()

  /** Calls begun. */
  get calls(): number {
    return this.#calls
  }

  /** The tag of a call has been read, and not yet its end. */
  get inCall(): boolean {
    return this.#state !== 'text'
  }

  /** Forget, and return, what was read after the tag of a call. */
  dropHead(): string {
    const held = this.#state === 'head' ? this.#held : ''
    if (this.#state === 'head') this.#held = ''
    return held
  }

  push(text: string): Told {
    this.#held += text
    const told = { text: '', calls: [] as CallPiece[] }
    while (this.#step(told)) {}
    return told
  }

  /** Whatever was held back; of a call that broke off before its arguments, its text. */
  end(): Told {
    const rest = this.#state === 'head' ? `${CALL}${this.#held}` : this.#state === 'tail' ? '' : this.#held
    const none = this.#state === 'arguments' || (this.#calls > 0 && rest.trim() === '')
    const text = none ? '' : rest
    this.#held = ''
    this.#state = 'text'
    return { text, calls: [] }
  }

  /** Whether there is more to do with what is held. */
  #step(told: { text: string; calls: CallPiece[] }): boolean {
    switch (this.#state) {
      case 'text':
        return this.#readText(told)
      case 'head':
        return this.#readHead(told)
      case 'arguments':
        return this.#readArguments(told)
      case 'tail':
        return this.#readTail()
      default:
        return this.#state satisfies never
    }
  }

  #readText(told: { text: string }): boolean {
    const at = this.#held.indexOf(CALL)
    if (at === -1) {
      const shown = this.#held.length - possibleTag(this.#held)
      // Blanks between two calls are no text.
      const text = this.#held.slice(0, shown)
      if (this.#calls > 0 && text.trim() === '') return false
      told.text += text
      this.#held = this.#held.slice(shown)
      return false
    }
    const before = this.#held.slice(0, at)
    if (this.#calls === 0 || before.trim() !== '') told.text += before.replace(/\n$/, '')
    this.#held = this.#held.slice(at + CALL.length)
    this.#state = 'head'
    return true
  }

  #readHead(told: { text: string; calls: CallPiece[] }): boolean {
    const head = HEAD.exec(this.#held)
    if (head === null) {
      const end = this.#held.indexOf(CALL_END)
      if (end === -1) return false
      told.text += `${CALL}${this.#held.slice(0, end + CALL_END.length)}`
      this.#held = this.#held.slice(end + CALL_END.length)
      this.#state = 'text'
      return true
    }
    told.calls.push({ index: this.#calls++, name: nameOf(head[1] ?? '""'), arguments: '' })
    this.#held = this.#held.slice(head[0].length)
    this.#scan = new JsonEnd()
    this.#state = 'arguments'
    return true
  }

  #readArguments(told: { calls: CallPiece[] }): boolean {
    if (this.#held === '') return false
    const end = this.#scan.find(this.#held)
    const part = end === -1 ? this.#held : this.#held.slice(0, end)
    if (part !== '') told.calls.push({ index: this.#calls - 1, arguments: part })
    this.#held = this.#held.slice(part.length)
    if (end !== -1) this.#state = 'tail'
    return end !== -1
  }

  #readTail(): boolean {
    const at = this.#held.indexOf(CALL_END)
    if (at === -1) return false
    this.#held = this.#held.slice(at + CALL_END.length)
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

  /** Where in `text` the value ends; -1: not yet. */
  find(text: string): number {
    for (let at = 0; at < text.length; at++) {
      const char = text[at]
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false
        else if (char === '\\') this.#escaped = true
        else if (char === '"') {
          this.#inString = false
          if (this.#depth === 0) return at + 1
        }
        continue
      }
      if (char === '"') this.#inString = this.#begun = true
      else if (char === '{' || char === '[') {
        this.#depth++
        this.#begun = true
      } else if (char === '}' || char === ']') {
        if (this.#depth === 0) return at
        this.#depth--
        if (this.#depth === 0) return at + 1
      } else if (this.#depth === 0 && this.#begun && (char === ',' || /\s/.test(char ?? ''))) return at
      else if (!/\s/.test(char ?? '')) this.#begun = true
    }
    return -1
  }
}
