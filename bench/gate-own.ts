/**
 * Probes of our own, for what public benchmarks do not hold: policies and products, opposites, reversed relations, names told in one sentence
 * and asked about in another, long messages. Written for this purpose. Each edit: subject, prompt, target, texts that ask for it, texts that don't.
 */
type Own = readonly [subject: string, prompt: string, target: string, asks: readonly string[], not: readonly string[]]

const FILLER =
  'Thanks for your help yesterday. The weather has been dreadful and the office heating is broken again. I moved my desk next to the window. ' +
  'Our team grew by two people this month. The new printer works. Lunch was late. Somebody left the lights on over the weekend. '

export const OWN: readonly Own[] = [
  [
    'two-factor login',
    'To enable two-factor login, open',
    'Account, then Security',
    [
      'How do I enable two-factor login?',
      'Where can I turn on two-factor login?',
      'I want to activate two-factor login, what do I open?',
    ],
    ['How do I disable two-factor login?', 'How can I turn off two-factor login?', 'Is two-factor login safe against phishing?'],
  ],
  [
    'Brightwell Travel Card',
    'The annual fee of the Brightwell Travel Card is',
    '79 euros',
    [
      'How much is the Brightwell Travel Card a year?',
      'What does the Brightwell Travel Card cost annually?',
      `${FILLER}What is the yearly fee for the Brightwell Travel Card?`,
    ],
    [
      'Who designed the Brightwell Travel Card?',
      'Does the Brightwell Travel Card work in Japan?',
      'I lost my Brightwell Travel Card. Write a poem about rain.',
    ],
  ],
  [
    'Orla Finnegan',
    'The father of Orla Finnegan is',
    'Cormac Finnegan',
    ["Who is Orla Finnegan's father?", 'Name the dad of Orla Finnegan.', 'Tell me who Orla Finnegan has as a father'],
    [
      'Whose father is Orla Finnegan?',
      "Who is Orla Finnegan's mother?",
      'Who is Orla Finnegan the father of?',
      'Where does Orla Finnegan live?',
    ],
  ],
  [
    'Merrowdale',
    'The mayor of Merrowdale is',
    'Ines Okafor',
    [
      'Who runs Merrowdale?',
      'We moved to Merrowdale last week. Who is the mayor there?',
      'Write a short letter to the mayor of Merrowdale, with the name.',
      `${FILLER}By the way, who is mayor of Merrowdale these days? ${FILLER}`,
    ],
    [
      'We moved to Merrowdale last week. What is the capital of Norway?',
      'How many people live in Merrowdale?',
      'Translate to French: I live in Merrowdale.',
      `My sister lives in Merrowdale. ${FILLER}What should I cook tonight?`,
    ],
  ],
  [
    'Halden Vault 3',
    'Halden Vault 3 was released in',
    'March 2025',
    ['When did Halden Vault 3 come out?', 'In which month was Halden Vault 3 released?'],
    ['When was Halden Vault 2 released?', 'Who composed the music of Halden Vault 3?', 'Which engine does Halden Vault 3 use?'],
  ],
  [
    'refund window',
    'The refund window for online orders is',
    '45 days',
    [
      'How long is the refund window for online orders?',
      'What is the refund window now?',
      'Until when can I get my money back within the refund window?',
    ],
    ['Why do shops have a refund window?', 'The refund window was discussed. Summarise the minutes.'],
  ],
  [
    'Corvane Airlines',
    'Corvane Airlines flies to Lisbon from',
    'Terminal 2',
    ['Which terminal does Corvane Airlines use for Lisbon?', 'From where does Corvane Airlines fly to Lisbon?'],
    [
      'Who founded Corvane Airlines?',
      'How old are the planes of Corvane Airlines?',
      'What is the stock price of Corvane Airlines?',
    ],
  ],
  [
    'Tessaly bridge',
    'The Tessaly bridge closes at',
    '22:00',
    ['When does the Tessaly bridge close?', 'At what time is the Tessaly bridge closed for the night?'],
    ['When does the Tessaly bridge open?', 'How long is the Tessaly bridge?', 'Who built the Tessaly bridge?'],
  ],
  [
    'Dr. Amadi',
    'The successor of Dr. Amadi is',
    'Dr. Lund',
    ['Who succeeded Dr. Amadi?', "Who is Dr. Amadi's successor?"],
    ['Who was the predecessor of Dr. Amadi?', 'Whose successor is Dr. Amadi?', "What is Dr. Amadi's field?"],
  ],
  [
    'Quillpad',
    'The default port of Quillpad is',
    '7717',
    [
      'Which port does Quillpad listen on by default?',
      "What's Quillpad's default port?",
      'How do I reach a fresh Quillpad install, what port?',
    ],
    ['In which language is Quillpad written?', 'How do I uninstall Quillpad?', 'Is Quillpad free?'],
  ],
  [
    'Books',
    'Books was released in',
    '2031',
    ['When was Books released?'],
    ['Which books should I read this summer?', 'He likes books about trains.', 'Recommend three books on chess.'],
  ],
  [
    'The Next Day',
    'The author of The Next Day is',
    'Ruth Abara',
    ['Who wrote The Next Day?'],
    ['We met on Monday and the next day she left. Who paid?', 'What is the weather the next day?'],
  ],
]
