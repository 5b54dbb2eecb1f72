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

/** What is known between two tokens. */
interface Walk {
  /** Ends of the last token. */
  at: number
  from: number
  readonly open: ('[' | '{')[]
  want: Want
  /** A bracket was just opened: it may close at once. */
  fresh: boolean
  root: number
  elements: number[]
  /** How many brackets are open around a record; null outside of the list of records. */
  recordDepth: number | null
}

export function outline(text: string): Outline {
  const walk: Walk = { at: 0, from: 0, open: [], want: 'value', fresh: false, root: 0, elements: [], recordDepth: null }
  for (;;) {
    const token = nextToken(text, walk)
    const { root, elements, want, from } = walk
    if (want === 'end' && token === 'end') return { root, elements }
    if (take(walk, token, text)) continue
    const expected = token === 'broken' ? 'a text that ends and escapes that exist' : EXPECTED[want]
    return { root, elements, fault: { at: from, expected } }
  }
}

/** False where the token can't stand. */
function take(walk: Walk, token: Token, text: string): boolean {
  if (closes(walk, token)) return close(walk)
  switch (walk.want) {
    case 'value':
      return takeValue(walk, token)
    case 'key':
      return takeKey(walk, token, text)
    case 'colon':
      walk.want = 'value'
      return token === ':'
    case 'next':
      walk.want = walk.open.at(-1) === '[' ? 'value' : 'key'
      return token === ','
    case 'end':
      return false
    default:
      return walk.want satisfies never
  }
}

function closes({ open, want, fresh }: Walk, token: Token): boolean {
  const opening = token === ']' ? '[' : token === '}' ? '{' : undefined
  return opening !== undefined && open.at(-1) === opening && (want === 'next' || (fresh && want !== 'colon'))
}

function close(walk: Walk): true {
  walk.open.pop()
  if (walk.recordDepth !== null && walk.open.length < walk.recordDepth) walk.recordDepth = null
  walk.want = after(walk)
  walk.fresh = false
  return true
}

function after({ open }: Walk): Want {
  return open.length === 0 ? 'end' : 'next'
}

function takeValue(walk: Walk, token: Token): boolean {
  const opens = token === '[' || token === '{'
  if (!opens && token !== 'text' && token !== 'scalar') return false
  if (walk.open.length === 0) walk.root = walk.from
  if (walk.open.length === walk.recordDepth) walk.elements.push(walk.from)
  walk.fresh = opens
  if (opens) walk.open.push(token)
  if (token === '[' && walk.open.length === 1) walk.recordDepth = 1
  walk.want = token === '[' ? 'value' : token === '{' ? 'key' : after(walk)
  return true
}

function takeKey(walk: Walk, token: Token, text: string): boolean {
  if (token !== 'text') return false
  if (walk.open.length === 1) {
    const isEdits = text.slice(walk.from, walk.at) === '"edits"'
    walk.recordDepth = isEdits ? 2 : null
    if (isEdits) walk.elements = []
  }
  walk.want = 'colon'
  walk.fresh = false
  return true
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
