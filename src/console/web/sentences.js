// @ts-check
// Plain text as edits: one sentence a line.

/** Names with which our own records may begin, in YAML or in the head of a CSV file. */
const FIELDS =
  'edits|tenant|tags|id|text|subject|aliases|prompt|target_new|target_true|relation|paraphrases|examples|counterexamples|when|always|instruction|models|source|valid_from|valid_to'
const RECORDS = new RegExp(`^\\s*(?:[\\[{]|---\\s*$|#|(?:-\\s+)?["']?(?:${FIELDS})["']?\\s*[:,])`, 'mu')

/** Whether the text is JSON, YAML or CSV rather than sentences: its first line that is not blank tells. @param {string} text */
export function isRecords(text) {
  const first =
    text
      .replace(/^\uFEFF/, '')
      .trimStart()
      .split('\n', 1)[0] ?? ''
  return RECORDS.test(first)
}

/** JSON lines, a sentence where its line was, so that faults are told by the lines of the text. Bullets are left out. @param {string} text */
export function sentenceLines(text) {
  return text
    .replace(/^\uFEFF/, '')
    .split(/\r\n|\r|\n/)
    .map((line) => line.replace(/^\s*(?:[-*•·]\s+)?/u, '').trim())
    .map((sentence) => (sentence === '' ? '' : JSON.stringify({ text: sentence })))
    .join('\n')
}
