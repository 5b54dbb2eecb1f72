/** From files to a memory that holds every edit, and the probes that are asked of it. */
import { createHash } from 'node:crypto'
import { basename } from 'node:path'
import { parseBatch } from '../../edit/batch.ts'
import { type Edit, LIMITS } from '../../edit/edit.ts'
import { toWire } from '../../edit/own.ts'
import { words } from '../../edit/words.ts'
import type { Embedder } from '../../engine/engine.ts'
import { PalimpsestError } from '../../errors.ts'
import type { MemoryStore } from '../../memory/memory-store.ts'
import { type Choice, chooseProbes, type Tick } from '../run.ts'
import { type DataRecord, type Dataset, readTextFile, TENANT } from './dataset.ts'
import type { Probe } from './probe.ts'
import { type Held, settleScope } from './scope.ts'

/** Between two looks at how far the index is. */
const POLL_MS = 100

/** Edits that only fill the memory. */
export function readDistractors(files: readonly string[]): Edit[] {
  return files.flatMap((file) => {
    const { edits } = parseBatch(readTextFile(file), { tenant: TENANT, tenants: 'any', file: basename(file) })
    return edits.map((edit): Edit => ({ ...edit, tenant: TENANT }))
  })
}

/** Lands distractors, then the data's edits, so that these win where both state a fact; distractors that repeat one of the data's prompts are left out. */
export async function landAll(
  memory: MemoryStore,
  dataset: Dataset,
  distractors: readonly Edit[],
): Promise<{ readonly leftOut: number }> {
  const own = dataset.records.flatMap(({ edits }) => edits)
  const stated = new Set(own.map(asked))
  const others = distractors.filter((edit) => !stated.has(asked(edit)))
  for (const [edits, source] of [
    [others, 'distractors'],
    [own, dataset.name],
  ] as const) {
    for (let from = 0; from < edits.length; from += LIMITS.batchEdits)
      await memory.land(edits.slice(from, from + LIMITS.batchEdits), { source, tenant: TENANT, dryRun: false })
  }
  return { leftOut: distractors.length - others.length }
}

function asked({ subject, prompt }: Edit): string {
  return `${words(subject).join(' ')}\n${words(prompt).join(' ')}`
}

/** Resolves when every edit is in the vector index. */
export async function indexed(memory: MemoryStore, tick: Tick, signal: AbortSignal): Promise<void> {
  let settled = false
  const whole = memory.indexed().then(() => {
    settled = true
  })
  while (!settled) {
    signal.throwIfAborted()
    const { done, pending } = progress(memory)
    if (done + pending > 0) tick({ label: 'embedding edits', done, total: done + pending })
    await Promise.race([whole, new Promise((resolve) => setTimeout(resolve, POLL_MS))])
  }
  const { pending } = progress(memory)
  if (pending > 0)
    throw new PalimpsestError(
      'engine_failed',
      `${pending} edits could not be embedded; the log says why. Check the embedder's model file.`,
    )
}

/** Of all tenants together. */
function progress(memory: MemoryStore): { readonly done: number; readonly pending: number } {
  const all = memory.status()
  const sum = (name: 'indexed' | 'pending') => all.reduce((total, status) => total + status[name], 0)
  return { done: sum('indexed'), pending: sum('pending') }
}

export function liveEdits(memory: MemoryStore): Map<string, Held> {
  return new Map(memory.all(TENANT).flatMap(({ edit, seq, state }) => (state === 'live' ? [[edit.id, { edit, seq }]] : [])))
}

/** A hash of everything that is live, whatever the order it landed in. */
export function digestOf(edits: ReadonlyMap<string, Edit>): string {
  const hash = createHash('sha256')
  for (const id of [...edits.keys()].sort()) hash.update(JSON.stringify(toWire(edits.get(id) as Edit)))
  return hash.digest('hex').slice(0, 16)
}

export interface Prepared {
  readonly records: ReadonlyMap<number, DataRecord>
  readonly edits: ReadonlyMap<string, Edit>
  readonly probes: readonly Probe[]
  readonly drawn: readonly Probe[]
  readonly notes: readonly string[]
}

/** Which probes are asked, and what the report has to say about them. Throws `invalid_value` when none is left. */
export async function prepare(
  dataset: Dataset,
  traffic: readonly Probe[],
  memory: MemoryStore,
  embedder: Embedder,
  choice: Choice & { readonly kinds: readonly Probe['kind'][] },
): Promise<Prepared> {
  const live = liveEdits(memory)
  const records = new Map(dataset.records.map((record) => [record.index, record]))
  const { probes: chosen, passedOver } = chooseProbes(dataset.records, traffic, live, choice)
  const { probes: drawn, contradicted } = await settleScope(chosen, records, [...live.values()], embedder)
  const probes = drawn.filter(({ kind }) => choice.kinds.length === 0 || choice.kinds.includes(kind))
  if (probes.length === 0)
    throw new PalimpsestError(
      'invalid_value',
      `No probe of ${dataset.name} is left to ask; loosen --kinds, --limit or --per-kind.`,
    )
  const found = probes.filter(({ kind }) => kind === 'in_scope_neighbour').length
  const notes = [
    ...(found > 0
      ? [
          `${found} probes made to be out of scope ask what another record edits; they count as in-scope neighbours and want that edit.`,
        ]
      : []),
    ...(passedOver > 0 ? [`${passedOver} records were passed over, since a later record supersedes an edit of theirs.`] : []),
    ...(contradicted > 0
      ? [
          `${contradicted} records that were drawn state a fact that a later record states otherwise, in other words; their in-scope probes are left out.`,
        ]
      : []),
  ]
  const edits = new Map([...live].map(([id, { edit }]) => [id, edit]))
  return { records, edits, probes, drawn, notes }
}
