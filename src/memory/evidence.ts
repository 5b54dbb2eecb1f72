import { MASK } from '../edit/edit.ts'
import { words } from '../edit/words.ts'
import { contrast, opposites } from './contrasts.ts'
import { agrees, mentions } from './likeness.ts'
import type { AnswerKind } from './relations.ts'
import type { NameMatch } from './subject-index.ts'
import { sentences, type Token } from './tokens.ts'

/**
 * What speaks for "this text asks for this edit", by name, each in about [0, 1]. Two kinds, weighed separately because a cosine of
 * whole texts mixes them up (DESIGN, section 5): is the subject meant, and is it this relation that is asked of it?
 */
export const EVIDENCE = [
  'exact', // the subject's name, or an alias, in full
  'misspelt', // all its words, at least one misspelt: share of weight
  'partial', // some of its words: share of weight
  'alike', // a name that resembles it ("C. A. Bushnell" for "Corry A. Bushnell"): how much
  'form', // a name that can be another form of it, word by word ("T. S. Lodge" for "Thomas Soutter Lodge"): 1, or ½ where the last words differ
  'antecedent', // named earlier, and a pronoun stands for it where something is asked
  'lone_word', // the name is one word: easily another thing's name
  'case_mismatch', // a capitalised name, written small in a text that uses capitals
  'extended_left', // a capitalised word right before it: part of a longer name
  'realm', // "Kingdom of", "occupation of" and the like right before it, or "Fethiye Mosque, "
  'extended_right', // a capitalised word or a number right after it
  'inside_longer', // inside another edit's longer name
  'relation', // best cosine of the text around the name, name masked, with prompt and statement, subject masked
  'statement', // the same with the statement alone
  'relation_words', // share of the prompt's relation words that the sentence has
  'bare', // the sentence is nothing but the name
  'decoy', // how much nearer the text is to some other common relation than the edit is
  'gap', // how far the edit's nearest common relation lies behind the text's nearest one
  'profile', // overlap of how text and edit spread over all common relations
  'whole', // cosine of the sentence and the prompt, nothing masked
  'whole_statement', // cosine of the sentence and the statement
  'head_same', // the noun that the name belongs to ("the father of X", "X's father") is the edit's own
  'head_differs', // both have such a noun, and it is another: 1 - cosine
  'head_cosine', // cosine of those nouns where both have one
  'no_head', // the text has none
  'head_contrast', // both have one, and they exclude each other ("date of birth", "place of birth")
  'contrast', // the words around the name have a word that excludes one of the prompt's ("mother", "father")
  'head_stated', // the text has one and the prompt has none: its cosine with prompt and statement
  'head_target', // its cosine with the target ("language", "Finnish")
  'wrong_kind', // who, where or when is asked: how unlikely it is that the target is a person, a place, a date
  'specific', // both text and edit have content words besides the name ("X, in" has none)
  'target_named', // the text itself names the new target
  'asks_number', // a date or amount is asked for, and the target holds no digit
  'told', // the sentence tells something; the question is elsewhere
  'opposed', // the sentence has the opposite of one of the edit's words ("disable", "enable"), or a negation that the edit lacks
  'qualified', // a word beside the name narrows what is asked, and the edit does not have it ("the first pope", "Spain's former king")
  'reversed', // the name stands on the other side of the relation ("whose father is X" for "X's father")
] as const
export type EvidenceName = (typeof EVIDENCE)[number]
export type Evidence = Readonly<Record<EvidenceName, number>>

/** Words on each side of a name that make up its surroundings. */
const WINDOW_WORDS = 5

const STOP = new Set(
  'a an the is are was were be been being of in on at to for from by with as and or that which who whom whose what where when how does do did has have had it its this name there'.split(
    ' ',
  ),
)

/** Crude English stem: enough that "originates", "originated" and "origin" share five letters. */
function stem(word: string): string {
  return word.length <= 5 ? word.replace(/s$/, '') : word.slice(0, 5)
}

/** Weaker than `stem`, which takes "citizen" and "citizenship" for one. */
function singular(word: string): string {
  return word.replace(/s$/, '')
}

export function relationWords(masked: string): Set<string> {
  return new Set(
    words(masked.replaceAll(MASK, ' '))
      .filter((w) => !STOP.has(w))
      .map(stem),
  )
}

/** The sentence around a match, and what is left once the name is masked: of the sentence, of the few words around, and from the name on. */
export interface Surroundings {
  readonly sentence: string
  readonly masked: string
  readonly window: string
  readonly tail: string
  /** Text follows after the sentence. */
  readonly followed: boolean
}

