/** Edits into memories, each a tenant of its own; then what the cases want once all of a memory is there. */
import { type Edit, LIMITS } from '../../edit/edit.ts'
import { words } from '../../edit/words.ts'
import type { Embedder } from '../../engine/engine.ts'
import type { MemoryStore } from '../../memory/memory-store.ts'
import type { DataRecord } from '../data/dataset.ts'
import type { Probe } from '../data/probe.ts'
import { type Held, settleScope } from '../data/scope.ts'
import type { Case, CaseMemory, Cases } from './case.ts'

/** Tenant of each memory, by its key. */
export type Tenants = ReadonlyMap<string, string>

/** Lands `fill` in every memory, then its own edits. What a memory or `fill` itself has already asked is left out of `fill`. */
export async function landCases(memory: MemoryStore, { memories }: Cases, fill: readonly Edit[]): Promise<Tenants> {
  const tenants = new Map<string, string>()
  for (const [key, { edits }] of memories) {
    const tenant = `memory-${tenants.size + 1}`
    const stated = new Set(edits.map(factOf))
    const others = fill.filter((edit) => !stated.has(factOf(edit)) && stated.add(factOf(edit)))
    for (const [some, source] of [
      [others, 'fill'],
      [edits, 'data'],
    ] as const)
      for (let from = 0; from < some.length; from += LIMITS.batchEdits) {
        const batch = some.slice(from, from + LIMITS.batchEdits).map((edit): Edit => ({ ...edit, tenant }))
        await memory.land(batch, { source, tenant, dryRun: false })
      }
    tenants.set(key, tenant)
  }
  return tenants
}

function factOf({ subject, prompt }: Edit): string {
  return `${words(subject).join(' ')}\n${words(prompt).join(' ')}`
}

export function liveIn(memory: MemoryStore, tenant: string): readonly Held[] {
  return memory.all(tenant).filter(({ state }) => state === 'live')
}

export interface SettledCases {
  readonly cases: readonly Case[]
  readonly notes: readonly string[]
}

/** Cases whose edit still holds. Those made by a program learn which other edits answer them (see `settleScope`). */
export async function settle(
  { cases, memories }: Cases,
  tenants: Tenants,
  memory: MemoryStore,
  embedder: Embedder,
): Promise<SettledCases> {
  const out: Case[] = []
  const counts = { gone: 0, answered: 0 }
  for (const [key, tenant] of tenants) {
    const held = liveIn(memory, tenant)
    const live = new Set(held.map(({ edit }) => edit.id))
    const own = cases.filter((one) => one.memory === key)
    const kept = own.filter(({ wants }) => wants.every((id) => live.has(id)))
    const settled = await settleDerived(
      kept.filter(({ derived }) => derived),
      memories.get(key),
      held,
      embedder,
    )
    counts.gone += own.length - kept.filter(({ derived }) => !derived).length - settled.cases.length
    counts.answered += settled.answered
    out.push(...kept.filter(({ derived }) => !derived), ...settled.cases)
  }
  const notes = [
    ...(counts.gone > 0
      ? [`${counts.gone} messages are left out, since a later edit says otherwise than the one they are about.`]
      : []),
    ...(counts.answered > 0
      ? [`${counts.answered} near misses ask what another edit states; they count as in scope of it.`]
      : []),
  ]
  return { cases: out, notes }
}

async function settleDerived(cases: readonly Case[], memory: CaseMemory | undefined, live: readonly Held[], embedder: Embedder) {
  const edits = memory?.edits ?? []
  const record = new Map(edits.map((edit, index) => [edit.id, index]))
  const records = new Map(edits.map((edit, index): [number, DataRecord] => [index, { index, edits: [edit], probes: [] }]))
  const probes = cases.map(
    (one, i): Probe => ({
      id: String(i),
      record: record.get(one.about ?? '') ?? null,
      wants: one.wants,
      answers: [],
      kind: one.wants.length > 0 ? 'generalization' : 'locality',
      sub: one.sameRelation === true ? 'neighbourhood' : one.type,
      turns: one.messages.map(({ content }) => content),
    }),
  )
  const { probes: settled } = await settleScope(probes, records, live, embedder)
  const all = settled.map(({ id, kind, wants, equals = [] }) => {
    const own = cases[Number(id)] as Case
    return kind === 'in_scope_neighbour' ? { ...own, type: `${own.type}, is`, wants, equals } : { ...own, equals }
  })
  return { cases: all, answered: settled.filter(({ kind }) => kind === 'in_scope_neighbour').length }
}
