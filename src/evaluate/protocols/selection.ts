/** Selection alone: which edits retrieval and gate take for each probe. No chat model, so that thousands of probes take minutes. */
import { NameIndex } from '../../selection/names.ts'
import { TENANT } from '../data/dataset.ts'
import { isWanted, type Probe } from '../data/probe.ts'
import type { Trial } from '../trial.ts'
import { select } from './select.ts'

export interface Selected {
  readonly selected: readonly string[]
  /** Probability of each considered edit, for other operating points. */
  readonly scores: Readonly<Record<string, number>>
  /** Some wanted edit was offered to the gate. */
  readonly offered: boolean
  /** 1-based rank of the first wanted edit in the vector index, at most VECTOR_DEPTH; null: not there. */
  readonly vectorRank: number | null
  /** Some wanted edit's subject was found in the text, by whatever part of its name. */
  readonly subjectFound: boolean
  /** Candidates and gate, embedding included. */
  readonly ms: number
}

const VECTOR_DEPTH = 20

export type SelectProbe = (probe: Probe) => Promise<Selected>

export function selecting(trial: Pick<Trial, 'gateway' | 'embedder' | 'edits'>): SelectProbe {
  const names = new NameIndex()
  for (const edit of trial.edits.values()) names.add(edit)
  return async (probe) => {
    const start = performance.now()
    const { selected, considered, offered } = await select(probe, trial.gateway)
    const ms = performance.now() - start
    const wanted = (id: string) => isWanted(probe, id)
    return {
      selected: selected.map(({ id }) => id),
      scores: Object.fromEntries(considered.map(({ id, score }) => [id, score])),
      offered: offered.some(wanted),
      vectorRank: await vectorRank(probe, trial),
      subjectFound: names.find(probe.turns.at(-1) ?? '').some(({ editId }) => wanted(editId)),
      ms,
    }
  }
}

async function vectorRank(probe: Probe, { gateway, embedder }: Pick<Trial, 'gateway' | 'embedder'>): Promise<number | null> {
  if (probe.wants.length === 0) return null
  const [vector] = await embedder.embed([probe.turns.at(-1) ?? ''], 'query')
  const hits = vector === undefined ? [] : gateway.memory.search(TENANT, vector, VECTOR_DEPTH)
  const at = hits.findIndex(({ editId }) => isWanted(probe, editId))
  return at === -1 ? null : at + 1
}