export function surroundings(text: string, tokens: readonly Token[], match: NameMatch): Surroundings {
  const spans = sentences(text)
  const from = spans.findLast((s) => s.start <= match.start)?.start ?? 0
  const to = spans.find((s) => s.end >= match.end)?.end ?? text.length
  const mask = (start: number, end: number) => `${text.slice(start, match.start)}${MASK}${text.slice(match.end, end)}`.trim()
  const left = tokens[Math.max(0, match.firstToken - WINDOW_WORDS)]
  const right = tokens[Math.min(tokens.length - 1, match.firstToken + match.tokenCount - 1 + WINDOW_WORDS)]
  return {
    sentence: text.slice(from, to).trim(),
    masked: mask(from, to),
    window: mask(Math.max(from, left?.start ?? from), Math.min(to, right?.end ?? to)),
    tail: mask(match.start, to),
    followed: text.slice(to).trim() !== '',
  }
}

const BEFORE = /((?:[\p{L}\p{N}'’.-]+ ){0,2}[\p{L}\p{N}'’.-]+) (?:of|for|in|to|by|from|which) (?:the )?$/iu
const NO_HEAD = new Set([...STOP, ...'names current currently present his her their official full are'.split(' ')])

const WHICH = /\b(?:which|what) ((?:[\p{L}-]+ ){1,3}?)(?:is|was|are|were|does|did|do|has|had|can|could) (?:the )?$/iu

/**
 * The noun phrase, of at most two words, that a masked name belongs to: "father" in "the father of X is" and "X's father", "league" in "the
 * league which X plays in" and "what league does X play in"; else "".
 */
export function head(masked: string): string {
  const at = masked.indexOf(MASK)
  if (at === -1) return ''
  const left = masked.slice(0, at)
  const before = BEFORE.exec(left)?.[1] ?? WHICH.exec(left)?.[1]
  if (before !== undefined) {
    const nouns = words(before.replace(/ of (?:the )?/giu, ' '))
    const from = nouns.findLastIndex((w) => NO_HEAD.has(w)) + 1
    if (from < nouns.length) return nouns.slice(from).slice(-2).join(' ')
  }
  const after = masked.slice(at + MASK.length)
  if (!/^['’]/.test(after)) return ''
  const nouns = words(after.replace(/^['’]s?/, '')).slice(0, 3)
  const to = nouns.findIndex((w) => NO_HEAD.has(w))
  return nouns.slice(0, to === -1 ? 2 : Math.min(2, to)).join(' ')
}

const ASKS = /\?|^\W*(?:who|whom|whose|what|which|when|where|why|how)\b/iu
const ASKS_NUMBER = /\b(?:when|(?:what|which) (?:year|date|day|time)|how (?:long|old|many|much|far|tall|often|big|high))\b/iu

/** True when the sentence asks something of the reader: a question, or one left open at the text's end. */
export function asks({ sentence, followed }: Pick<Surroundings, 'sentence' | 'followed'>): boolean {
  return ASKS.test(sentence) || (!followed && !/[.!;]["”)]?\s*$/.test(sentence))
}

const SWITCH = /\b(?:turn|switch)(?:ed|ing|e?s)?(?: \p{L}+){0,3} (on|off)\b/giu
const NEGATION = /\b(?:not|never|no longer|without|cannot)\b|n['’]t\b/iu
const REVERSING = /^(?:un|dis|non|de)(?=.{4})/

function polarWords(text: string): string[] {
  const plain = text
    .replace(SWITCH, (_, way: string) => (way.toLowerCase() === 'on' ? 'enable' : 'disable'))
    .replace(/\bfollowed by\b/giu, 'precede')
  return words(plain)
}

/** Whether a text asks for the opposite of what an edit's prompt speaks of, both with the subject masked. */
export function opposed(asked: string, prompt: string): boolean {
  if (NEGATION.test(asked) !== NEGATION.test(prompt)) return true
  const [a, b] = [polarWords(asked), polarWords(prompt)]
  const undone = (list: string[], other: string[]) =>
    list.some((w) => !other.includes(w) && other.includes(w.replace(REVERSING, '')))
  return opposites(a, b) || undone(a, b) || undone(b, a)
}

const NAMED_AS = new RegExp(
  [
    `whose (?:\\p{L}+ )?(\\p{L}+) (?:is|was|are|were) ${MASK}`,
    `${MASK} (?:is|was|are|were) (?:the |an? )?(?:\\p{L}+ )?(\\p{L}+) (?:of|to)\\b`,
    `\\b(?:is|was|are|were) ${MASK} (?:the |an? )?(\\p{L}+) (?:of|to)\\b`,
  ].join('|'),
  'iu',
)
/** Relations that hold both ways. */
const SYMMETRIC = /\b(?:twin|sister cit|sibling|spouse|partner|married|border|neighbou?r|friend|colleague|rival)/iu

/** Whether the name stands on the other side of the same relation: "whose father is X" against "the father of X is". */
export function reversed(asked: string, prompt: string): boolean {
  if (SYMMETRIC.test(prompt)) return false
  const own = (text: string) => {
    const noun = NAMED_AS.exec(text)
      ?.slice(1)
      .find((n) => n !== undefined)
    return noun === undefined ? '' : singular(noun.toLowerCase())
  }
  const of = (text: string) => head(text).split(' ').map(singular)
  const [askedIs, promptIs] = [own(asked), own(prompt)]
  return (
    (askedIs !== '' && promptIs === '' && of(prompt).includes(askedIs)) ||
    (promptIs !== '' && askedIs === '' && of(asked).includes(promptIs))
  )
}

/** Words on each side of a name in which a word that narrows what is asked belongs to it. */
const BESIDE_WORDS = 3
/** Words that make another question of one about a person, a place or a thing in office now. */
const NARROWING = new Set('first second third last former ex previous next future original vice deputy acting interim'.split(' '))

function qualified(masked: string, prompt: string): boolean {
  const [before = '', after = ''] = masked.split(MASK)
  const beside = [...words(before).slice(-BESIDE_WORDS), ...words(after).slice(0, BESIDE_WORDS)]
  const own = words(prompt)
  return beside.some((word) => NARROWING.has(word) && !own.includes(word))
}

/** Evidence read off the words of the text and of an edit's prompt, the subject masked in both. */
export function wordEvidence(near: Surroundings, prompt: string, target: string) {
  const wanted = relationWords(prompt)
  const given = relationWords(near.masked)
  const [asked, own] = [head(near.masked), head(prompt)]
  const stems = new Set(own.split(' ').map(stem))
  const same = asked !== '' && own !== '' && asked.split(' ').some((w) => stems.has(stem(w)))
  const apart = asked !== '' && own !== '' && contrast(asked.split(' '), own.split(' '))
  const spoken = ` ${words(near.sentence).join(' ')} `
  const goal = words(target).join(' ')
  return {
    relation_words: wanted.size === 0 ? 0 : [...wanted].filter((w) => given.has(w)).length / wanted.size,
    bare: words(near.masked.replaceAll(MASK, '')).length === 0 ? 1 : 0,
    head_same: same && !apart ? 1 : 0,
    head_contrast: apart ? 1 : 0,
    no_head: asked === '' ? 1 : 0,
    contrast: contrast(words(near.window.replaceAll(MASK, ' ')), words(prompt.replaceAll(MASK, ' '))) ? 1 : 0,
    specific: relationWords(spelledOut(near.window)).size > 0 && relationWords(spelledOut(prompt)).size > 0 ? 1 : 0,
    target_named: goal !== '' && spoken.includes(` ${goal} `) && !words(prompt).join(' ').includes(goal) ? 1 : 0,
    asks_number: ASKS_NUMBER.test(near.sentence) && !/\d/.test(target) ? 1 : 0,
    told: asks(near) ? 0 : 1,
    opposed: opposed(near.masked, prompt) ? 1 : 0,
    qualified: qualified(near.masked, prompt) ? 1 : 0,
    reversed: reversed(near.masked, prompt) ? 1 : 0,
  }
}

const BARE_PREPOSITION = new RegExp(`^${MASK},? (?:(?:which|that|who) )?(?:(?:is|was|are|were) )?(in|from|by|at)$`, 'i')
const SPELLED_OUT: Readonly<Record<string, string>> = {
  in: 'is located in',
  from: 'comes from',
  by: 'was made by',
  at: 'is located at',
}

/** A masked text that says no more than "X, in" or "X is from", said with a verb, so that its vector has a meaning. */
export function spelledOut(masked: string): string {
  const preposition = BARE_PREPOSITION.exec(masked)?.[1]?.toLowerCase()
  return preposition === undefined ? masked : `${MASK} ${SPELLED_OUT[preposition]}`
}

const ASKED_KINDS: readonly (readonly [RegExp, readonly AnswerKind[]])[] = [
  [/\b(?:who|whom|whose)\b/iu, ['person', 'organisation']],
  [
    /\bwhere\b|\b(?:which|what) (?:city|town|country|place|state|continent|region|nation|location|county|province)\b/iu,
    ['place'],
  ],
  [
    /\bwhen\b|\bhow (?:long|old|many|much|far|tall|often|big|high|large)\b|\b(?:which|what) (?:year|date|day|time|month)\b/iu,
    ['number'],
  ],
  [/\bwhy\b|^\W*how\b/iu, ['other']],
]

/** The kinds of answer that a question's words ask for; null where they do not say. */
export function answerAsked(sentence: string): readonly AnswerKind[] | null {
  return ASKED_KINDS.find(([words]) => words.test(sentence))?.[1] ?? null
}

/** Evidence about the name alone; everything here is read off the text. */
export function nameEvidence(
  text: string,
  tokens: readonly Token[],
  match: NameMatch,
  subject: string,
  all: readonly NameMatch[],
) {
  const before = tokens[match.firstToken - 1]
  const after = tokens[match.firstToken + match.tokenCount]
  const own = tokens.slice(match.firstToken, match.firstToken + match.tokenCount)
  const usesCapitals = tokens.some((t, i) => t.capital && i > 0 && /\p{L}/u.test(t.word))
  const nameCapital = /\p{Lu}/u.test(subject)
  const startsSentence = before === undefined || /[.!?:\n"“]\s*$/.test(text.slice(before.end, match.start) || ' ')
  const gapBefore = before === undefined ? '' : text.slice(before.end, match.start)
  const gapAfter = after === undefined ? '' : text.slice(match.end, after.start)
  const firstOfSentence =
    before === undefined ||
    match.firstToken === 1 ||
    /[.!?\n]\s*\S*$/.test(text.slice(Math.max(0, before.start - 2), before.start))
  const whole = match.kind === 'exact' || match.kind === 'alias'
  const ledBy = before?.capital === true && !firstOfSentence && /^[\s-]+$/.test(gapBefore)
  const opened =
    before?.capital === true &&
    match.firstToken === 1 &&
    match.matchedWords === 1 &&
    /^ $/.test(gapBefore) &&
    !OPENERS.has(before.word)
  const apposed = before?.capital === true && match.matchedWords === 1 && gapBefore === ', ' && !firstOfSentence
  const mentioned = whole ? [] : mentions(text, tokens).filter((m) => m.start < match.end && m.end > match.start)
  return {
    exact: whole ? 1 : 0,
    misspelt: match.kind === 'misspelt' ? match.coverage : 0,
    partial: match.kind === 'partial' ? match.coverage : 0,
    alike: match.kind === 'alike' ? match.coverage : 0,
    lone_word: match.matchedWords === 1 ? 1 : 0,
    case_mismatch: nameCapital && usesCapitals && !startsSentence && !own.some((t) => t.capital) ? 1 : 0,
    form: whole ? 0 : Math.max(0, ...mentioned.map((m) => agrees(m.words, subject))),
    extended_left: whole && nameCapital && (ledBy || opened) ? 1 : 0,
    realm: whole && nameCapital && (NAMING.test(text.slice(0, match.start)) || apposed) ? 1 : 0,
    extended_right:
      whole && nameCapital && after !== undefined && goesOn(gapAfter, after, text.slice(match.start, match.end)) ? 1 : 0,
    inside_longer: all.some((o) => o.editId !== match.editId && longerAround(o, match)) ? 1 : 0,
  }
}

/** Words that make a longer name with "of" after them. */
const NAMING = new RegExp(
  `\\b(?:${[
    'Kingdom Duchy Republic Empire Principality County Province Region District City Municipality Diocese Archdiocese',
    'University College Institute Academy Bank Museum Church Cathedral Order House Tower Embassy Battle Siege Treaty',
    'Bay Gulf Isle Island Port Lake Mount Occupation occupation',
  ]
    .join(' ')
    .replaceAll(' ', '|')}) of (?:the )?$`,
  'u',
)

/** Words that open a sentence and belong to no name. */
const OPENERS = new Set([
  ...STOP,
  ...'did does can could will would should may might must if but so then while because about like unlike'.split(' '),
  ...'tell explain describe visit not no yes please after before during since until hello hi hey'.split(' '),
])

/** Whether a name goes on after its last word: "iPhone 7", "Adobe Flash Player", "Sweet 16: Part 2", "Italy national". */
function goesOn(gap: string, after: Token, name: string): boolean {
  if (after.word === 'national' && /^ $/.test(gap)) return true
  return after.capital && /^(?:[\s-]+|: )$/.test(gap) && (/\p{Lu}/u.test(name) || !/^\p{N}/u.test(after.word))
}

function longerAround(other: NameMatch, match: NameMatch): boolean {
  const whole = other.kind === 'exact' || other.kind === 'alias'
  return whole && other.start <= match.start && other.end >= match.end && other.end - other.start > match.end - match.start
}
