// @ts-check
// An edit in words: a plain sentence as it stands, a fact as its prompt and answer, a rule with its occasion.
import { html } from '../vendor/preact.js'

/** @typedef {'sentence' | 'fact' | 'rule'} Kind */

/** @param {any} edit @returns {Kind} */
export function kindOf(edit) {
  if (typeof edit?.instruction === 'string') return 'rule'
  return typeof edit?.text === 'string' ? 'sentence' : 'fact'
}

/** What comes first, and what is to be said or done. @param {any} edit @returns {readonly [before: string, after: string]} */
function halves(edit) {
  const of = (/** @type {string} */ name) => String(edit?.[name] ?? '').trim()
  switch (kindOf(edit)) {
    case 'rule':
      return [edit.always ? 'Always:' : `${occasion(of('when') || '…')}:`, of('instruction')]
    case 'sentence':
      return [of('text'), '']
    default:
      return [of('prompt'), of('target_new')]
  }
}

/** "someone asks" and "When someone asks." both begin with one "When". @param {string} when */
function occasion(when) {
  const bare = when.replace(/[\s:,.]+$/, '')
  return /^(?:when|whenever|if)\s/i.test(bare) ? bare.charAt(0).toUpperCase() + bare.slice(1) : `When ${bare}`
}

/** The edit in one line of text. @param {any} edit */
export function statementOf(edit) {
  return halves(edit).filter(Boolean).join(' ')
}

/** The same with its weightier half in bold. @param {{edit: any}} props */
export function Statement({ edit }) {
  const [before, after] = halves(edit)
  return after === '' ? before : html`${before} <strong>${after}</strong>`
}

/** What a trace says of an edit: its own fields where they are given, else the statement, the subject or the id. @param {any} told @returns {string} */
export function toldOf(told) {
  const said = statementOf(told) || told.statement || told.subject || told.id
  return told.reason === 'always' && !/^always/i.test(said) ? `Always: ${said}` : said
}

/** A message that should need the edit, where one is known. @param {any} edit @returns {string | undefined} */
export function questionOf(edit) {
  return edit.examples?.[0] ?? (kindOf(edit) === 'fact' ? edit.prompt : undefined)
}

const SHORT_CHARS = 160

/** Short enough for a heading. @param {string} said */
export function shortened(said) {
  return said.length <= SHORT_CHARS ? said : `${said.slice(0, SHORT_CHARS).replace(/\s+\S*$/, '')}…`
}
