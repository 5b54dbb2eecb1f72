import { createHash } from 'node:crypto'
import { INVENTED, NEUTRAL } from './demonstration-facts.ts'
import type { Demonstration, DemonstrationKind, EditView } from './turn.ts'

/** Shares of copy : update : retain, from Zheng et al. 2023, "Can We Edit Factual Knowledge by In-Context Learning?", section 4. */
export const MIX: Readonly<Record<DemonstrationKind, number>> = { copy: 1, update: 3, retain: 4 }

/** Another edit that a demonstration may be made of. */
export interface PoolEdit {
  readonly prompt: string
  readonly target: string
  readonly paraphrases: readonly string[]
  /** Cosine to the turn's question, in [-1, 1]. */
  readonly similarity: number
}

export interface DemonstrationWish {
  readonly question: string
  /** The edits of this turn: never shown as demonstrations as well. */
  readonly edits: readonly Pick<EditView, 'prompt' | 'target'>[]
  readonly pool: readonly PoolEdit[]
  readonly count: number
}

/**
 * `count` demonstrations in IKE's mix, the kinds shuffled, the nearest fact last. Facts come from `pool`, the nearest first; invented ones
 * fill up what is missing, as the farthest. The same wish gives the same demonstrations: the shuffle is seeded with the question and edits.
 */
export function demonstrate({ question, edits, pool, count }: DemonstrationWish): readonly Demonstration[] {
  if (count <= 0) return []
  const random = randomFrom(JSON.stringify([question, edits.map(({ prompt, target }) => [prompt, target])]))
  const own = new Set(edits.map(({ prompt }) => prompt))
  const near = pool
    .filter(({ prompt, target }) => !own.has(prompt) && target.trim() !== '') // a sentence has nothing that could be asked back
    .sort((a, b) => b.similarity - a.similarity || (a.prompt < b.prompt ? -1 : 1))
    .slice(0, count)
  const invented = shuffle(INVENTED, random).map((fact) => ({ ...fact, similarity: -1 }))
  const fill = Array.from({ length: count - near.length }, (_, i) => invented[i % invented.length] as PoolEdit)
  const facts = [...near, ...fill].reverse()
  const kinds = shuffle(kindsOf(count), random)
  const neutral = shuffle(NEUTRAL, random)
  return facts.map((fact, i) =>
    demonstration(kinds[i] as DemonstrationKind, fact, neutral[i % neutral.length] as (typeof NEUTRAL)[number]),
  )
}

/** `count` kinds in the ratio of MIX; the remainders go to the kinds that come out furthest below their share. */
export function kindsOf(count: number): DemonstrationKind[] {
  const kinds = Object.keys(MIX) as DemonstrationKind[]
  const whole = kinds.reduce((sum, kind) => sum + MIX[kind], 0)
  const shares = kinds.map((kind) => ({ kind, share: (count * MIX[kind]) / whole }))
  const missing = count - shares.reduce((sum, { share }) => sum + Math.floor(share), 0)
  const remainder = (share: number) => share - Math.floor(share)
  const extra = new Set([...shares].sort((a, b) => remainder(b.share) - remainder(a.share)).slice(0, missing))
  return shares.flatMap((one) => Array<DemonstrationKind>(Math.floor(one.share) + (extra.has(one) ? 1 : 0)).fill(one.kind))
}

function demonstration(kind: DemonstrationKind, fact: PoolEdit, neutral: { question: string; answer: string }): Demonstration {
  const prompt = fact.prompt.trim()
  const told = `${prompt} ${fact.target.trim()}`
  switch (kind) {
    case 'copy':
      return { kind, fact: told, question: prompt, answer: fact.target.trim() }
    case 'update':
      return { kind, fact: told, question: fact.paraphrases[0]?.trim() ?? rephrased(prompt), answer: fact.target.trim() }
    case 'retain':
      return { kind, fact: told, ...neutral }
    default:
      return kind satisfies never
  }
}

/** For an edit that came without a paraphrase. */
function rephrased(prompt: string): string {
  return prompt.endsWith('?') ? `Please tell me: ${prompt}` : `Please finish this sentence: ${prompt}`
}

/** Fisher and Yates, on a copy. */
function shuffle<T>(items: readonly T[], random: () => number): T[] {
  const out = [...items]
  for (let i = out.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    ;[out[i], out[j]] = [out[j] as T, out[i] as T]
  }
  return out
}

/** Numbers in [0, 1) from successive sha256 blocks of the seed: the same on every machine. */
function randomFrom(seed: string): () => number {
  let drawn = 0
  return () => createHash('sha256').update(`${drawn++}\u0000${seed}`).digest().readUInt32BE(0) / 2 ** 32
}
