import { MASK } from '../edit/edit.ts'

/** What a relation's target is. `number`: dates, amounts, times. */
export const ANSWER_KINDS = ['person', 'place', 'organisation', 'number', 'thing', 'other'] as const
export type AnswerKind = (typeof ANSWER_KINDS)[number]

/**
 * Things commonly asked of a subject, in plain words: the yardstick against which "is it this relation?" is read. A question that is
 * nearer to one of these than the edit's own relation is asks for something else. A relation a line, its wordings divided by `|`, below the
 * kind of its target. Written for this purpose; no benchmark's wording.
 */
const LINES = `
# person
the coach of X is | X is coached by | who manages the team X
X was influenced by | X was a student of | who taught X
the father of X is | X is the son or daughter of the man | who is the father of X
the mother of X is | X is the son or daughter of the woman | who is the mother of X
the child of X is | who are the children of X | X is a parent of
the brother or sister of X is | the siblings of X are | who is a sibling of X
the husband or wife of X is | X is married to | who is the spouse of X | the partner of X is
the relatives of X are | the family of X
X is named after | X got its name from | who or what was X named for | X is called after
the president of X is | the head of state of X is | who rules X | the king or queen of X is
the prime minister of X is | the head of government of X is | who leads the government of X
the mayor of X is | who governs the city of X
the leader of X is | who is the head of X | the chairperson of X is | the director of the institution X is
X was founded by | the founder of X is | who started X | who set up the company X
the chief executive of X is | who runs the company X
X was designed by the architect | who built X
X was written by the author | the author of X is | who wrote X | the screenwriter of X is
X was directed by | the director of X is | who made the film X
X was composed by | the composer of X is | who sang X | the performer of X is
X was painted by | the artist of X is
the cast of X includes | who acts in X | the actors in X are | who plays a part in X
the producer of X is | X was produced by
the main character of X is | who is a character in X | who voices a role in X
X was discovered by | who invented X | who found X
the participants of X were | who fought in X | who took part in X
# place
X was born in the city of | the birthplace of X is | in which town was X born | X is a native of
X comes from | X is originally from | the home town of X is | where does X come from
X died in the city of | where did X pass away | the place of death of X is | X lost his or her life in
X is buried in | where is the grave of X
X is a citizen of the country | the nationality of X is | X holds a passport of | which country's citizen is X
X lives in | the residence of X is | where does X live
X works in the city of | where does X do his or her work | X was active as a professional in the city of
X is located in the country | which country is X in | X can be found in | where is X | X lies within
X is located on the continent | X belongs to the continent of | which continent is X on | X is a part of the continent
X is located in the state or region | which county or province is X in | X is situated in the district
X is next to | X shares a border with | what is near X
the capital of X is | the capital city of X is | which city is the seat of government of X
X is the capital of | of which country or region is X the capital
the largest city in X is | the cities of X are
the twin city of X is | X is twinned with | which is the sister city of X | the partner town of X
X flows into | where does X begin | the source of X is
the highest point of X is | a mountain in X is
a tourist sight in X is | a famous landmark in X is
X was founded in | X was formed in the city of | where was X started | where did X begin as a group
the headquarters of X is in | X is based in | where is the head office of X
X is set in | where does the story of X take place | X was filmed in
X was created in the country | the country of origin of X is | where was X invented | the country which X is associated with
X lives in the habitat | X eats
X took place in the city | the location of X was | where was X held | where was the battle of X fought
the host of X is
# organisation
X is employed by | X works for the company | the employer of X is | who does X work for
X plays for the team | which club does X play for | X is a member of the sports team | X has signed for the club
the league of X is | in which league does X play | X competes in the league
X is a member of the band or group | X belongs to the organisation | which association is X a member of | X is affiliated with
X belongs to the political party | which party does X represent
X studied at the university | the alma mater of X is | where did X go to school | X was educated at
X is owned by | the owner of X is | which company does X belong to | the parent company of X is
a subsidiary of X is | which companies does X own
X was made by the company | the manufacturer of X is | X is a product of | which company builds X | X is produced by
X was developed by | the developer of X is | who created the software X | X was created by
X was first broadcast on the channel | X was first shown on the network | which station aired X | X premiered on
X was published by | the publisher of X is | X was released on the record label | which label is X signed to
the home ground of X is | where does the team X play at home
# number
the birthday of X is | X was born in the year | when was X born | the date of birth of X
X died in the year | when did X die | the date of death of X
the height of X is | the weight of X is | how tall is X
the age of X is | how old is X
the net worth of X is | how much does X earn
the population of X is | how many people live in X
the area of X is | how large is X | the length of X is
the time zone of X is | what time is it in X
X was founded in the year | when was X established
the revenue of X is | the number of employees of X is | how many people work at X
X premiered in the year | when did X come out | the release date of X is | X was published in the year
the number of episodes of X is | how many seasons does X have
the price of X is | how much does X cost
the latest version of X is
X was discovered in the year | when was X invented
X took place in the year | when was X | on which date did X happen
X ended in the year | when did X end
the limit of X is | the maximum of X is | the deadline of X is
the opening hours of X are | when does X open
# thing
the native language of X is | the mother tongue of X is | which language did X grow up with
X speaks the language | X writes in the language | what languages does X speak | the language that X uses
the occupation of X is | X works as a | what does X do for a living | the profession of X is
X holds the office of | the position held by X is | what is the title of X | X serves as
X plays the position of | on the field X plays as | in which position does X play
X plays the instrument | which musical instrument does X play | as a musician X is known for playing the
X plays the sport of | X is a professional player of | which sport does X play
the religion of X is | X follows the faith of | which religion does X belong to | X is a believer in
the academic field of X is | X works in the field of | what does X do research on | the speciality of X is | X is an expert in
X received the award | which prize did X win | X was honoured with | X was nominated for
the official language of X is | the language spoken in X is | which language do people understand in X | in X people speak | the law of X names the language
the currency of X is | what money is used in X
X produces the product | what does X make
the industry of X is | in which line of business is X
the genre of X is | what kind of music does X play | X belongs to the genre | what type of film is X
the original language of X is | X was written in the language | in which language is X
the sequel of X is | X is followed by | what comes after X
X follows | the predecessor of X is | what came before X | X replaced
X is part of the series | X belongs to the collection | X is a part of
X is an instance of | X is a kind of | what is X
X is made of | what does X consist of | the ingredients of X are
X runs on the platform | X works on the operating system
X is written in the programming language
X orbits
the parent taxon of X is | X belongs to the family or genus
X won the championship | the winner of X is | who won X
# other
the cause of death of X was | what did X die of | how did X die
the gender of X is | X is a man or a woman | the sexual orientation of X is
X is famous for | what is X known for
the eye colour of X is | what does X look like
the full name of X is | the nickname of X is | what is X also called | what does the name X stand for
the anthem of X is | the flag of X shows | the symbol of X is
the climate of X is | the weather in X is
food that is typical of X is | the culture of X
the history of X is | what happened in X | what war did X take part in
the website of X is | the phone number of X is | the address of X is
X is used for | how does X work | how do you use X
the colour of X is
the licence of X is
X is caused by | why did X happen | the reason for X was
X is treated with | what helps against X
the policy of X is | the rules of X say | what is allowed in X
how do I set up X | the way to do X is | the command for X is
the meaning of X is | the definition of X is
`

export interface CommonRelation {
  readonly kind: AnswerKind
  /** The subject masked. */
  readonly wordings: readonly string[]
}

export const RELATIONS: readonly CommonRelation[] = LINES.trim()
  .split(/\s*# /)
  .filter((block) => block !== '')
  .flatMap((block) => {
    const [kind, ...lines] = block.split('\n')
    return lines.map((line) => ({
      kind: ANSWER_KINDS.find((k) => k === kind) ?? 'other',
      wordings: line.split(/\s*\|\s*/).map((wording) => wording.replace('X', MASK)),
    }))
  })
