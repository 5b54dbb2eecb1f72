import type { AddressInfo } from 'node:net'
import { createApp } from '../../src/app.ts'
import { supersessionKey } from '../../src/edit/edit.ts'
import type { Engine, Prompt } from '../../src/engine/engine.ts'
import { openScripted, type ScriptedOptions } from '../../src/engine/scripted.ts'
import { PalimpsestError } from '../../src/errors.ts'
import { DEFAULT_LIMITS, type Gateway, type Limits, type MemoryStore } from '../../src/gateway.ts'
import { EVIDENCE, type Evidence } from '../../src/memory/evidence.ts'
import type { HeldEdit, LogRecord } from '../../src/memory/memory.ts'
import type { Retriever } from '../../src/memory/retrieve.ts'
import type { Template } from '../../src/prompt/turn.ts'

export const MODEL = 'scripted'

/** Answers with the last message, so that a test sees what the model saw. */
export function echo(prompt: Prompt): string {
  return `You said: ${prompt.messages.at(-1)?.content}`
}

export interface Served {
  readonly base: string
  readonly gateway: Gateway
  readonly logged: object[]
  close(): Promise<void>
}

export interface ServeOptions {
  readonly engine?: Engine
  readonly script?: Partial<ScriptedOptions>
  readonly limits?: Partial<Limits>
  readonly closing?: AbortSignal
}

