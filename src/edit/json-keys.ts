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
  /** Names seen in each open object; null for a list. */
  const open: (Set<string> | null)[] = []
  let isKey = false
  for (let at = 0; at < text.length; at++) {
    switch (text[at]) {
      case '{':
        open.push(new Set())
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
        isKey = open.at(-1) instanceof Set
        break
      case '"': {
        const end = endOfText(text, at)
        if (isKey) {
          const key = named(text.slice(at, end + 1))
          if (open.at(-1)?.has(key)) return { key, at }
          open.at(-1)?.add(key)
        }
        isKey = false
        at = end
        break
      }
    }
  }
  return null
}

/** Offset of the quote that ends the text which begins at `from`. */
function endOfText(text: string, from: number): number {
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
