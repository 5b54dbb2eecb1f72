/**
 * Words that make two relations different however near their vectors are ("the father of X" and "the mother of X": cosine 0.80; "when" and
 * "where was X born": 0.90). Ours; no benchmark's list. English: in other languages closeness alone decides.
 */

/**
 * One class a line (`|` first: it goes on), its groups divided by `|`: two texts differ when each has words of the class, and no group is in
 * both. No plural -s.
 * `!`: a question that has words of one group does not ask for an edit that has another's, whatever else the two have in common.
 */
const CLASSES = `
! father dad | mother mom mum | parent | child children son daughter kid | sibling brother sister
| spouse husband wife married marry | uncle | aunt | grandfather | grandmother | cousin | nephew | niece
! son | daughter
! brother | sister
! born birth birthplace birthday birthdate | died die death dead passed killed | buried burial grave | wedding married
when date day year month time birthday birthdate | where place city town country birthplace location located
who whom | where | when
country nation citizen citizenship nationality | city town municipality | continent | state province region county | street address | river
language | country nation citizenship nationality | religion faith | occupation profession job | employer employed | gender sex
director directed direct | writer author wrote written screenwriter | composer composed | producer produced produce | publisher published publishe | actor actres actress cast starring star
| editor edited | illustrator illustrated | designer designed | narrator narrated | translator translated
capital | twin sister
president | chancellor | minister premier | king | queen | monarch | mayor | governor | senator | ambassador | secretary | treasurer | chairman chairperson chair
state | government
ceo | cfo | cto | coo | chairman chairperson chair | founder
height tall | weight weigh heavy | age old | width wide | depth deep | length long
population inhabitant | area size
founded founder established started formed created | dissolved ended disbanded closed defunct
headquarter headquartered | branch branche
song | album | film movie | book novel
coach manager trainer | captain | player | owner owned own
team club | league | position
vocal sing singer | guitar | drum drummer | bas bass bassist | piano pianist
! enable enabled enabling | disable disabled disabling
! allow allowed permit permitted | forbid forbidden ban banned prohibit prohibited deny denied
! open opened opening | close closed closing
! start started begin began beginning | end ended stop stopped finish finished
! increase increased raise | decrease decreased reduce lower
! add added | remove removed delete deleted
! buy bought purchase buyer customer | sell sold seller vendor supplier
! accept accepted | reject rejected
! install installed | uninstall uninstalled
! encrypt encrypted | decrypt decrypted
! upload uploaded | download downloaded
! import imported | export exported
! lend lent lender | borrow borrowed borrower
landlord lessor | tenant lessee
! employer | employee
host | guest
doctor | patient | lawyer | nurse
sender sent | recipient receiver received
plaintiff | defendant
source | destination target
client | server
advisor adviser supervisor teacher taught teache | student studied pupil
! maximum max most highest largest biggest longest tallest greatest upper | minimum min least lowest smallest shortest lower
best | worst
! oldest | youngest newest latest
! before | after
left | right
! north northern | south southern | east eastern | west western
! win won winner | lose lost loser | tie draw
! male man men boy | female woman women girl
adult | child children kid | senior
bride | groom bridegroom | bridesmaid
input | output
internal | external
! inbound incoming | outbound outgoing
! public | private
primary | secondary
domestic local | foreign
! arrival arrive arrived | departure depart departed
above over | below under
home | away
morning | afternoon | evening | night
breakfast | lunch | dinner
summer | winter | spring | autumn
weekday | weekend
eye | hair | skin
area | postal zip | country
email | phone telephone | fax
! first | second | third | last final
! precede preceded predecessor previous | follow followed successor next
doctoral | undergraduate
date day | version | price cost
`

/** Words of which each, in one text only, changes what is asked. */
const MARKS = new Set(
  `not no never without isn t don doesn didn wasn cannot except vice deputy assistant acting interim former ex formerly previously previous
  next future first second third last middle maiden step grand honorary average total annual`.split(/\s+/),
)

/** For each word, the class and group of it, as numbers; a word may be in several classes. */
const PLACES = new Map<string, { readonly class: number; readonly group: number }[]>()
/** The classes marked `!`. */
const OPPOSED = new Set<number>()
for (const [number, line] of CLASSES.trim()
  .split(/\n(?!\|)/)
  .entries())
  for (const [group, words] of line.split('|').entries())
    for (const word of words.trim().split(/\s+/)) {
      if (word === '!') {
        OPPOSED.add(number)
        continue
      }
      const places = PLACES.get(word) ?? []
      places.push({ class: number, group })
      PLACES.set(word, places)
    }

/** The groups that a text has words of, by class. */
function groupsOf(text: readonly string[]): Map<number, Set<number>> {
  const out = new Map<number, Set<number>>()
  for (const word of text)
    for (const place of PLACES.get(word.replace(/s$/, '')) ?? [])
      out.set(place.class, (out.get(place.class) ?? new Set()).add(place.group))
  return out
}

/** Classes of which both have words, but of no common group. */
function differ(a: ReadonlyMap<number, ReadonlySet<number>>, b: ReadonlyMap<number, ReadonlySet<number>>): number[] {
  return [...a].flatMap(([number, groups]) =>
    b.has(number) && ![...groups].some((group) => b.get(number)?.has(group)) ? [number] : [],
  )
}

/** Whether a question, as words, has the opposite of a word of a relation's. */
export function opposites(question: readonly string[], relation: readonly string[]): boolean {
  return differ(groupsOf(question), groupsOf(relation)).some((number) => OPPOSED.has(number))
}

/** Whether two relations, as words, differ by a word: a number, a negation, an opposite, or another member of the same class. */
export function contrast(a: readonly string[], b: readonly string[]): boolean {
  const marked = (text: readonly string[]) => text.filter((word) => MARKS.has(word) || /^\p{N}+$/u.test(word)).toSorted()
  if (marked(a).join(' ') !== marked(b).join(' ')) return true
  return differ(groupsOf(a), groupsOf(b)).length > 0
}

/** Words that may stand for each other in a relation, by the first; the first line's say nothing that "in" or "is" does not. */
const SYNONYMS: ReadonlyMap<string, string> = new Map(
  `
 located situated positioned found based lie exist what which that does have been with from into whom whose their this there
company business firm corporation
city town
language tongue
occupation profession job
spouse wife husband
kind type sort
film movie
author writer
latest newest
begin start
buy purchase
ceo chief executive officer
`
    .slice(1, -1)
    .split('\n')
    .flatMap((line) => line.split(' ').map((word): [string, string] => [word, line.split(' ')[0] ?? ''])),
)
/** Shorter ones ("of", "the", "in") carry no meaning of their own here. */
const MEANING_CHARS = 4

/** What a word says, its form aside; empty when that is nothing. */
export function meaning(word: string): string {
  const known = SYNONYMS.get(word) ?? SYNONYMS.get(word.replace(/s$/, ''))
  if (known !== undefined || word.length < MEANING_CHARS) return known ?? ''
  return word.replace(/(?:ing|ed|es|s)$/, '').replace(/e$/, '')
}
