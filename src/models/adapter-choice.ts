import { PalimpsestError } from '../errors.ts'
import type { ChatRequest } from '../request.ts'
import type { TurnTrace } from '../trace.ts'
import type { Adapter, Adapters } from './adapters.ts'

/**
 * The adapter that answers a request over the model `served`: the one asked for; or the one promoted for its tenant, where the request takes
 * the tenant's edits as they are now, and all of them. One that narrows its edits is answered from the prompt alone: an adapter can't leave
 * out a part of what it holds. Throws `adapter_not_found`.
 */
export function answering(request: ChatRequest, adapters: Adapters | undefined, served: string): Adapter | undefined {
  const { arm, adapter, tenant, model, edits, asOf, tags, withoutBatches = [] } = request
  switch (arm) {
    case 'base':
      return undefined
    case 'adapter':
      if (adapters === undefined)
        throw new PalimpsestError('adapter_not_found', `\`${served}\` takes no adapters: serve it from its own file.`, {
          param: 'model',
        })
      return adapters.get(adapter ?? '', tenant, 'model')
    case 'edited': {
      if (model !== served || edits.kind !== 'on' || asOf !== undefined || tags.length > 0) return undefined
      const promoted = adapters?.promoted(tenant)
      return promoted === undefined || adapters?.holdsAny(promoted, withoutBatches) ? undefined : promoted
    }
    default:
      return arm satisfies never
  }
}

/** The edits of each turn that the prompt still has to state, and the turns as the trace shows them: what is held stands down (`stoodDown`: any). */
export function standDown<Scoped extends { readonly edit: { readonly id: string } }>(
  edits: ReadonlyMap<number, readonly Scoped[]>,
  turns: readonly TurnTrace[],
  isHeld: (id: string) => boolean,
): {
  readonly edits: ReadonlyMap<number, readonly Scoped[]>
  readonly turns: readonly TurnTrace[]
  readonly stoodDown: boolean
} {
  const left = [...edits].map(([turn, needed]) => [turn, needed.filter(({ edit }) => !isHeld(edit.id))] as const)
  return {
    stoodDown: left.some(([turn, needed]) => needed.length < (edits.get(turn)?.length ?? 0)),
    edits: new Map(left.filter(([, needed]) => needed.length > 0)),
    turns: turns.map((turn) => ({
      ...turn,
      considered: turn.considered.map((c) => (c.reason === 'selected' && isHeld(c.id) ? { ...c, reason: 'in_adapter' } : c)),
    })),
  }
}
