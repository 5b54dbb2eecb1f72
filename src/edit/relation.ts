/**
 * What an edit asks of its subject, as words: the relation. Two wordings get the same words only where a rule of English syntax is certain
 * that they ask the same ("The capital of X is", "What is X's capital?"); whether other wordings do is `selection/sameness.ts`'s question.
 */
import type { Edit } from './edit.ts'
import { normalized, words } from './words.ts'

/** The subject's place among a relation's words. Never a word itself. */
export const SUBJECT = '_'

type Stated = Pick<Edit, 'subject' | 'aliases' | 'prompt'>

/** The words of a text with each occurrence of the subject (or, where it has none, of an alias) as one `SUBJECT`. */
export function relationWords(text: string, { subject, aliases }: Pick<Edit, 'subject' | 'aliases'>): string[] {
  const all = words(text)
  const names = [subject, ...aliases.toSorted((a, b) => b.length - a.length)]
  for (const name of names) {
    const masked = mask(all, words(name))
    if (masked.length !== all.length || masked.includes(SUBJECT)) return masked
  }
  return all
}

function mask(all: readonly string[], name: readonly string[]): string[] {
  if (name.length === 0) return [...all]
  const out: string[] = []
  for (let i = 0; i < all.length; i++) {
    if (name.every((word, j) => all[i + j] === word)) {
      out.push(SUBJECT)
      i += name.length - 1
    } else out.push(all[i] ?? '')
  }
  return out
}

/** "the capital of _", "_ s capital": a noun and whose it is. */
const NOUN_OF = /^(?:the )?(.+) of _$/
const OWNERS_NOUN = /^_ s (.+)$/
/** What a sentence has around such a noun: "The … is", "Who is the …?", "Who's …?". */
const CLOZE = /^(.+) is(?: currently| now)?$/
const QUESTION = /^(?:who|what|which)(?: is| s)(?: currently| now)? (.+)$/
/** Before a noun, and adding nothing: an edit states what holds now. */
const IDLE = /^(?:(?:current|present) |name of (?:the )?)+(?=.)/
const WHO_DID = /^who (\S+) _$/
const BY_WHOM = /^by whom (is|was) _ (\S+)$/

/** The wording that stands for all that certainly ask the same as `text`. */
export function canonicalRelation(text: string, names: Pick<Edit, 'subject' | 'aliases'>): string {
  const said = relationWords(text, names).join(' ')
  const noun = CLOZE.exec(said)?.[1] ?? QUESTION.exec(said)?.[1]
  const of = noun === undefined ? undefined : (OWNERS_NOUN.exec(noun)?.[1] ?? NOUN_OF.exec(noun)?.[1])
  if (of !== undefined) return `${of.replace(IDLE, '').replace(/^capital city$/, 'capital')} of _`
  const did = WHO_DID.exec(said)?.[1]
  const passive = did === undefined ? undefined : passiveOf(did)
  if (passive !== undefined) return `_ ${passive} by`
  const [, is, done] = BY_WHOM.exec(said) ?? []
  return done === undefined ? said : `_ ${is} ${done} by`
}

/** Of verbs that are not regular: "wrote" to "was written". */
const PARTICIPLES: ReadonlyMap<string, string> = new Map(
  `wrote was written, sang was sung, drew was drawn, built was built, made was made, won was won, led was led, ran was run, began was begun,
  taught was taught, bought was bought, sold was sold, shot was shot, gave was given, took was taken, leads is led, runs is run,
  makes is made, builds is built, teaches is taught, writes is written, sells is sold, wins is won`
    .split(/,\s*/)
    .map((line) => [line.split(' ', 1)[0] ?? '', line.slice(line.indexOf(' ') + 1)]),
)
const AUXILIARY = new Set(['was', 'has', 'does', 'is'])

/** "wrote" to "was written", "owns" to "is owned"; undefined for what is no verb in such a form. */
export function passiveOf(verb: string): string | undefined {
  const irregular = PARTICIPLES.get(verb)
  if (irregular !== undefined || AUXILIARY.has(verb)) return irregular
  if (/..ed$/.test(verb)) return `was ${verb}`
  const stem = /^(\S*[^su])s$/.exec(verb)?.[1]
  return stem === undefined ? undefined : `is ${stem}${stem.endsWith('e') ? 'd' : 'ed'}`
}

/** The relation as a key: by label when one is given, for the user knows best; else by the prompt's canonical wording. */
export function relationKey(edit: Stated & Pick<Edit, 'relation'>): string {
  return edit.relation === undefined ? canonicalRelation(edit.prompt, edit) : `=${edit.relation.trim().toLowerCase()}`
}

/** What supersession compares: later beats earlier on an equal key. Edits for other models never share one. */
export function supersessionKey(
  edit: Stated & Pick<Edit, 'relation' | 'tenant' | 'models'> & Partial<Pick<Edit, 'kind' | 'always' | 'targetNew'>>,
): string {
  const models =
    edit.models === undefined
      ? ''
      : `\u0000${edit.models
          .map((name) => name.toLowerCase())
          .toSorted()
          .join('\u0001')}`
  const subject = edit.kind === 'sentence' || edit.always ? '' : words(edit.subject).join(' ')
  // Joined, it is one flat text; a template would keep its parts beside it, for every edit.
  return [edit.tenant, subject, `${asked(edit)}${models}`].join('\u0000')
}

/** A fact's relation, or its prompt where it names no subject; a rule's occasion; of what has neither, all it says. No word begins with a colon. */
function asked(edit: Parameters<typeof supersessionKey>[0]): string {
  switch (edit.kind) {
    case undefined:
      return edit.subject === '' ? `:fact ${spelled(edit.prompt)}` : relationKey(edit)
    case 'sentence':
      return `:sentence ${spelled(edit.prompt)}`
    case 'rule':
      return edit.always ? `:always ${spelled(edit.targetNew ?? '')}` : `:rule ${spelled(edit.prompt)}`
    default:
      return edit.kind satisfies never
  }
}

/** A text's words; of one without any, such as "???", its signs. */
function spelled(text: string): string {
  return words(text).join(' ') || normalized(text)
}
