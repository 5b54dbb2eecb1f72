/**
 * Relations read from the other side: "the spouse of A is B" says something of B too, "X was written by Y" something of what Y wrote.
 * Memory draws no such conclusions; they are pointed out before a batch lands. English, by syntax and the few lists below.
 */
import type { Edit } from '../edit/edit.ts'
import { canonicalRelation, passiveOf, SUBJECT } from '../edit/relation.ts'

export interface Mirror {
  /** Equal for a relation and its mirror image. */
  readonly base: string
  /** The subject has what the target is ("the father of X is"); it is what the target has ("X is the father of"); or both say the same. */
  readonly side: 'has' | 'is' | 'both'
  /** One to one: then the mirror image is missing where nothing states it. */
  readonly single: boolean
}

/** Lines of `base: noun, noun`, to the base of each noun. */
function nouns(lines: string): ReadonlyMap<string, string> {
  return new Map(
    lines
      .trim()
      .split('\n')
      .flatMap((line) => {
        const [base = '', list = ''] = line.split(': ')
        return list.split(', ').map((noun): [string, string] => [noun, base])
      }),
  )
}

/** Relations that are their own mirror image, by their nouns and by what stands for them after "X". */
const MUTUAL = nouns(`
spouse: spouse, husband, wife, is married to, married
opposite: opposite, antonym, counterpart
sibling: sibling, brother, sister
cousin: cousin
friend: friend
rival: rival
twin city: twin city, sister city, partner city, twin town, is a twin city of, is twinned with
neighbour: neighbour, neighbor, neighbouring country, shares a border with, borders, is adjacent to
`)
/** Participles of what those who are called so did. */
const AGENTS = nouns(`
written: author, writer
directed: director
composed: composer
founded: founder
owned: owner
invented: inventor
discovered: discoverer
designed: designer
developed: developer
manufactured: manufacturer
produced: producer
published: publisher
painted: painter
created: creator
coached: coach, head coach
followed: successor
preceded: predecessor
`)
const SINGLE = new Set(['spouse', 'opposite', 'capital', 'followed'])
/** "X was succeeded by" says what "X is followed by" says. */
const FOLLOWED = new Set(['succeeded', 'replaced'])

const HAS = new RegExp(`^(.+?)s? of ${SUBJECT}$`)
const IS = new RegExp(`^${SUBJECT} (?:is|was) (?:the )?(?!an? )(.+) of$`)
const DONE_BY = new RegExp(`^${SUBJECT} (?:is|was) (\\S+) by$`)
const DOES = new RegExp(`^${SUBJECT} (\\S+)$`)

/** How the edit's relation reads from the other side; undefined where no rule tells, or it has none. */
export function mirrorOf(edit: Edit): Mirror | undefined {
  if (edit.kind !== undefined || edit.subject === '') return undefined
  const said = canonicalRelation(edit.prompt, edit)
  const [has, is] = [HAS.exec(said)?.[1], IS.exec(said)?.[1]]
  const mutual = MUTUAL.get(has ?? is ?? said.replace(`${SUBJECT} `, ''))
  if (mutual !== undefined) return mirror(mutual, 'both')
  if (has !== undefined) return mirror(AGENTS.get(has) ?? has, 'has')
  if (is !== undefined) return mirror(AGENTS.get(is) ?? is, 'is')
  const doneBy = DONE_BY.exec(said)?.[1]
  if (doneBy !== undefined) return mirror(doneBy, 'has')
  const done = passiveOf(DOES.exec(said)?.[1] ?? '')?.split(' ')[1]
  return done === undefined ? undefined : mirror(done, 'is')
}

function mirror(base: string, side: Mirror['side']): Mirror {
  if (base === 'preceded') return { base: 'followed', side: side === 'has' ? 'is' : 'has', single: true }
  if (FOLLOWED.has(base)) return { base: 'followed', side, single: true }
  return { base, side, single: SINGLE.has(base) }
}
