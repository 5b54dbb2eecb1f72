/**
 * Which edits besides a probe's own state the same fact. With thousands of edits in memory many "neighbours" are edited by another record, and
 * many facts are there twice in other words. The rule: an edit of the same subject whose wording belongs to the probe's relation is right; one
 * whose relation CounterFact itself words alike (MADE_ALIKE) is neither right nor a false alarm.
 */
import type { Edit } from '../src/edit/edit.ts'
import { words } from '../src/edit/words.ts'
import type { Probe } from './gate-data.ts'

/** Wikidata properties that CounterFact's wordings do not keep apart ("X, from" is any of several). */
const MADE_ALIKE = [
  'P176 P178',
  'P17 P131 P276 P30 P159',
  'P495 P740',
  'P364 P407',
  'P101 P106',
  'P103 P1412',
  'P413 P641',
  'P1303 P136',
].map((set) => set.split(' '))
/** WikiFactDiff's and MQuAKE's wordings of one relation, each row one; the subject is X. */
const WORDED_ALIKE = [
  ['x is in', 'x can be found in', 'x is positioned in', 'x is located in', 'x is situated in'],
  [
    'x played for',
    'x played for the',
    'x represented',
    'x plays for',
    'x was a player for',
    'x was a player in the',
    'x represented the',
  ],
  ['x held the position of', 'x was a', 'x was the', 'x served as a', 'x served as the'],
]
const HEAD_OF = /head of|govern|prime minister|president|executive/

interface Record {
  readonly requested_rewrite: { readonly prompt: string; readonly relation_id: string }
  readonly neighborhood_prompts: readonly string[]
  readonly attribute_prompts: readonly string[]
}

const plain = (text: string) => words(text).join(' ')
const masked = (text: string, subject: string) => ` ${plain(text)} `.replaceAll(` ${plain(subject)} `, ' x ').trim()

/** CounterFact relations by wording: a wording belongs to a relation when at least two of its prompts, of whatever subject, are so worded. */
function wordings(records: readonly Record[]): (worded: string) => ReadonlySet<string> {
  const prompts = new Map<string, Set<string>>()
  const own = new Map<string, Set<string>>()
  for (const { requested_rewrite: r, neighborhood_prompts, attribute_prompts } of records) {
    const seen = prompts.get(r.relation_id) ?? new Set()
    prompts.set(r.relation_id, seen)
    for (const text of [...neighborhood_prompts, ...attribute_prompts]) seen.add(plain(text))
    const worded = plain(r.prompt.replace('{}', ' xsubjectx ')).replace('xsubjectx', 'x')
    own.set(worded, (own.get(worded) ?? new Set()).add(r.relation_id))
  }
  const cache = new Map<string, ReadonlySet<string>>()
  return (worded) => {
    const had = cache.get(worded)
    if (had !== undefined) return had
    const out = new Set(own.get(worded))
    const [before, after, more] = ` ${worded} `.split(' x ')
    if (before !== undefined && after !== undefined && more === undefined && (before + after).trim() !== '')
      for (const [relation, texts] of prompts) {
        const fits = [...texts].filter(
          (t) => t.startsWith(before.trim()) && t.endsWith(after.trim()) && t.length > before.length + after.length,
        )
        if (fits.length >= 2) out.add(relation)
      }
    cache.set(worded, out)
    return out
  }
}

export function sameFacts(edits: readonly Edit[], probes: readonly Probe[], records: readonly Record[]): Probe[] {
  const relationsOf = wordings(records)
  const bySubject = new Map<string, Edit[]>()
  for (const edit of edits) bySubject.set(plain(edit.subject), [...(bySubject.get(plain(edit.subject)) ?? []), edit])
  const byId = new Map(edits.map((e) => [e.id, e]))
  const alike = (a: ReadonlySet<string>, b: ReadonlySet<string>) =>
    MADE_ALIKE.some((set) => set.some((r) => a.has(r)) && set.some((r) => b.has(r)))
  const shares = (a: ReadonlySet<string>, b: ReadonlySet<string>) => [...a].some((r) => b.has(r))
  const worded = (a: string, b: string) =>
    a === b ||
    (spoken(a) !== '' && spoken(a) === spoken(b)) ||
    WORDED_ALIKE.some((row) => row.includes(a) && row.includes(b)) ||
    (HEAD_OF.test(a) && HEAD_OF.test(b)) ||
    (/coach|manage/.test(a) && /coach/.test(b))
  return probes.map((probe) => {
    const own = byId.get(probe.wants[0] ?? '')
    const subjects = own === undefined ? namesIn(probe.text, bySubject) : [plain(own.subject)]
    const wants = new Set(probe.wants)
    const also = new Set<string>()
    for (const subject of subjects)
      for (const edit of bySubject.get(subject) ?? []) {
        const stated = masked(edit.prompt, edit.subject)
        const asked = masked(probe.text, edit.subject)
        const mine =
          probe.kind.startsWith('cf.') || probe.kind.startsWith('mq.')
            ? new Set([probe.group])
            : relationsOf(own === undefined ? asked : masked(own.prompt, own.subject))
        const theirs = relationsOf(stated)
        const sameWording = own === undefined ? asked : masked(own.prompt, own.subject)
        if (own === undefined && partOfLonger(probe.text, edit.subject)) continue
        if (own === undefined && probe.kind.startsWith('cf.') && !relationsOf(asked).has(probe.group)) continue
        if (worded(sameWording, stated) || shares(mine, theirs)) wants.add(edit.id)
        else if (alike(mine, theirs) || (probe.kind.startsWith('zsre') && own !== undefined)) also.add(edit.id)
        else if (/continent/.test(stated) && (mine.has('P30') || mine.has('P17'))) also.add(edit.id)
      }
    return { ...probe, wants: [...wants], also: [...also].filter((id) => !wants.has(id)) }
  })
}

const SILENT = new Set('x is was are were be being has had have which that who whose it the a an s'.split(' '))

/** A wording without the subject and the words that say nothing: "x was named for" and "x named for" are one. */
function spoken(worded: string): string {
  const said = worded.split(' ').filter((w) => !SILENT.has(w))
  return said.some((w) => w.length > 4) ? said.join(' ') : ''
}

/** Whether the name goes on in the text ("iPhone" in "iPhone 7", "Florence" in "Duchy of Florence"): then it is another thing's. */
function partOfLonger(text: string, subject: string): boolean {
  const at = text.toLowerCase().indexOf(subject.toLowerCase())
  if (at === -1) return false
  const after = text.slice(at + subject.length)
  const before = text.slice(0, at)
  return (
    /^[ -](?:\p{Lu}|\p{N})/u.test(after) ||
    /\p{Lu}[\p{L}.]+ (?:of (?:the )?)?$/u.test(before.replace(/^(?:In|The|Where|What|Who|Which) /u, ''))
  )
}

/** Subjects that a text names in full. */
function namesIn(text: string, bySubject: ReadonlyMap<string, unknown>): string[] {
  const parts = words(text)
  const out: string[] = []
  for (let from = 0; from < parts.length; from++)
    for (let to = from + 1; to <= Math.min(parts.length, from + 16); to++) {
      const name = parts.slice(from, to).join(' ')
      if (bySubject.has(name)) out.push(name)
    }
  return out
}
