import { setTimeout as sleep } from 'node:timers/promises'
import { randomFrom } from '../../src/evaluate/metrics/random.ts'
import { type Answer, Client, CONTENDED, stateOf, TENANTS, versionsOf, Workload } from './clients.ts'
import { type Cluster, type Node, openCluster, type Program } from './cluster.ts'
import { type Fault, makeFaults, type Spans } from './faults.ts'
import type { BatchRow, FinalState, HeldState, LogRow, Operation } from './operations.ts'
import { type Violation, verify } from './verify.ts'

export interface RunOptions {
  readonly seed: number
  readonly seconds: number
  readonly program: Program
  readonly gateways?: number
  /** So many write, and so many read. */
  readonly clients?: number
  readonly spans?: Partial<Spans>
  /** Of PostgreSQL. */
  readonly settings?: Readonly<Record<string, string>>
  /** Ends the run early; what was seen until then is verified. */
  readonly signal?: AbortSignal
}

export interface RunResult {
  readonly seed: number
  /** With calls and faults. */
  readonly seconds: number
  readonly violations: readonly Violation[]
  readonly faults: ReadonlyMap<Fault, number>
  /** Answers by what was asked and their status; 0: none came. */
  readonly answers: ReadonlyMap<string, number>
  readonly acknowledged: number
  readonly reads: number
  readonly readsWithToken: number
  readonly records: number
  readonly longestWriteMs: number
  /** From the end of all faults until every gateway had the whole log and took a write. */
  readonly recoveryMs: number
}

const SPANS: Spans = { gapMs: 8_000, faultMs: 6_000, stopMs: 60_000 }
const RECOVERY_MS = 90_000

/** Clients write and read while faults are made; then all of it is verified. */
export async function runHistory(options: RunOptions): Promise<RunResult> {
  const { seed, seconds, program, gateways = 3, clients = 4, spans, settings, signal } = options
  const cluster = await openCluster(program, gateways, settings)
  try {
    const workload = new Workload()
    const begunAt = performance.now()
    // Clients go on until the last fault has ended; where one of them is at fault, all ends.
    const [noMoreFaults, noMoreCalls] = [new AbortController(), new AbortController()]
    const end = () => noMoreFaults.abort()
    signal?.addEventListener('abort', end)
    const timer = setTimeout(end, seconds * 1_000)
    const client = (name: string) => new Client(name, cluster, workload, randomFrom(seed, name))
    const calling = Promise.all([
      ...Array.from({ length: clients }, (_, i) => client(`writer-${i}`).write(noMoreCalls.signal)),
      ...Array.from({ length: clients }, (_, i) => client(`reader-${i}`).read(noMoreCalls.signal)),
    ]).finally(end)
    const faults = makeFaults(cluster, randomFrom(seed, 'faults'), { ...SPANS, ...spans }, noMoreFaults.signal)
    const [made] = await Promise.all([faults.finally(() => noMoreCalls.abort()), calling])
    clearTimeout(timer)
    const healedAt = performance.now()
    const stuck = await recovered(cluster, workload.operations)
    const recoveryMs = performance.now() - healedAt
    const { log, batches } = await readLog(cluster)
    const finals = await Promise.all(cluster.nodes.flatMap((node) => TENANTS.map((tenant) => finalState(node, tenant))))
    const { operations, answers, longestMs } = workload
    const violations = [...stuck, ...verify({ operations, log, batches, finals })]
    const reads = operations.filter((operation) => 'atLeast' in operation)
    return {
      seed,
      seconds: (healedAt - begunAt) / 1_000,
      violations,
      faults: made,
      answers,
      acknowledged: operations.filter((operation) => 'outcome' in operation && operation.outcome === 'acknowledged').length,
      reads: reads.length,
      readsWithToken: reads.filter(({ atLeast }) => atLeast !== null).length,
      records: log.length,
      longestWriteMs: longestMs,
      recoveryMs,
    }
  } finally {
    await cluster.close()
  }
}

