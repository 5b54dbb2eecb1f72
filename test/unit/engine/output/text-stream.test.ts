import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { TextStream } from '../../../../src/engine/output/text-stream.ts'

/** What the stream gives for `text` cut into the given byte pieces. */
function streamed(
  pieces: readonly Uint8Array[],
  stops: readonly string[],
  dropFirstSpace = false,
): { shown: string[]; stopped: boolean } {
  const stream = new TextStream(stops, dropFirstSpace)
  const shown = pieces.map((piece) => stream.push(piece))
  return { shown: [...shown, stream.end()], stopped: stream.stopped }
}

/** The rule, said slowly: grow the text one character at a time until it ends with a stop string. */
function expected(text: string, stops: readonly string[]): string {
  for (let end = 1; end <= text.length; end++) {
    const starts = stops.filter((stop) => stop !== '' && text.slice(0, end).endsWith(stop)).map((stop) => end - stop.length)
    if (starts.length > 0) return text.slice(0, Math.min(...starts))
  }
  return text
}

function cut(bytes: Uint8Array, at: readonly number[]): Uint8Array[] {
  const points = [0, ...at.map((n) => n % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
  return points.slice(1).map((end, i) => bytes.subarray(points[i], end))
}

const letters = fc.constantFrom('a', 'b', 'c', 'é', '漢', '👩‍🚀', ' ', '\n', '\ufeff')
const words = fc.array(letters, { maxLength: 30 }).map((all) => all.join(''))
const stopStrings = fc.array(
  fc.array(letters, { maxLength: 4 }).map((all) => all.join('')),
  { maxLength: 4 },
)

describe('TextStream', () => {
  it('gives the same text however the bytes are cut, with the stop string and all after it removed', () => {
    fc.assert(
      fc.property(words, stopStrings, fc.array(fc.nat(200), { maxLength: 20 }), (text, stops, at) => {
        const { shown, stopped } = streamed(cut(Buffer.from(text), at), stops)
        expect(shown.join('')).toBe(expected(text, stops))
        expect(stopped).toBe(expected(text, stops) !== text)
      }),
      { numRuns: 2000 },
    )
  })

  it('never shows half a character, nor anything it would have to take back', () => {
    fc.assert(
      fc.property(words, stopStrings, (text, stops) => {
        const bytes = [...Buffer.from(text)].map((byte) => Uint8Array.of(byte))
        let so = ''
        for (const piece of streamed(bytes, stops).shown) {
          expect(piece).not.toMatch(/[\ud800-\udbff]$|^[\udc00-\udfff]|\ufffd/)
          so += piece
          expect(expected(text, stops).startsWith(so)).toBe(true)
        }
      }),
      { numRuns: 500 },
    )
  })

  it('decodes any bytes as a decoder does that sees them at once', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), fc.array(fc.nat(40)), (bytes, at) => {
        const whole = new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes)
        expect(streamed(cut(bytes, at), []).shown.join('')).toBe(whole)
      }),
    )
  })

  it('shows text at once where nothing can become a stop string', () => {
    const stream = new TextStream(['\nUser:'])
    expect(stream.push(Buffer.from('Paris.'))).toBe('Paris.')
    expect(stream.push(Buffer.from('\nUs'))).toBe('')
    expect(stream.push(Buffer.from('ual'))).toBe('\nUsual')
    expect(stream.push(Buffer.from('\nUser: more'))).toBe('')
    expect(stream.stopped).toBe(true)
    expect(stream.push(Buffer.from('more'))).toBe('')
    expect(stream.end()).toBe('')
  })

  it('replaces an unfinished character at the end', () => {
    expect(streamed([Uint8Array.of(0x61, 0xe6, 0xbc)], []).shown.join('')).toBe('a\ufffd')
  })

  it('drops one leading space when asked, and only one, and only there', () => {
    expect(streamed([Buffer.from(' '), Buffer.from(' a b')], [], true).shown.join('')).toBe(' a b')
    expect(streamed([Buffer.from('a b')], [], true).shown.join('')).toBe('a b')
    expect(streamed([Buffer.from(' a')], [], false).shown.join('')).toBe(' a')
  })

  it('does not cut an emoji at a stop string that is half of one', () => {
    expect(streamed([Buffer.from('a😀b')], ['\ud83d']).shown.join('')).toBe('a😀b')
  })
})