/** A gateway with a scripted engine behind the real application, on a port of the system's choice. */
export async function serve({ engine, script, limits, closing }: ServeOptions = {}): Promise<Served> {
  const memory = fakeMemory()
  const logged: object[] = []
  const note = (fields: object) => void logged.push(fields)
  const gateway: Gateway = {
    engine: engine ?? openScripted({ name: MODEL, reply: echo, contextTokens: 2_000_000, ...script }),
    memory,
    retriever: bySubject(memory),
    calibration: { bias: 5, weights: {}, products: {}, threshold: 0.5 },
    templates: { names: () => ['facts'], get: () => TEMPLATE, problems: () => [], reload: () => {}, close: async () => {} },
    limits: { ...DEFAULT_LIMITS, ...limits },
    now: () => performance.timeOrigin + performance.now(),
    log: { info: note, warn: note, error: note },
    version: '0.0.0-test',
    startedAt: Date.now(),
    ...(closing && { closing }),
  }
  const server = createApp(gateway).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  return {
    base: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    gateway,
    logged,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

const TEMPLATE: Template = {
  name: 'facts',
  hash: '01234567',
  description: 'for tests',
  demonstrations: 0,
  render: ({ question, edits }) => `${edits.map((edit) => edit.statement).join('. ')}. ${question}`,
}

const NO_EVIDENCE = Object.fromEntries(EVIDENCE.map((name) => [name, 0])) as Evidence

/** Offers every live edit whose subject occurs in the turn. */
function bySubject(memory: MemoryStore): Retriever {
  const candidates: Retriever['candidates'] = async (query, turn) => {
    const text = query.messages[turn]?.content ?? ''
    const live = memory.list({ tenant: query.tenant, state: 'live', limit: 1_000 }).edits
    const named = live.filter(({ edit }) => text.includes(edit.subject))
    return { cached: false, candidates: named.map(({ edit }) => ({ edit, similarity: 0.9, evidence: NO_EVIDENCE })) }
  }
  return { candidates } as unknown as Retriever
}

/** The contract of `Memory` over an array of log records: enough to see what the routes do with it. */
export function fakeMemory(): MemoryStore {
  const log: LogRecord[] = []
  const sources = new Map<string, string>()
  const of = (tenant: string, id: string) => log.filter((record) => record.editId === id && editOf(id)?.tenant === tenant)
  const editOf = (id: string) => log.findLast((record) => record.editId === id && record.edit)?.edit
  const append = (kind: LogRecord['kind'], editId: string, batchId: string, edit?: LogRecord['edit']) =>
    void log.push({ seq: log.length + 1, at: Date.now(), kind, editId, batchId, ...(edit && { edit }) })

  const get = (tenant: string, id: string): HeldEdit | undefined => {
    const record = of(tenant, id).findLast(({ edit }) => edit)
    if (!record?.edit) return undefined
    const { edit, batchId, seq, at } = record
    const later = log.find(
      (other) => other.seq > seq && other.edit && other.editId !== id && supersessionKey(other.edit) === supersessionKey(edit),
    )
    const state = of(tenant, id).at(-1)?.kind === 'withdraw' ? 'withdrawn' : later ? 'superseded' : 'live'
    return { edit, batchId, seq, landedAt: at, state, ...(state === 'superseded' && later && { supersededBy: later.editId }) }
  }
  const all = (tenant: string) => [...new Set(log.map(({ editId }) => editId))].flatMap((id) => get(tenant, id) ?? [])
  const change = (kind: 'withdraw' | 'restore') => (tenant: string, ids: readonly string[]) => {
    const missing = ids.filter((id) => !get(tenant, id))
    if (missing.length > 0) throw new PalimpsestError('edit_not_found', `There is no edit ${missing[0]}.`)
    for (const id of ids) append(kind, id, '')
    return ids.flatMap((id) => get(tenant, id) ?? [])
  }
  const withdraw = change('withdraw')
  const batch = (tenant: string, id: string) => all(tenant).filter(({ batchId }) => batchId === id)

  return {
    get version() {
      return log.length
    },
    land(edits, { batchId = `b_${edits.map(({ id }) => id).join()}`, source, tenant, dryRun }) {
      const replayed = sources.has(batchId)
      const results = edits.map((edit, index) => {
        const before = get(tenant, edit.id)
        const supersedes = all(tenant).filter(
          (held) => held.state === 'live' && held.edit.id !== edit.id && supersessionKey(held.edit) === supersessionKey(edit),
        )
        const outcome = replayed ? ('unchanged' as const) : before ? ('revised' as const) : ('added' as const)
        if (!dryRun && !replayed) append('add', edit.id, batchId, edit)
        return {
          index,
          id: edit.id,
          outcome,
          state: 'live' as const,
          supersedes: supersedes.map((held) => held.edit.id),
          conflictsWith: [],
        }
      })
      if (!dryRun) sources.set(batchId, source)
      return { batchId, dryRun, replayed, version: log.length, results }
    },
    withdraw,
    restore: change('restore'),
    withdrawBatch: (tenant, id) =>
      withdraw(
        tenant,
        batch(tenant, id).map(({ edit }) => edit.id),
      ),
    get,
    history: of,
    list({ tenant, state, tag, batchId, subject, text, limit, cursor }) {
      const from = cursor === undefined ? 0 : Number(cursor)
      if (Number.isNaN(from))
        throw new PalimpsestError('invalid_value', 'The cursor is none that this server gave out.', { param: 'cursor' })
      const found = all(tenant).filter(
        (held) =>
          (!state || held.state === state) &&
          (!tag || held.edit.tags.includes(tag)) &&
          (!batchId || held.batchId === batchId) &&
          (!subject || held.edit.subject === subject) &&
          (!text || JSON.stringify(held.edit).includes(text)),
      )
      return {
        edits: found.slice(from, from + limit),
        nextCursor: from + limit < found.length ? String(from + limit) : null,
        total: found.length,
      }
    },
    batches: (tenant) =>
      [...sources].flatMap(([id, source]) => {
        const held = batch(tenant, id)
        return held.length === 0
          ? []
          : [
              {
                id,
                tenant,
                at: held[0]?.landedAt ?? 0,
                source,
                edits: held.length,
                live: held.filter(({ state }) => state === 'live').length,
              },
            ]
      }),
    heldAt: (tenant, id) => get(tenant, id)?.state === 'live',
    status: () => [{ tenant: 'default', indexed: all('default').length, pending: 0 }],
    indexed: async () => {},
    close: async () => {},
  }
}
