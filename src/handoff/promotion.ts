import type { Adapter, Adapters } from '../adapters/registry.ts'
import { PalimpsestError } from '../errors.ts'
import type { Gateway } from '../gateway.ts'
import { type Facts, tokenizerPrint } from './compatibility.ts'
import { conflict } from './fault.ts'
import type { JobStore } from './job-store.ts'

interface Place {
  readonly gateway: Gateway & { readonly adapters: Adapters }
  readonly store: JobStore
}

/** What speaks for and against a promotion; `replace`: also in the place of another adapter that holds edits which this one does not. */
export async function factsOf(adapter: Adapter, replace: boolean, { gateway, store }: Place): Promise<Facts> {
  const { adapters, engine } = gateway
  const { path } = await adapters.lora(adapter)
  const shape = await engine.loras?.check(path).then(
    () => null,
    (error: Error) => error.message,
  )
  const now = adapters.promoted(adapter.tenant)
  const loses = now?.edits.filter((edit) => !adapter.edits.includes(edit)) ?? []
  return {
    id: adapter.id,
    replace,
    since: adapters.disagreements(adapter),
    shape: shape ?? null,
    base: { made: adapter.baseSha256, served: (await engine.loras?.baseSha256()) ?? '' },
    tokenizer: { made: store.get(adapter.id)?.base.tokenizer ?? null, served: tokenizerPrint(engine) },
    promoted: now === undefined ? null : { id: now.id, loses },
  }
}

/** Of this tenant, not of another that it may ask for. Throws `adapter_not_found`, or `handoff_conflict` for a hand-off that is not done. */
export function ownAdapter(tenant: string, id: string, { gateway, store }: Place): Adapter {
  const job = store.get(id)
  if (job?.tenant === tenant && job.state !== 'done')
    throw conflict(`Hand-off '${id}' is ${job.state}: it has no adapter to promote.`)
  const adapter = gateway.adapters.get(id, tenant)
  if (adapter.tenant !== tenant)
    throw new PalimpsestError('adapter_not_found', `There is no adapter '${id}' in tenant '${tenant}'.`, { param: 'id' })
  return adapter
}
