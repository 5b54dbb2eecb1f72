/** Longest line taken from a server, in characters; a longer one is a fault of the server. */
const LINE_CHARS = 1_048_576
/** … and all lines of one event together. */
const EVENT_CHARS = 4 * LINE_CHARS

/**
 * The `data` of each event in a server-sent event stream (WHATWG HTML, section 9.2.6), however its bytes are cut up: LF, CR or CRLF,
 * comments and other fields skipped, several data lines joined by a newline. An event the stream breaks off in is given too.
 */
export async function* eventData(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<string, void> {
  let data: string[] = []
  let chars = 0
  for await (const line of lines(bytes)) {
    if (line === '' && data.length > 0) {
      yield data.join('\n')
      data = []
      chars = 0
    }
    if (line === 'data') data.push('')
    else if (line.startsWith('data:')) data.push(line.slice(line[5] === ' ' ? 6 : 5))
    else continue
    chars += line.length
    if (chars > EVENT_CHARS) throw new Error(`an event of more than ${EVENT_CHARS} characters`)
  }
  if (data.length > 0) yield data.join('\n')
}

async function* lines(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<string, void> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of bytes) {
    rest += decoder.decode(chunk, { stream: true })
    // A CR at the very end may be half of a CRLF.
    const open = rest.endsWith('\r') ? '\r' : ''
    const cut = rest.slice(0, rest.length - open.length).split(/\r\n|\n|\r/)
    rest = (cut.pop() ?? '') + open
    if (rest.length > LINE_CHARS) throw new Error(`a line of more than ${LINE_CHARS} characters`)
    yield* cut
  }
  rest += decoder.decode()
  if (rest !== '') yield* rest.split(/\r\n|\n|\r/)
}
