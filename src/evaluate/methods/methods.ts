import type { Dataset } from '../data/dataset.ts'
import type { Kind, Probe } from '../data/probe.ts'

/** What `palimpsest eval` compares. */
export const METHODS = ['base', 'ice', 'ike', 'cosine', 'mello', 'palimpsest'] as const
export type Compared = (typeof METHODS)[number]
/** Whose answers are judged; `adapter` is asked by the hand-off alone. */
export type Method = Compared | 'adapter'

/** The two protocols, whose figures never stand in one table. */
export const PROTOCOLS = ['generated', 'forced'] as const
export type Protocol = (typeof PROTOCOLS)[number]

/** What the report says each method is. */
export const DESCRIPTIONS: Readonly<Record<Method, string>> = {
  base: 'the model alone',
  ice: "the record's own edit in every prompt, its locality probes included, through the default template; traffic gets the edit of a record drawn by the seed",
  ike: [
    'IKE (Zheng et al. 2023): demonstrations from other records, copy : update : retain as 4 : 12 : 16, kinds shuffled by the seed,',
    "the nearest last, then the record's own edit shown once and stated again; on locality probes too",
  ].join(' '),
  cosine:
    'the nearest edit of the vector index, when its cosine reaches the one threshold that is best on these very probes; default template',
  mello:
    'MeLLo (Zhong et al. 2023): subquestion, guess, nearest edit, contradiction check, over and over; few-shot prompt and chat turns of our own',
  palimpsest: 'the pipeline as served',
  adapter: 'the model through an adapter, with no edit in its prompt',
}

/** Kinds that each protocol measures; MeLLo answers multi-hop questions and nothing else. */
const GENERATED: readonly Kind[] = [
  ...(['reliability', 'generalization', 'portability', 'multi_hop', 'in_scope_neighbour', 'locality'] as const),
  ...(['traffic', 'choice', 'fluency'] as const),
]
const FORCED: readonly Kind[] = ['reliability', 'generalization', 'portability', 'multi_hop', 'in_scope_neighbour', 'locality']

/** Whether a method has something to say to a probe under a protocol. */
export function applies(method: Method, protocol: Protocol, { kind, answers }: Probe): boolean {
  if (method === 'mello') return protocol === 'generated' && kind === 'multi_hop'
  return protocol === 'generated' ? GENERATED.includes(kind) : FORCED.includes(kind) && answers.length > 0
}

/** Why a method can't be run on this data, as the end of a sentence; null: it can. */
export function misfit(method: Compared, { name, records }: Dataset): string | null {
  const probes = records.flatMap((record) => record.probes)
  switch (method) {
    case 'base':
    case 'ice':
    case 'cosine':
    case 'palimpsest':
      return null
    case 'mello':
      return probes.some(({ kind }) => kind === 'multi_hop')
        ? null
        : `mello answers multi-hop questions, and ${name} has none (MQuAKE has)`
    case 'ike': {
      if (records.some(({ edits }) => edits.length > 1)) return `ike edits one fact at a time, and ${name} has records of several`
      if (records.length < 2) return `ike takes its demonstrations from other records, and ${name} has one`
      const missing = [
        ...(probes.some(restates) ? [] : ['restate an edit (for `update` demonstrations)']),
        ...(probes.some(retains) ? [] : ['stay as they are, with their true answer (for `retain` demonstrations)']),
      ]
      return missing.length === 0 ? null : `ike needs questions that ${missing.join(' and that ')}, and ${name} has none`
    }
    default:
      return method satisfies never
  }
}

/** Another wording of the edit itself: what an `update` demonstration asks. */
export function restates({ kind, sub }: Probe): boolean {
  return kind === 'generalization' || (kind === 'portability' && sub === 'subject_aliasing')
}

/** What a `retain` demonstration asks. */
export function retains({ kind, answers }: Probe): boolean {
  return kind === 'locality' && answers.length > 0
}
