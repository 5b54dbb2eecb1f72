import { createParser, type ParseError } from 'eventsource-parser'

/** Longest event taken from a server, in characters, an unfinished line included; a longer one is a fault of the server. */
const EVENT_CHARS = 4 * 1_048_576

/**
 * The `data` of each event in a server-sent event stream (WHATWG HTML, section 9.2.6), however its bytes are cut up.
 * An event that the stream breaks off in is given too. Throws ParseError above EVENT_CHARS.
 */
export async function* eventData(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<string, void> {
  const decoder = new TextDecoder()
  const events: string[] = []
  let fault: ParseError | undefined
  const parser = createParser({
    maxBufferSize: EVENT_CHARS,
    onEvent: ({ data }) => void events.push(data),
    // Unknown fields are skipped, as the specification says.
    onError: (error) => {
      if (error.type === 'max-buffer-size-exceeded') fault = error
    },
  })
  const feed = (text: string): string[] => {
    parser.feed(text)
    if (fault !== undefined) throw fault
    return events.splice(0)
  }
  for await (const chunk of bytes) yield* feed(decoder.decode(chunk, { stream: true }))
  yield* feed(`${decoder.decode()}\n\n`)
}
