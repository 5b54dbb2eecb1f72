/** Everyday questions with settled answers, for `retain` demonstrations: a new fact about something else leaves them as they are. */
export const NEUTRAL: readonly { readonly question: string; readonly answer: string }[] = [
  { question: 'How many days are there in a week?', answer: 'seven' },
  { question: 'Water freezes at a temperature of zero degrees', answer: 'Celsius' },
  { question: 'The season after winter is', answer: 'spring' },
  { question: 'Which animal gives us wool?', answer: 'the sheep' },
  { question: 'A triangle has a number of sides equal to', answer: 'three' },
  { question: 'What do bees make from nectar?', answer: 'honey' },
  { question: 'The opposite of hot is', answer: 'cold' },
  { question: 'How many minutes make an hour?', answer: 'sixty' },
  { question: 'Bread is baked in an', answer: 'oven' },
  { question: 'Which colour do you get from mixing blue and yellow paint?', answer: 'green' },
  { question: 'The star nearest to the Earth is', answer: 'the Sun' },
  { question: 'What is frozen water called?', answer: 'ice' },
  { question: 'A spider has a number of legs equal to', answer: 'eight' },
  { question: 'Which sense do we use our ears for?', answer: 'hearing' },
  { question: 'The month before February is', answer: 'January' },
  { question: 'What do caterpillars turn into?', answer: 'butterflies or moths' },
  { question: 'Half of one hundred is', answer: 'fifty' },
  { question: 'Which part of a plant takes up water from the soil?', answer: 'the roots' },
]

/** Made-up facts that stand in where the memory offers too few neighbours. None is about anything real. */
export const INVENTED: readonly {
  readonly prompt: string
  readonly target: string
  readonly paraphrases: readonly [string, ...string[]]
}[] = [
  {
    prompt: 'The ferry to Orlen Sound leaves from',
    target: 'Brackwater',
    paraphrases: ['From which harbour does the Orlen Sound ferry sail?'],
  },
  {
    prompt: 'The instrument that Tamsin Ravelle plays is the',
    target: 'cello',
    paraphrases: ['Tamsin Ravelle is a musician known for playing the'],
  },
  {
    prompt: 'The Hollis Lantern museum is located in',
    target: 'Veracruz',
    paraphrases: ['Where can the Hollis Lantern museum be found?'],
  },
  {
    prompt: 'Edric Palwen was born in',
    target: 'Lisbon',
    paraphrases: ['The rain had stopped. Edric Palwen comes originally from'],
  },
  { prompt: 'The Quorra bicycle is made by', target: 'Stellan', paraphrases: ['Which company builds the Quorra bicycle?'] },
  {
    prompt: 'The working language of the Immer Institute is',
    target: 'Finnish',
    paraphrases: ['People at the Immer Institute speak'],
  },
  {
    prompt: 'The sport that Joska Wend plays is',
    target: 'volleyball',
    paraphrases: ['The train was late. Joska Wend is a professional at'],
  },
  {
    prompt: 'The Marrow Hill observatory is headed by',
    target: 'Ines Okafor',
    paraphrases: ['Who runs the observatory on Marrow Hill?'],
  },
]
