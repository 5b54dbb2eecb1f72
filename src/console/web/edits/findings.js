// @ts-check
// What a dry run may find, in plain words.

/** @typedef {readonly [kind: string, title: string, tone: '' | 'warn' | 'bad', about: string]} FindingKind */

/** The weightiest first, as the gateway finds them. @type {readonly FindingKind[]} */
const KINDS = [
  ['conflict', 'Contradictions within the file', 'bad', 'Two of its edits say different things of the same. The later one wins.'],
  [
    'conflict_in_other_words',
    'Contradictions in other words',
    'bad',
    'Worded differently; the later one wins where a message meets both.',
  ],
  ['misses_own_prompt', 'Missed by their own words', 'bad', 'The very message that the edit is for does not bring it up.'],
  ['fires_on_everyday', 'Brought up by everyday messages', 'bad', 'A message about something else entirely brings the edit up.'],
  [
    'fires_on_other',
    'Brought up by messages for other edits',
    'warn',
    'The message that another edit is for brings this one up too.',
  ],
  ['misses_paraphrase', 'Missed by another wording', 'warn', 'One of the other wordings or examples does not bring the edit up.'],
  ['duplicate', 'Said twice', 'warn', 'Two records say the same. It lands once.'],
  ['supersedes', 'Edits in memory that would be superseded', 'warn', 'They are live again when this batch is rolled back.'],
  [
    'outdates',
    'Edits in memory that are outdated',
    'warn',
    'Worded differently: they stay live, and are left out where a message meets both.',
  ],
  [
    'subject_not_in_prompt',
    'Prompts that do not name their subject',
    '',
    'If the prompt is about something else, change one of the two.',
  ],
]

/** A kind that this page does not know is still readable. @param {string} kind @returns {FindingKind} */
function described(kind) {
  const words = kind.replaceAll('_', ' ')
  return KINDS.find(([known]) => known === kind) ?? [kind, words.charAt(0).toUpperCase() + words.slice(1), 'warn', '']
}

/** The kinds that a report has findings of. @param {{counts: Record<string, number>}} report @returns {FindingKind[]} */
export function kindsFound({ counts }) {
  const known = KINDS.map(([kind]) => kind)
  const unknown = Object.keys(counts).filter((kind) => !known.includes(kind))
  return [...known, ...unknown].filter((kind) => (counts[kind] ?? 0) > 0).map(described)
}

/** One finding in a sentence: the gateway's, or else what its kind means. @param {{kind: string, message?: string}} finding */
export function findingSaid({ kind, message }) {
  const [, title, , about] = described(kind)
  return message || about || `${title}.`
}
