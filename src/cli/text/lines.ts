/** The lines of a stream of bytes, without their ends; empty ones are left out. */
export async function* lines(bytes: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): AsyncGenerator<string, void> {
  const decoder = new TextDecoder()
  // Kept in pieces: a result of 100,000 edits is one line of many chunks.
  let pieces: string[] = []
  for await (const chunk of bytes) {
    const [first = '', ...rest] = decoder.decode(chunk, { stream: true }).split('\n')
    pieces.push(first)
    for (const next of rest) {
      const line = pieces.join('')
      if (line !== '') yield line
      pieces = [next]
    }
  }
  const last = pieces.join('') + decoder.decode()
  if (last !== '') yield last
}
