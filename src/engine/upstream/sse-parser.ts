import { createParser, type ParseError } from 'eventsource-parser'

/** Longest event taken from a server, in characters, an unfinished line included; a longer one is a fault of the server. */
const EVENT_CHARS = 4 * 1_048_576

/** As `EventReader`, of a stream. */
export async function* eventData(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<string, void> {
  const reader = new EventReader()
  for await (const chunk of bytes) yield* reader.read(chunk)
  yield* reader.end()
}

/**
 * Reads the `data` of each event in a server-sent event stream (WHATWG HTML, section 9.2.6), however its bytes are cut up. Throws ParseError
 * above EVENT_CHARS.
 */
export class EventReader {
  readonly #decoder = new TextDecoder()
  #events: string[] = []
  #fault: ParseError | undefined
  readonly #parser = createParser({
    maxBufferSize: EVENT_CHARS,
    onEvent: ({ data }) => void this.#events.push(data),
    // Unknown fields are skipped, as the specification says.
    onError: (error) => {
      if (error.type === 'max-buffer-size-exceeded') this.#fault = error
    },
  })

  read(bytes: Uint8Array): readonly string[] {
    return this.#feed(this.#decoder.decode(bytes, { stream: true }))
  }

  /** The event that the stream broke off in. */
  end(): readonly string[] {
    return this.#feed(`${this.#decoder.decode()}\n\n`)
  }

  #feed(text: string): readonly string[] {
    this.#parser.feed(text)
    if (this.#fault !== undefined) throw this.#fault
    const events = this.#events
    this.#events = []
    return events
  }
}
