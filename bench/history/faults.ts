import { setTimeout as sleep } from 'node:timers/promises'
import { shuffled } from '../../src/evaluate/metrics/random.ts'
import { lockStatement } from '../../src/storage/advisory-locks.ts'
import type { Cluster, Node } from './cluster.ts'

export const FAULTS = [
  'gateway killed',
  'gateway stopped',
  'PostgreSQL killed',
  'connections cut',
  'connections refused',
  'network stalled',
  'network slow',
  'lock of writers held',
  'tables locked',
  'transaction left open',
  'PgBouncer put between',
  'PgBouncer killed',
] as const
export type Fault = (typeof FAULTS)[number]

/** Those that need a PgBouncer on this machine. */
export const NEEDS_POOLER: ReadonlySet<Fault> = new Set(['PgBouncer put between', 'PgBouncer killed'])

/** Faults that this machine can make. */
function faultsOf({ pooler }: Pick<Cluster, 'pooler'>): Fault[] {
  return FAULTS.filter((fault) => pooler !== undefined || !NEEDS_POOLER.has(fault))
}

/** Longest of each, and between two. */
export interface Spans {
  readonly gapMs: number
  readonly faultMs: number
  /** A gateway that is stopped: longer than statements and leases last. */
  readonly stopMs: number
}

/**
 * Makes faults until the signal, and each kind once in any case, in an order and with times drawn from `random`. Several may last at once, of
 * different gateways or servers. Resolves once all have ended; to how often there was each.
 */
export async function makeFaults(
  cluster: Cluster,
  random: () => number,
  { gapMs, faultMs, stopMs }: Spans,
  signal: AbortSignal,
): Promise<Map<Fault, number>> {
  const made = new Map<Fault, number>()
  const busy = new Set<unknown>()
  const lasting = new Set<Promise<void>>()
  const failed: unknown[] = []
  let deck = shuffled(faultsOf(cluster), random)
  for (let isFirst = true; (isFirst || !signal.aborted) && failed.length === 0; isFirst &&= deck.length > 0) {
    if (deck.length === 0) deck = shuffled(faultsOf(cluster), random)
    const fault = deck.pop() as Fault
    const node = cluster.nodes[Math.floor(random() * cluster.nodes.length)] as Node
    const ms = random() * (fault === 'gateway stopped' ? stopMs : faultMs)
    const gap = random() * gapMs
    const on = placeOf(fault, node, cluster)
    // Of what is broken already, later.
    while (busy.has(on)) await sleep(20)
    busy.add(on)
    const last = make(fault, node, cluster, Math.ceil(ms))
      .catch((error: unknown) => failed.push(error))
      .then(() => {
        busy.delete(on)
        lasting.delete(last)
      })
    lasting.add(last)
    made.set(fault, (made.get(fault) ?? 0) + 1)
    await sleep(gap, undefined, { signal }).catch(() => {})
  }
  await Promise.all(lasting)
  // A server that does not start again: the run says nothing then.
  if (failed.length > 0) throw failed[0]
  return made
}

/** What a fault is of: two of one place never last at once. */
function placeOf(fault: Fault, node: Node, { server, pooler }: Cluster): unknown {
  switch (fault) {
    case 'gateway killed':
    case 'gateway stopped':
      return node
    case 'PostgreSQL killed':
      return server
    case 'connections cut':
    case 'connections refused':
    case 'network stalled':
    case 'network slow':
    case 'PgBouncer put between':
      return node.proxy
    case 'PgBouncer killed':
      return pooler
    case 'lock of writers held':
    case 'tables locked':
    case 'transaction left open':
      return 'a foreign client'
  }
  fault satisfies never
}

async function make(fault: Fault, node: Node, cluster: Cluster, ms: number): Promise<void> {
  const { proxy } = node
  switch (fault) {
    case 'gateway killed':
      await node.kill()
      await sleep(ms)
      return node.start()
    case 'gateway stopped':
      node.signal('SIGSTOP')
      await sleep(ms)
      return node.signal('SIGCONT')
    case 'PostgreSQL killed':
      await cluster.server.kill()
      await sleep(ms)
      return cluster.server.start()
    case 'connections cut':
      return proxy.cut()
    case 'connections refused':
      proxy.refuses = true
      proxy.cut()
      await sleep(ms)
      proxy.refuses = false
      return
    case 'network stalled':
      proxy.stall()
      // Also for longer than a statement may take.
      await sleep(2 * ms)
      return proxy.flow()
    case 'network slow':
      proxy.delayMs = 1 + ms / 20
      await sleep(ms)
      proxy.delayMs = 0
      return
    case 'lock of writers held':
      return foreign(cluster, [lockStatement('log')], ms)
    case 'tables locked':
      return foreign(cluster, ['LOCK TABLE log, batches IN ACCESS EXCLUSIVE MODE'], ms)
    case 'transaction left open':
      return foreign(
        cluster,
        ['SELECT txid_current()', 'SELECT count(*) FROM log', 'LOCK TABLE log IN SHARE ROW EXCLUSIVE MODE'],
        ms,
      )
    case 'PgBouncer put between':
      proxy.target = cluster.pooler?.port ?? proxy.target
      proxy.cut()
      // Longer than others: most of what it changes shows while all else goes well.
      await sleep(4 * ms)
      proxy.target = cluster.server.port
      return proxy.cut()
    case 'PgBouncer killed':
      await cluster.pooler?.kill()
      await sleep(ms)
      return cluster.pooler?.start()
  }
  fault satisfies never
}

/** A client that is not ours holds a transaction open. It ends early where the server is killed. */
async function foreign({ connect }: Cluster, statements: readonly string[], ms: number): Promise<void> {
  try {
    const client = await connect()
    try {
      for (const statement of ['BEGIN', ...statements]) await client.query(statement)
      await sleep(ms)
    } finally {
      // A server that was killed does not answer to that.
      await Promise.race([client.end(), sleep(1_000)])
    }
  } catch {
    // Another fault was faster.
  }
}
