/** Text for a terminal: pure, and safe whatever the text holds. */
import width from 'string-width'

/** What would move the cursor or colour the screen is shown as a blank; newlines and tabs stay. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is taken out
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, ' ')
}

/** On one line, in at most `columns` columns, with an ellipsis where it was cut. */
export function clip(text: string, columns: number): string {
  const line = printable(text).replace(/\s+/g, ' ').trim()
  if (width(line) <= columns) return line
  let out = ''
  for (const character of line) {
    if (width(out) + width(character) > columns - 1) break
    out += character
  }
  return `${out}…`
}

/** Rows under a heading, columns as wide as their widest cell. A column named with a trailing `>` is aligned to the right. */
export function table(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  const titles = heading.map((title) => title.replace(/>$/, ''))
  const widths = titles.map((title, i) => Math.max(width(title), ...rows.map((row) => width(row[i] ?? ''))))
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => {
        const space = ' '.repeat(Math.max(0, (widths[i] ?? 0) - width(cell)))
        return heading[i]?.endsWith('>') ? space + cell : cell + space
      })
      .join('  ')
      .trimEnd()
  return [titles, ...rows].map(line).join('\n')
}

/** `3 edits`, `1 edit`. */
export function count(number: number, noun: string): string {
  return `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : /(s|x|ch)$/.test(noun) ? 'es' : 's'}`
}
