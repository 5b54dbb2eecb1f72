import type { CallPiece, Piece, TokenLogprob } from './engine.ts'
import { TextStream } from './text-stream.ts'
import { ToolStream } from './tool-stream.ts'

export interface AnswerOptions {
  /** Of the text; inside calls they do not count. */
  readonly stops: readonly string[]
  /** The vocabulary writes the first word of a text with a space before it. */
  readonly leadingSpace?: boolean
  /** Calls are told from text. */
  readonly tools?: boolean
}

/** Tokens in, as bytes; parts of an answer out. They add up to the same answer however the bytes were cut up. */
export class AnswerStream {
  readonly #text: TextStream
  /** With tools, the text that is no call goes through a second stream, which looks for the stop strings. */
  readonly #tools: ToolStream | null
  readonly #spoken: TextStream | null
  readonly #tokens: TokenQueue

  constructor({ stops, leadingSpace = false, tools = false }: AnswerOptions) {
    this.#text = new TextStream(tools ? [] : stops, leadingSpace)
    this.#tools = tools ? new ToolStream() : null
    this.#spoken = tools ? new TextStream(stops) : null
    this.#tokens = new TokenQueue(leadingSpace)
  }

  /** A stop string has been found: nothing more will come out. */
  get stopped(): boolean {
    return (this.#spoken ?? this.#text).stopped
  }

  /** Within a call: its tag has been read, and not yet its end. */
  get inCall(): boolean {
    return this.#tools?.inCall ?? false
  }

  get calls(): number {
    return this.#tools?.calls ?? 0
  }

  /** Forget what was read of a call after its tag; returns how many bytes that was. */
  dropHead(): number {
    return Buffer.byteLength(this.#tools?.dropHead() ?? '')
  }

  /** null: nothing to be shown yet. */
  push(bytes: Uint8Array, token?: TokenLogprob): Piece | null {
    if (token !== undefined) this.#tokens.add(token, bytes.length)
    return this.#piece(this.#text.push(bytes), false)
  }

  /** Whatever was kept back. */
  end(): Piece | null {
    return this.#piece(this.#text.end(), true)
  }

  #piece(read: string, last: boolean): Piece | null {
    if (this.#tools === null || this.#spoken === null) return this.#made(read, [], last)
    const told = this.#tools.push(read)
    const rest = last ? this.#tools.end().text : ''
    const text = this.#spoken.push(Buffer.from(told.text + rest)) + (last ? this.#spoken.end() : '')
    return this.#made(text, this.stopped ? [] : told.calls, last)
  }

  #made(text: string, calls: readonly CallPiece[], last: boolean): Piece | null {
    // Log probabilities are of the text: tokens of calls have none.
    const tokens = this.calls > 0 || this.inCall ? this.#tokens.drop() : this.#tokens.take(text, last, this.stopped)
    if (text === '' && calls.length === 0 && tokens.length === 0) return null
    return { text, ...(calls.length > 0 && { calls }), ...(tokens.length > 0 && { tokens }) }
  }
}

/** Tokens whose text has not been shown in full. */
class TokenQueue {
  readonly #waiting: { readonly token: TokenLogprob; readonly end: number }[] = []
  #leadingSpace: boolean
  /** Bytes: of all tokens, and shown. */
  #told = 0
  #shown = 0

  constructor(leadingSpace: boolean) {
    this.#leadingSpace = leadingSpace
  }

  add(token: TokenLogprob, bytes: number): void {
    const space = this.#leadingSpace && token.text.startsWith(' ') ? 1 : 0
    this.#leadingSpace = false
    this.#told += bytes - space
    this.#waiting.push({ token, end: this.#told })
  }

  /** Those that `text` completes. At the end also what has no text of its own; but not what a stop string cut off. */
  take(text: string, last: boolean, stopped: boolean): TokenLogprob[] {
    if (this.#waiting.length === 0) return []
    this.#shown += Buffer.byteLength(text)
    const complete = last && !stopped ? this.#waiting.length : this.#waiting.filter(({ end }) => end <= this.#shown).length
    return this.#waiting.splice(0, complete).map(({ token }) => token)
  }

  drop(): never[] {
    this.#waiting.length = 0
    return []
  }
}