/** Once more where a connection that was kept is closed as it is used again. What is sent so may be sent twice. */
async function json(url: string, init?: RequestInit, attempts = 3): Promise<Answer> {
  try {
    const response = await fetch(url, { ...init, signal: AbortSignal.timeout(30_000) })
    return { status: response.status, body: await response.json() }
  } catch (error) {
    if (attempts === 1) throw error
    return json(url, init, attempts - 1)
  }
}

/** Waits until every gateway takes a write that all then show, and is ready. */
async function recovered({ nodes }: Cluster, operations: Operation[]): Promise<Violation[]> {
  const end = performance.now() + RECOVERY_MS
  const stuck: Violation[] = []
  for (const node of nodes) {
    const invoked = performance.now()
    const edit = { id: 'last', subject: 'Last', prompt: 'The mayor of Last is', target_new: `Last of ${node.name}` }
    let version: number | null = null
    let fault = ''
    const look = async () => {
      const landed = await json(`${node.url}/v1/edits`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(edit),
      })
      if (landed.status >= 300) return JSON.stringify(landed.body)
      version = Number(landed.body.palimpsest.memory_version)
      for (const other of nodes) {
        const headers = { 'palimpsest-at-least': String(version) }
        const { status, body } = await json(`${other.url}/v1/edits/last`, { headers })
        if (status !== 200) return `${other.name}: ${JSON.stringify(body)}`
        if ((await json(`${other.url}/readyz`)).status !== 200) return `${other.name} is not ready`
      }
      return ''
    }
    do {
      if (fault !== '') await sleep(100)
      fault = await look().catch((error: unknown) => String(error))
    } while (fault !== '' && performance.now() < end)
    if (fault !== '') stuck.push({ kind: 'lost', what: `${node.name} was not well within ${RECOVERY_MS} ms: ${fault}` })
    const landed = [{ id: edit.id, target: edit.target_new }]
    const outcome = version === null ? 'unknown' : 'acknowledged'
    const base = { tenant: TENANTS[0], node: node.name, invoked, completed: performance.now(), version }
    operations.push({ kind: 'land', edits: landed, outcome, ...base })
  }
  return stuck
}

/** The truth, read past all gateways. */
async function readLog({ connect }: Cluster): Promise<{ log: LogRow[]; batches: BatchRow[] }> {
  const client = await connect()
  try {
    const log = await client.query(
      `SELECT seq, at, tenant, kind, edit_id, batch_id, body::json->>'subject' AS subject, body::json->>'targetNew' AS target
         FROM log ORDER BY seq`,
    )
    const batches = await client.query('SELECT n, tenant, id FROM batches ORDER BY n')
    return {
      log: log.rows.map(({ seq, at, edit_id, batch_id, ...row }) => ({
        ...row,
        id: edit_id,
        batch: batch_id,
        seq: Number(seq),
        at: Number(at),
      })),
      batches: batches.rows.map(({ n, ...row }) => ({ ...row, n: Number(n) })),
    }
  } finally {
    await client.end()
  }
}

async function finalState(node: Node, tenant: (typeof TENANTS)[number]): Promise<FinalState> {
  const headers = { 'palimpsest-tenant': tenant }
  const edits: HeldState[] = []
  for (let cursor: string | null = ''; cursor !== null; ) {
    const { body } = await json(`${node.url}/v1/edits?limit=1000${cursor === '' ? '' : `&cursor=${cursor}`}`, { headers })
    edits.push(...body.data.map(stateOf))
    cursor = body.next_cursor
  }
  const histories = new Map<string, readonly number[]>()
  for (const id of CONTENDED[tenant]) {
    const { status, body } = await json(`${node.url}/v1/edits/${id}`, { headers })
    histories.set(id, status === 200 ? versionsOf(body) : [])
  }
  return { node: node.name, tenant, edits, histories }
}
