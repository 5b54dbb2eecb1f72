import type { Edit } from '../edit/edit.ts'
import type { Gateway } from '../gateway.ts'
import { gate } from '../memory/gate.ts'
import type { SelectionQuery } from '../request.ts'
import type { Considered } from '../trace.ts'
import { TENANT } from './dataset.ts'
import type { Probe } from './probe.ts'

/** What retrieval and gate make of a probe's last turn, as the pipeline does it, without the model. */
export interface Selection {
  readonly selected: readonly Edit[]
  readonly considered: readonly Considered[]
  /** Ids of all that the indexes offered. */
  readonly offered: readonly string[]
}

export async function select(probe: Probe, { retriever, calibration }: Gateway): Promise<Selection> {
  const messages = probe.turns.map((content) => ({ role: 'user' as const, content }))
  const query: SelectionQuery = { messages, tenant: TENANT, edits: { kind: 'on' }, tags: [] }
  const { candidates } = await retriever.candidates(query, messages.length - 1)
  const considered = gate(candidates, calibration)
  const taken = new Set(considered.flatMap(({ id, reason }) => (reason === 'selected' ? [id] : [])))
  const selected = candidates.flatMap(({ edit }) => (taken.has(edit.id) ? [edit] : []))
  return { selected, considered, offered: candidates.map(({ edit }) => edit.id) }
}
