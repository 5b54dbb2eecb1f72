// @ts-check
// Plain text as edits: one sentence a line, but for lines that begin with "# ".

/** Names with which our own records may begin, in YAML or in the head of a CSV file. */
const FIELDS =
  'edits|tenant|tags|id|text|subject|aliases|prompt|target_new|target_true|relation|paraphrases|examples|counterexamples|when|always|instruction|models|source|valid_from|valid_to'
const RECORDS = new RegExp(`^\\s*(?:[\\[{](?:[\\s\\[{}\\]"]|$)|---\\s*$|(?:-\\s+)?["']?(?:${FIELDS})["']?\\s*[:,])`)
const COMMENT = /^\s*#\s/
const BULLET = /^\s*[-*•·]\s+/

/** @param {string} text */
function linesOf(text) {
  return text.replace(/^\uFEFF/, '').split(/\r\n|\r|\n/)
}

/** Whether the text is JSON, YAML or CSV rather than sentences: its first line that says something tells. @param {string} text */
export function isRecords(text) {
  return RECORDS.test(linesOf(text).find((line) => line.trim() !== '' && !COMMENT.test(line)) ?? '')
}

/** JSON lines, a sentence where its line was, so that faults are told by the lines of the text. Bullets are left out. @param {string} text */
export function sentenceLines(text) {
  return linesOf(text)
    .map((line) => (COMMENT.test(line) ? '' : line.replace(BULLET, '').trim()))
    .map((sentence) => (sentence === '' ? '' : JSON.stringify({ text: sentence })))
    .join('\n')
}
