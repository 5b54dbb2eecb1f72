import type { Edit } from '../../edit/edit.ts'
import { OWN_FIELDS, toWire } from '../../edit/own.ts'
import { PalimpsestError } from '../../errors.ts'
import type { Answered, Trial } from '../../evaluate/preflight.ts'
import { type Client, query } from '../client/client.ts'
import { landingOf } from '../import.ts'
import type { WireEdit, WireLanding, WireProvenance } from '../wire.ts'

const OWN: ReadonlySet<string> = new Set(OWN_FIELDS)

export interface TrialOptions {
  readonly client: Client
  readonly model: string
  readonly maxTokens: number
  /** Aborting it ends the question that is being answered. */
  readonly signal: AbortSignal
  /** Names this run: its batches are `NAME-1`, `NAME-2`, … and no other run's. */
  readonly run: string
  /** Ids held with other content, as a dry run of the whole batch says. */
  readonly revises: ReadonlySet<string>
}

/** A trial in the memory of a gateway that is spoken to over HTTP. */
export function trialOf({ client, model, maxTokens, signal, run, revises }: TrialOptions): Trial {
  const batches: string[] = []
  /** As they were before this run. */
  const revised = new Map<string, WireEdit>()
  const path = (id: string, what = '') => `/v1/edits/${encodeURIComponent(id)}${what}`

  const post = async (records: readonly object[], asked: Record<string, string>): Promise<WireLanding> => {
    const body = records.map((record) => JSON.stringify(record)).join('\n')
    // With progress, so that the answer comes when all vectors are there.
    const headers = { 'Content-Type': 'application/x-ndjson', Accept: 'application/x-ndjson' }
    return landingOf(await client.send(`/v1/edits${query(asked)}`, { method: 'POST', body, headers }), run)
  }

  const ask: Trial['ask'] = async (question, arm): Promise<Answered> => {
    const body = JSON.stringify({
      model: arm === 'base' ? `${model}@base` : model,
      messages: [{ role: 'user', content: question }],
      temperature: 0,
      seed: 0,
      max_tokens: maxTokens,
    })
    const init = { method: 'POST', body, signal, headers: { 'Content-Type': 'application/json' } }
    const answer = (await (await client.send('/v1/chat/completions', init)).json()) as WireAnswer
    return { text: answer.choices[0]?.message.content ?? '', edits: answer.palimpsest.edits.map(({ id }) => id) }
  }

  const land = async (edits: readonly Edit[]): Promise<ReadonlySet<string>> => {
    for (const { id } of edits) {
      if (!revises.has(id) || revised.has(id)) continue
      const held = await client.json<WireEdit>('GET', path(id)).catch(unlessUnknown)
      if (held !== undefined) revised.set(id, held)
    }
    const batch = `${run}-${batches.length + 1}`
    batches.push(batch)
    const { results } = await post(edits.map(toWire), { batch, source: run })
    return new Set(results.filter(({ state }) => state === 'live').map(({ id }) => id))
  }

  const rollBack = async (): Promise<void> => {
    for (const batch of batches.splice(0))
      await client.json('POST', `/v1/batches/${encodeURIComponent(batch)}/withdraw`).catch(unlessUnknown)
    // A revision is undone by saying again what was said before it, and taking that back where it was not in force.
    if (revised.size > 0) await post([...revised.values()].map(ownFields), { source: `${run} rolled back` })
    const notHeld = [...revised.values()]
      .filter(({ state }) => state === 'withdrawn' || state === 'superseded')
      .map(({ id }) => id)
    for (const id of new Set(notHeld)) await client.json('POST', path(id, '/withdraw'))
    revised.clear()
  }

  return { ask, land, rollBack }
}

interface WireAnswer {
  readonly choices: readonly { readonly message: { readonly content: string } }[]
  readonly palimpsest: WireProvenance
}

/** What `toWire` wrote of a held edit. */
function ownFields(held: WireEdit): object {
  return Object.fromEntries(Object.entries(held).filter(([field]) => OWN.has(field)))
}

function unlessUnknown(error: unknown): undefined {
  if (error instanceof PalimpsestError && (error.code === 'edit_not_found' || error.code === 'batch_not_found')) return undefined
  throw error
}
