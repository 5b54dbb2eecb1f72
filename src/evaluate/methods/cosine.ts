import { TENANT } from '../data/dataset.ts'
import { isWanted, type Probe } from '../data/probe.ts'
import { harmonicMean } from '../metrics/intervals.ts'
import type { Trial } from '../trial.ts'

/** The nearest edit to a probe, by the vector index alone. */
export interface Nearest {
  readonly id: string
  readonly cosine: number
}

export interface CosineBaseline {
  /** Least cosine at which the nearest edit is taken. */
  readonly threshold: number
  /** By probe id; null where the memory is empty. */
  readonly nearest: ReadonlyMap<string, Nearest | null>
}

const STEP = 0.005

/**
 * The best a single threshold on the cosine can do on these probes: chosen with hindsight, to maximise the harmonic mean of the shares of
 * reliability and generalization probes that get their edit and of locality probes (without any, traffic) that get none.
 */
export async function cosineBaseline(
  probes: readonly Probe[],
  trial: Pick<Trial, 'gateway' | 'embedder'>,
): Promise<CosineBaseline> {
  const nearest = new Map<string, Nearest | null>()
  for (const probe of probes) nearest.set(probe.id, await nearestEdit(probe, trial))
  const steps = Array.from({ length: 1 / STEP + 1 }, (_, i) => i * STEP)
  const scored = steps.map((threshold) => ({ threshold, score: harmonicShare(probes, nearest, threshold) ?? 0 }))
  const best = scored.reduce((a, b) => (b.score > a.score ? b : a))
  return { threshold: best.threshold, nearest }
}

async function nearestEdit(probe: Probe, { gateway, embedder }: Pick<Trial, 'gateway' | 'embedder'>): Promise<Nearest | null> {
  const [vector] = await embedder.embed([probe.turns.at(-1) ?? ''], 'query')
  const [first] = vector === undefined ? [] : gateway.memory.search(TENANT, vector, 1)
  return first === undefined ? null : { id: first.editId, cosine: first.similarity }
}

/** What the baseline selects for a probe. */
export function cosineSelects(probe: Probe, { threshold, nearest }: CosineBaseline): readonly string[] {
  return takes(nearest.get(probe.id) ?? null, threshold)
}

export function takes(nearest: Nearest | null, threshold: number): readonly string[] {
  return nearest === null || nearest.cosine < threshold ? [] : [nearest.id]
}

function harmonicShare(probes: readonly Probe[], nearest: ReadonlyMap<string, Nearest | null>, threshold: number): number | null {
  const right = (probe: Probe) => {
    const selected = cosineSelects(probe, { threshold, nearest })
    return probe.wants.length === 0 ? selected.length === 0 : selected.some((id) => isWanted(probe, id))
  }
  const share = (some: readonly Probe[]) => (some.length === 0 ? [] : [some.filter(right).length / some.length])
  const of = (kind: Probe['kind']) => probes.filter((probe) => probe.kind === kind)
  const outside = of('locality').length > 0 ? of('locality') : of('traffic')
  const inside = [of('reliability'), of('generalization')]
  // A file of multi-hop questions alone has neither.
  return harmonicMean([...(inside.flat().length > 0 ? inside : [of('multi_hop')]), outside].flatMap(share))
}
