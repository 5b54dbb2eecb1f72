import { PalimpsestError } from '../errors.ts'
import type { ChatRequest } from '../request.ts'
import type { Considered } from '../trace.ts'
import type { Adapter, Adapters } from './registry.ts'

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

interface Needing {
  readonly edits: readonly { readonly edit: { readonly id: string } }[]
  readonly considered: readonly Considered[]
}

/** The turns with what the prompt still has to state: what the adapter holds stands down. */
export function standDown<Turn extends Needing>(turns: readonly Turn[], isHeld: (id: string) => boolean): Turn[] {
  return turns.map((turn) => ({
    ...turn,
    edits: turn.edits.filter(({ edit }) => !isHeld(edit.id)),
    considered: turn.considered.map((c) => (c.reason === 'selected' && isHeld(c.id) ? { ...c, reason: 'in_adapter' } : c)),
  }))
}
