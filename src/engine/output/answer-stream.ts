import type { CallPiece, Finish, Piece, TokenLogprob } from '../engine.ts'
import { TextStream } from './text-stream.ts'
import { ToolStream } from './tool-call-parser.ts'

export interface AnswerOptions {
  /** Of the text; inside calls they do not count. */
  readonly stops: readonly string[]
  /** The vocabulary writes the first word of a text with a space before it. */
  readonly leadingSpace?: boolean
  /** Names of functions that may be called; absent: calls are not told from text. */
  readonly tools?: readonly string[] | undefined
}

/** Tokens in, as bytes; parts of an answer out. They add up to the same answer however the bytes were cut up. */
export class AnswerStream {
  readonly #text: TextStream
  /** With tools, the text that is no call goes through a second stream, which looks for the stop strings. */
  readonly #tools: ToolStream | null
  readonly #spoken: TextStream | null
  readonly #tokens: TokenQueue
  #calls = 0

  constructor({ stops, leadingSpace = false, tools }: AnswerOptions) {
    this.#text = new TextStream(tools === undefined ? stops : [], leadingSpace)
    this.#tools = tools === undefined ? null : new ToolStream(tools)
    this.#spoken = tools === undefined ? null : new TextStream(stops)
    this.#tokens = new TokenQueue(leadingSpace)
  }

  /** A stop string has been found: nothing more will come out. */
  get stopped(): boolean {
    return (this.#spoken ?? this.#text).stopped
  }

  /** Within a call: it has begun, by its tag or bare, and not yet ended. */
  get inCall(): boolean {
    return this.#tools?.inCall ?? false
  }

  /** The name of a call that was begun without a tag. */
  get bare(): string | null {
    return this.#tools?.bare ?? null
  }

  /** An answer that stops by itself and holds calls ends for their sake. */
  finish(reason: Finish['reason']): Finish['reason'] {
    return reason === 'stop' && this.#calls > 0 ? 'tool_calls' : reason
  }

  /** Forget what was read of a call after its beginning; returns how many bytes that was. */
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
    let text = ''
    const calls: CallPiece[] = []
    for (const part of [...this.#tools.push(read), ...(last ? this.#tools.end() : [])]) {
      if (this.#spoken.stopped) break
      if (typeof part === 'string') text += this.#spoken.push(Buffer.from(part))
      else calls.push(part)
    }
    if (last) text += this.#spoken.end()
    this.#calls += calls.filter(({ name }) => name !== undefined).length
    return this.#made(text, calls, last)
  }

  #made(text: string, calls: readonly CallPiece[], last: boolean): Piece | null {
    // Log probabilities are of the text: tokens of calls have none.
    const tokens = this.#calls > 0 || this.inCall ? this.#tokens.drop() : this.#tokens.take(text, last, this.stopped)
    return pieceOf(text, calls, tokens)
  }
}

/** null: there is nothing to be shown. */
export function pieceOf(text: string, calls: readonly CallPiece[], tokens: readonly TokenLogprob[]): Piece | null {
  if (text === '' && calls.length === 0 && tokens.length === 0) return null
  return { text, ...(calls.length > 0 && { calls }), ...(tokens.length > 0 && { tokens }) }
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
