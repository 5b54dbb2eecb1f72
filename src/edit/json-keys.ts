/** A field that an object of the text names twice, and where. */
export interface RepeatedKey {
  readonly key: string
  /** Offset of its second mention. */
  readonly at: number
}

/**
 * The first field that one object of a JSON text names twice; null where there is none. JSON.parse lets the last one win without a word, and so
 * two readers of one text may see two things (RFC 8259, section 4). The text must be JSON. Time and memory are linear in its length.
 */
export function repeatedKey(text: string): RepeatedKey | null {
  const open: Seen[] = []
  let isKey = false
  for (let at = 0; at < text.length; at++) {
    switch (text[at]) {
      case '{':
        open.push(undefined)
        isKey = true
        break
      case '[':
        open.push(null)
        isKey = false
        break
      case '}':
      case ']':
        open.pop()
        break
      case ',':
        isKey = open.length > 0 && open.at(-1) !== null
        break
      case '"': {
        const end = endOfText(text, at)
        if (isKey) {
          const key = named(text.slice(at, end + 1))
          if (isRepeated(open, key)) return { key, at }
        }
        isKey = false
        at = end
        break
      }
    }
  }
  return null
}

/** Names seen in an open object, the first by itself, since most deep ones have no other; null for a list. */
type Seen = Set<string> | string | undefined | null

/** Notes the name in the innermost object. */
function isRepeated(open: Seen[], key: string): boolean {
  const seen = open.at(-1)
  if (seen instanceof Set) {
    if (seen.has(key)) return true
    seen.add(key)
  } else if (seen === key) return true
  else open[open.length - 1] = seen == null ? key : new Set([seen, key])
  return false
}

/**
 * Whether an object in what JSON.parse made of the text has a field `__proto__`. Copies of such an object lose the field, or take it for
 * their prototype, and nobody means one.
 */
export function hasPrototypeKey(text: string, value: unknown): boolean {
  if (!/__proto__|\\u00/i.test(text)) return false
  const open: unknown[] = [value]
  while (open.length > 0) {
    const one = open.pop()
    if (typeof one !== 'object' || one === null) continue
    if (Object.hasOwn(one, '__proto__')) return true
    for (const inner of Object.values(one)) open.push(inner)
  }
  return false
}

/** Offset of the quote that ends the text which begins at `from`. */
export function endOfText(text: string, from: number): number {
  for (let at = from + 1; at < text.length; at++) {
    if (text[at] === '\\') at++
    else if (text[at] === '"') return at
  }
  return text.length
}

function named(quoted: string): string {
  return quoted.includes('\\') ? (JSON.parse(quoted) as string) : quoted.slice(1, -1)
}

/** The digits of the whole number that the outermost object holds as `key`, which JSON.parse rounds beyond 2^53; undefined for anything else. */
export function wholeNumberAt(text: string, key: string): string | undefined {
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    const char = text[at]
    if (char === '{' || char === '[') depth++
    else if (char === '}' || char === ']') depth--
    else if (char === '"') {
      const end = endOfText(text, at)
      if (depth === 1 && named(text.slice(at, end + 1)) === key) {
        WHOLE.lastIndex = end + 1
        const digits = WHOLE.exec(text)?.[1]
        if (digits !== undefined) return digits
      }
      at = end
    }
  }
  return undefined
}

/** After a key. */
const WHOLE = /\s*:\s*(-?\d{1,20})(?![\d.eE])/y
