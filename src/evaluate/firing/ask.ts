/** Which edits the gateway selects for the last turn of a case. */
import type { Gateway } from '../../gateway.ts'
import type { ChatRequest } from '../../request.ts'
import { select } from '../../selection/select.ts'
import { type Reason, Trace } from '../../trace.ts'
import type { Tick } from '../run.ts'
import type { Case, Cases } from './case.ts'
import type { Tenants } from './place.ts'

export interface Fired {
  readonly case: Case
  /** `also` and the memory's edits that hold for every message. */
  readonly allowed: readonly string[]
  readonly selected: readonly string[]
  readonly considered: readonly { readonly id: string; readonly score: number; readonly reason: Reason }[]
  readonly ms: number
  /** The reader's part of it; null: it read nothing. */
  readonly readMs: number | null
}

export interface Asking {
  readonly gateway: Gateway
  readonly tenants: Tenants
  readonly memories: Cases['memories']
  readonly tick: Tick
  readonly signal: AbortSignal
}

export async function askAll(cases: readonly Case[], { tick, ...asking }: Asking): Promise<Fired[]> {
  const out: Fired[] = []
  for (const [done, one] of cases.entries()) {
    asking.signal.throwIfAborted()
    tick({ label: 'selection', done, total: cases.length })
    out.push(await ask(one, asking))
  }
  return out
}

/** The case as a user would send it, to the edited arm. */
export function requestOf(one: Case, { gateway, tenants }: Pick<Asking, 'gateway' | 'tenants'>): ChatRequest {
  return {
    model: gateway.engine.model.name,
    messages: one.messages,
    arm: 'edited',
    edits: { kind: 'on' },
    tags: [],
    tenant: tenants.get(one.memory) ?? one.memory,
    explain: false,
    sampling: { temperature: 0, topP: 1, stop: [] },
  }
}

async function ask(one: Case, { gateway, tenants, memories, signal }: Omit<Asking, 'tick'>): Promise<Fired> {
  const request = requestOf(one, { gateway, tenants })
  const trace = new Trace('evaluation', gateway.now)
  const turn = one.messages.length - 1
  const start = performance.now()
  const { turns } = await select(request, gateway, trace, signal)
  const asked = turns.find((t) => t.turn === turn)
  return {
    case: one,
    allowed: [...one.also, ...(memories.get(one.memory)?.always ?? [])],
    selected: (asked?.edits ?? []).map(({ edit }) => edit.id),
    considered: (asked?.considered ?? []).map(({ id, score, reason }) => ({ id, score, reason })),
    ms: performance.now() - start,
    readMs: trace.stagesMs.read ?? null,
  }
}
