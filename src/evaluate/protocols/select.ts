import type { Edit } from '../../edit/edit.ts'
import type { Gateway } from '../../gateway.ts'
import type { ChatRequest } from '../../request.ts'
import { select as selectTurns } from '../../selection/select.ts'
import { type Considered, Trace } from '../../trace.ts'
import { TENANT } from '../data/dataset.ts'
import type { Probe } from '../data/probe.ts'

/** What the pipeline selects for a probe's last turn, without the model. */
export interface Selection {
  readonly selected: readonly Edit[]
  readonly considered: readonly Considered[]
  /** Ids of all that the indexes offered. */
  readonly offered: readonly string[]
}

export async function select(probe: Probe, gateway: Gateway): Promise<Selection> {
  const messages = probe.turns.map((content) => ({ role: 'user' as const, content }))
  const request: ChatRequest = {
    model: gateway.engine.model.name,
    messages,
    arm: 'edited',
    tenant: TENANT,
    edits: { kind: 'on' },
    tags: [],
    explain: false,
    sampling: { temperature: 0, topP: 1, stop: [] },
  }
  const trace = new Trace(probe.id, gateway.now)
  const turn = messages.length - 1
  const { turns } = await selectTurns(request, gateway, trace, new AbortController().signal)
  const last = turns.find((t) => t.turn === turn)
  const { candidates } = await gateway.retriever.candidates(request, turn)
  return {
    selected: (last?.edits ?? []).map(({ edit }) => edit),
    considered: last?.considered ?? [],
    offered: candidates.map(({ edit }) => edit.id),
  }
}
