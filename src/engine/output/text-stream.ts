/**
 * Bytes in, as tokens bring them; text out that can be shown at once. What is kept back: the bytes of an unfinished character, and any
 * ending that could still become a stop string. The pieces concatenate to the same text however the bytes were cut up.
 */
export class TextStream {
  readonly #stops: readonly string[]
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  #dropSpace: boolean
  #held = ''
  #stopped = false

  /**
   * `stops`: the text ends before whichever of them is completed first (of several completed by the same character, the one that starts
   * first); an empty one is ignored. `dropFirstSpace`: leave out one space at the very beginning, which SentencePiece puts before a first word.
   */
  constructor(stops: readonly string[], dropFirstSpace = false) {
    // A lone surrogate never occurs in decoded text and would cut a character in two: as U+FFFD it is harmless.
    this.#stops = stops.filter((stop) => stop !== '').map((stop) => Buffer.from(stop).toString())
    this.#dropSpace = dropFirstSpace
  }

  /** A stop string has been found: nothing more will come out. */
  get stopped(): boolean {
    return this.#stopped
  }

  push(bytes: Uint8Array): string {
    return this.#stopped ? '' : this.#take(this.#decoder.decode(bytes, { stream: true }))
  }

  /** As `push`, for text that came as text, between characters: half of a surrogate pair becomes U+FFFD. */
  pushText(text: string): string {
    return this.#stopped ? '' : this.#take(text.replace(/\p{Surrogate}/gu, '\ufffd'))
  }

  /** Whatever was kept back, an unfinished character as U+FFFD. */
  end(): string {
    if (this.#stopped) return ''
    const last = this.#take(this.#decoder.decode())
    const rest = this.#stopped ? '' : this.#held
    this.#held = ''
    return last + rest
  }

  #take(text: string): string {
    if (text === '') return ''
    if (this.#stops.length === 0 && !this.#dropSpace) return text
    const fresh = this.#dropSpace && text.startsWith(' ') ? text.slice(1) : text
    this.#dropSpace = false
    const all = this.#held + fresh
    const cut = firstStop(all, this.#stops)
    this.#stopped = cut !== -1
    const shown = this.#stopped ? cut : all.length - possibleStop(all, this.#stops)
    this.#held = this.#stopped ? '' : all.slice(shown)
    return all.slice(0, shown)
  }
}

/** Where the stop string that ends first begins, or -1. */
function firstStop(text: string, stops: readonly string[]): number {
  let start = -1
  let end = Number.POSITIVE_INFINITY
  for (const stop of stops) {
    const at = text.indexOf(stop)
    if (at === -1 || at + stop.length > end || (at + stop.length === end && at > start)) continue
    start = at
    end = at + stop.length
  }
  return start
}

/** Length of the longest ending of `text` that begins a stop string. */
function possibleStop(text: string, stops: readonly string[]): number {
  let longest = 0
  for (const stop of stops) {
    for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
      if (text.endsWith(stop.slice(0, length))) longest = length
    }
  }
  return longest
}
