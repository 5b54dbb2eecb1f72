/**
 * What JSON.parse does not tell: where in the text each record begins, and where the text stops being JSON (RFC 8259).
 * A stack machine, so that depth costs memory and not the call stack.
 */
export interface Outline {
  /** Offset of the top-level value. */
  readonly root: number
  /** Offsets of the elements of the top-level list, or of the list `edits` in the top-level object; empty when it is neither. */
  readonly elements: readonly number[]
  /** Where the text stops being JSON, and what could have stood there. */
  readonly fault?: { readonly at: number; readonly expected: string }
}

type Want = 'value' | 'key' | 'colon' | 'next' | 'end'

const EXPECTED: Readonly<Record<Want, string>> = {
  value: 'a value',
  key: 'a field name in double quotes',
  colon: '":"',
  next: '"," or the end of the list or object',
  end: 'nothing more',
}

export function outline(text: string): Outline {
  const cursor = { at: 0, from: 0 }
  const open: Token[] = []
  let elements: number[] = []
  let recordDepth = Number.NaN // how many brackets are open around a record
  let want: Want = 'value'
  let fresh = false // a bracket was just opened: it may close at once
  let root = 0

  for (;;) {
    const token = nextToken(text, cursor)
    const inside = open.at(-1)
    const closes = (token === ']' && inside === '[' && want !== 'colon') || (token === '}' && inside === '{' && want !== 'colon')
    if (want === 'end' && token === 'end') return { root, elements }
    if (closes && (want === 'next' || fresh)) {
      open.pop()
      if (open.length < recordDepth) recordDepth = Number.NaN
      want = open.length === 0 ? 'end' : 'next'
      fresh = false
    } else if (want === 'value' && (token === '[' || token === '{' || token === 'text' || token === 'scalar')) {
      if (open.length === 0) root = cursor.from
      if (open.length === recordDepth) elements.push(cursor.from)
      fresh = token === '[' || token === '{'
      if (fresh) open.push(token)
      if (token === '[' && open.length === 1) recordDepth = 1
      want = token === '[' ? 'value' : token === '{' ? 'key' : open.length === 0 ? 'end' : 'next'
    } else if (want === 'key' && token === 'text') {
      const isEdits = open.length === 1 && text.slice(cursor.from, cursor.at) === '"edits"'
      if (isEdits) [recordDepth, elements] = [2, []]
      else if (open.length === 1) recordDepth = Number.NaN
      want = 'colon'
      fresh = false
    } else if (want === 'colon' && token === ':') {
      want = 'value'
    } else if (want === 'next' && token === ',') {
      want = inside === '[' ? 'value' : 'key'
    } else {
      return {
        root,
        elements,
        fault: { at: cursor.from, expected: token === 'broken' ? 'a text that ends and escapes that exist' : EXPECTED[want] },
      }
    }
  }
}

type Token = '{' | '}' | '[' | ']' | ':' | ',' | 'text' | 'scalar' | 'broken' | 'unknown' | 'end'

const SPACE = /[ \t\n\r]*/y
const SCALAR = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y
/** JSON forbids U+0000 to U+001F in a text, and allows U+007F to U+009F. */
const PLAIN = /[^"\\\p{Cc}]+|[\u007f-\u009f]+/uy
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y

/** The token after `cursor.at`; `from` and `at` are then its two ends (a fault inside a text: where the fault is). */
function nextToken(text: string, cursor: { at: number; from: number }): Token {
  cursor.from = skip(SPACE, text, cursor.at)
  cursor.at = cursor.from + 1
  const char = text[cursor.from]
  switch (char) {
    case undefined:
      return 'end'
    case '{':
    case '}':
    case '[':
    case ']':
    case ':':
    case ',':
      return char
    case '"':
      return endText(text, cursor)
    default:
      cursor.at = skip(SCALAR, text, cursor.from)
      return cursor.at > cursor.from ? 'scalar' : 'unknown'
  }
}

function endText(text: string, cursor: { at: number; from: number }): Token {
  for (;;) {
    const at = cursor.at
    if (text[at] === '"') {
      cursor.at++
      return 'text'
    }
    cursor.at = skip(text[at] === '\\' ? ESCAPE : PLAIN, text, at)
    if (cursor.at === at) {
      cursor.from = at
      return 'broken'
    }
  }
}

function skip(pattern: RegExp, text: string, at: number): number {
  pattern.lastIndex = at
  return pattern.test(text) ? pattern.lastIndex : at
}

/** Turns offsets into 1-based lines; offsets must not fall. */
export function linesAt(text: string, offsets: readonly number[]): number[] {
  let line = 1
  let newline = text.indexOf('\n')
  return offsets.map((offset) => {
    for (; newline !== -1 && newline < offset; newline = text.indexOf('\n', newline + 1)) line++
    return line
  })
}
