import { type Draft, has, hasAny, type Reader, type Taken, take, written } from './draft.ts'

const TOPIC = ['ent', 'topic', 'subject'] as const
const SENTIMENT = ['sentiment', 'inner_sent'] as const
const WORDS: Readonly<Record<string, string>> = {
  positive: 'positively',
  pos: 'positively',
  '1': 'positively',
  negative: 'negatively',
  neg: 'negatively',
  '-1': 'negatively',
}

/** eric-mitchell/serac, data_classes/sentiment.py: a file's records are {ent, pos, neg}, and the sentiment is drawn when they are used, so a record here has to say which. */
export const convsent: Reader = {
  about: {
    of: 'ConvSent (Mitchell et al. 2022, SERAC)',
    takes:
      '`ent`, `topic` or `subject`, with `sentiment` (positive or negative) or `inner_sent` (1 or -1): a rule about what is thought of it',
    leaves: '`pos`, `neg` and all prompts',
  },
  recognises: (record) =>
    !hasAny(record, 'prompt', 'target_new') &&
    ((hasAny(record, ...TOPIC) && hasAny(record, ...SENTIMENT)) || has(record, 'ent', 'pos', 'neg')),
  drafts: (record) => {
    const topic = take(record, ...TOPIC)
    return [opinion(topic, instruction(topic, take(record, ...SENTIMENT)))]
  },
}

/** A rule about what is thought of something. */
export function opinion(topic: Taken, instruction: Taken): Draft {
  return { subject: topic, when: occasion(topic), instruction }
}

function occasion(topic: Taken): Taken {
  const { path, value } = topic
  if (typeof value === 'string' && value.trim() !== '') return { path, value: `someone asks what you think of ${value.trim()}` }
  // Any other value is the subject's own fault.
  const isMissing = value === undefined || typeof value === 'string'
  return { path, value: undefined, ...(isMissing && { fault: 'is missing; expected what the opinion is of' }) }
}

function instruction(topic: Taken, sentiment: Taken): Taken {
  const said = written(sentiment.value).toLowerCase()
  if (Object.hasOwn(WORDS, said)) return { ...sentiment, value: `speak ${WORDS[said]} of ${written(topic.value)}` }
  return { ...sentiment, fault: 'expected the sentiment to be taken on, positive or negative' }
}
