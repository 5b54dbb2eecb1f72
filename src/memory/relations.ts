import { MASK } from '../edit/edit.ts'

/**
 * Things commonly asked of a subject, in plain words: the yardstick against which "is it this relation?" is read. A question that is
 * nearer to one of these than the edit's own relation is asks for something else. Written for this purpose; no benchmark's wording.
 */
const PHRASES = `
X was born in the city of | X comes from | the birthday of X is | X was born in the year | X died in the city of
X died in the year | the cause of death of X was | X is buried in | the gender of X is | X is a man or a woman
the nationality of X is | X is a citizen of the country | X lives in | X works in the city of | the native language of X is
X speaks and writes in | the occupation of X is | X works as a | X is employed by | the job title of X is
X plays the position of | X plays the instrument | X plays the sport of | X plays for the team
X is a member of the band or group | the religion of X is | X belongs to the political party | X holds the office of
X studied at the university | the academic field of X is | X is famous for | X was influenced by | X was a student of
the father of X is | the mother of X is | the child of X is | the brother or sister of X is | the husband or wife of X is
the relatives of X are | X received the award | X was nominated for | the height of X is | the weight of X is
the age of X is | the net worth of X is | the eye colour of X is | the full name of X is | the nickname of X is
X is named after | X is located in the country | X is located on the continent | X is located in the state or region
the capital of X is | X is the capital of | the largest city in X is | the population of X is | the area of X is
the official language of X is | the currency of X is | the president of X is | the prime minister of X is
the mayor of X is | the head of state of X is | the anthem of X is | the flag of X shows | X shares a border with
the twin city of X is | the time zone of X is | X flows into | the highest point of X is | the climate of X is
food that is typical of X is | a tourist sight in X is | X was founded by | X was founded in the year
the headquarters of X is in | the chief executive of X is | X is owned by | a subsidiary of X is | X produces the product
the industry of X is | the revenue of X is | the website of X is | X was made by the company | X was developed by
X was designed by the architect | X was written by the author | X was directed by | X was composed by | X was painted by
the cast of X includes | the producer of X is | X was first broadcast on the channel | X premiered in the year
X was published by | X was released on the record label | the genre of X is | the original language of X is | X is set in
the main character of X is | the sequel of X is | X was created in the country | X is part of the series
X is an instance of | X is a kind of | X is made of | X is used for | the colour of X is | the symbol of X is
the price of X is | X runs on the platform | X is written in the programming language | the latest version of X is
the licence of X is | X was discovered by | X was discovered in the year | X orbits | X is caused by | X is treated with
the parent taxon of X is | X lives in the habitat | X eats | the league of X is | the coach of X is
the home ground of X is | X won the championship | the winner of X is | X took place in the city | X took place in the year
the host of X is | the participants of X were | X ended in the year
`

export const RELATIONS: readonly string[] = PHRASES.trim()
  .split(/\s*[|\n]\s*/)
  .map((phrase) => phrase.replace('X', MASK))
