import { setTimeout as sleep } from 'node:timers/promises'
import type { Cluster, Node } from './cluster.ts'
import type { HeldState, LandedEdit, Operation, Outcome } from './operations.ts'

/** Of gateway-child.ts. */
const MODEL = 'scripted'
export const TENANTS = ['default', 'other'] as const
type Tenant = (typeof TENANTS)[number]
/** Edits that say something of the same subject: the later supersedes the earlier. */
const EDITS_PER_SUBJECT = 3
/** Marks the edits that many clients write and read. */
const TAG = 'contended'
/** A client gives up waiting for an answer. */
const PATIENCE_MS = 5_000
const PAUSE_MS = 60
const ATTEMPTS = 4
/** Longest batch; one in `RARELY` long ones is longer than a page of the log. */
const BATCH_EDITS = 120
const RARELY = 25
const HUGE_BATCH_EDITS = 5_200
/** Batches that may be withdrawn. */
const BATCHES_KEPT = 20

/** By tenant. Far apart, since a name that is nearly another's is taken for it. */
const SUBJECTS: Readonly<Record<Tenant, readonly string[]>> = {
  default: ['Aldmoor', 'Brenwick', 'Cathoven', 'Drustal', 'Elmgard', 'Fintropia', 'Gorlitza', 'Hexley'],
  other: ['Ingvarsund', 'Jostedal', 'Karvonia', 'Lunderby', 'Mirapolis', 'Nesquet', 'Orlambe', 'Pudrach'],
}
const contended = (tenant: Tenant) =>
  SUBJECTS[tenant].flatMap((subject) => Array.from({ length: EDITS_PER_SUBJECT }, (_, i) => `${subject}-${i}`))
export const CONTENDED: Readonly<Record<Tenant, readonly string[]>> = {
  default: contended('default'),
  other: contended('other'),
}

/** What all clients of a run share. */
export class Workload {
  readonly operations: Operation[] = []
  /** Answers by what was asked and their status. */
  readonly answers = new Map<string, number>()
  /** Longest wait for an answer to a write, refusals among them. */
  longestMs = 0
  #targets = 0
  readonly #acknowledged = new Map<string, number>(TENANTS.map((tenant) => [tenant, 0]))
  readonly #batches: { readonly tenant: string; readonly id: string; readonly ids: readonly string[] }[] = []

  /** A text that no other landing has. */
  nextTarget(): string {
    return `Mayor${++this.#targets}x`
  }

  acknowledged(tenant: string): number {
    return this.#acknowledged.get(tenant) ?? 0
  }

  acknowledge(tenant: string, version: number): void {
    this.#acknowledged.set(tenant, Math.max(version, this.acknowledged(tenant)))
  }

  keepBatch(tenant: string, id: string, ids: readonly string[]): void {
    this.#batches.push({ tenant, id, ids })
    if (this.#batches.length > BATCHES_KEPT) this.#batches.shift()
  }

  /** One that landed lately. */
  batch(random: () => number) {
    return this.#batches[Math.floor(random() * this.#batches.length)]
  }

  count(what: string): void {
    this.answers.set(what, (this.answers.get(what) ?? 0) + 1)
  }
}

interface Content {
  readonly body?: object
  readonly headers?: Record<string, string>
}

export interface Answer {
  readonly status: number
  // biome-ignore lint/suspicious/noExplicitAny: answers are looked into field by field below
  readonly body: any
}

/** One client: one call after the other, each on a gateway drawn by chance. */
export class Client {
  readonly #cluster: Pick<Cluster, 'nodes'>
  readonly #workload: Workload
  readonly #random: () => number
  readonly #name: string
  #calls = 0

  constructor(name: string, cluster: Pick<Cluster, 'nodes'>, workload: Workload, random: () => number) {
    this.#name = name
    this.#cluster = cluster
    this.#workload = workload
    this.#random = random
  }

  async write(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const draw = this.#random()
      if (draw < 0.6) await this.#land()
      else if (draw < 0.78) await this.#toggle('withdraw')
      else if (draw < 0.94) await this.#toggle('restore')
      else await this.#withdrawBatch()
      await this.#pause()
    }
  }

  async read(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const draw = this.#random()
      if (draw < 0.5) await this.#lookUp()
      else if (draw < 0.7) await this.#list()
      else await this.#ask()
      await this.#pause()
    }
  }

  #pause(): Promise<void> {
    return sleep(this.#random() * PAUSE_MS)
  }

  #pick<T>(items: readonly T[]): T {
    return items[Math.floor(this.#random() * items.length)] as T
  }

  #contended(tenant: Tenant): string {
    return this.#pick(CONTENDED[tenant])
  }

  /** Sends it to one gateway; `status` 0 where no answer came. */
  async #call(node: Node, tenant: string, method: string, path: string, more: Content): Promise<Answer> {
    const { url } = node
    let answer: Answer = { status: 0, body: null }
    if (url === undefined) return answer
    try {
      const response = await fetch(url + path, {
        method,
        headers: { 'content-type': 'application/json', 'palimpsest-tenant': tenant, ...more.headers },
        ...(more.body && { body: JSON.stringify(more.body) }),
        signal: AbortSignal.timeout(PATIENCE_MS),
      })
      answer = { status: response.status, body: await response.json() }
    } catch {
      // Killed, stopped or cut off: whether it was done is not known.
    }
    if (answer.status === 400) throw new Error(`${method} ${path} is no call of this API: ${JSON.stringify(answer.body)}`)
    return answer
  }

  /** Sends a write until it is answered for good or no attempt is left, each time to any gateway. */
  async #written(what: string, tenant: string, method: string, path: string, more: Content, most = ATTEMPTS) {
    const invoked = performance.now()
    let isUnknown = false
    for (let attempts = 1; ; attempts++) {
      const node = this.#pick(this.#cluster.nodes)
      const { name } = node
      const sent = performance.now()
      const { status, body } = await this.#call(node, tenant, method, path, more)
      const completed = performance.now()
      this.#workload.longestMs = Math.max(this.#workload.longestMs, completed - sent)
      this.#workload.count(`${what} ${status}`)
      const base = { tenant, node: name, invoked, completed, attempts }
      if (status >= 200 && status < 300) {
        const version = Number(body.palimpsest.memory_version)
        this.#workload.acknowledge(tenant, version)
        return { ...base, outcome: 'acknowledged' as Outcome, version, body }
      }
      isUnknown ||= status === 0 || status >= 500
      // A gateway that is behind knows of less; then another try may do.
      if (attempts === most || this.#random() < 0.2 || (status >= 400 && status < 500))
        return { ...base, outcome: (isUnknown ? 'unknown' : 'refused') as Outcome, version: null, body }
      await sleep(this.#random() * 500)
    }
  }

  async #land(): Promise<void> {
    const tenant = this.#pick(TENANTS)
    const edits = this.#edits(tenant)
    // Named by header or parameter, a batch lands once however often it is sent. One without a name is sent once.
    const key = `${this.#name}-${this.#calls++}`
    const how = this.#random()
    const path = how < 0.4 ? `/v1/edits?batch=${key}` : '/v1/edits'
    const content = {
      body: { edits: edits.map((edit) => ({ ...edit, prompt: `The mayor of ${edit.subject} is` })) },
      headers: how >= 0.4 && how < 0.8 ? { 'idempotency-key': key } : {},
    }
    const most = how < 0.8 ? ATTEMPTS : 1
    const { body, attempts: _, ...written } = await this.#written('land', tenant, 'POST', path, content, most)
    const landed = edits.map(({ id, target_new: target }): LandedEdit => ({ id, target }))
    this.#workload.operations.push({ kind: 'land', edits: landed, ...written })
    if (written.outcome === 'acknowledged' && edits.length <= BATCH_EDITS)
      this.#workload.keepBatch(
        tenant,
        body.id,
        landed.map(({ id }) => id),
      )
  }

  #edits(tenant: Tenant) {
    const draw = this.#random()
    const contended = (id: string) => ({
      id,
      subject: id.slice(0, -2),
      target_new: this.#workload.nextTarget(),
      tags: [TAG],
    })
    if (draw < 0.6) return [contended(this.#contended(tenant))]
    if (draw < 0.9) return [...new Set(Array.from({ length: 8 }, () => this.#contended(tenant)))].map(contended)
    const length = this.#random() < 1 / RARELY ? HUGE_BATCH_EDITS : 2 + Math.floor(this.#random() * BATCH_EDITS)
    return Array.from({ length }, () => {
      const target = this.#workload.nextTarget()
      return { id: `e-${target}`, subject: `Place of ${target}`, target_new: target, tags: [] }
    })
  }

  async #toggle(kind: 'withdraw' | 'restore'): Promise<void> {
    const tenant = this.#pick(TENANTS)
    const several = kind === 'withdraw' && this.#random() < 0.3
    const ids = [...new Set(Array.from({ length: several ? 4 : 1 }, () => this.#contended(tenant)))]
    const { body: _, ...written } = several
      ? await this.#written('withdraw several', tenant, 'POST', '/v1/edits/withdraw', { body: { ids } })
      : await this.#written(kind, tenant, 'POST', `/v1/edits/${ids[0]}/${kind}`, {})
    this.#workload.operations.push({ kind, ids, batch: null, ...written })
  }

  async #withdrawBatch(): Promise<void> {
    const batch = this.#workload.batch(this.#random)
    if (batch === undefined) return
    const { tenant, id, ids } = batch
    const path = `/v1/batches/${encodeURIComponent(id)}/withdraw`
    const { body: _, ...written } = await this.#written('withdraw batch', tenant, 'POST', path, {})
    this.#workload.operations.push({ kind: 'withdraw', ids, batch: id, ...written })
  }

  /** Half of all reads bring the latest version that any client got, of either tenant: the log is one. */
  async #readFrom(what: string, tenant: string, method: string, path: string, body?: object) {
    const atLeast = this.#random() < 0.5 ? this.#workload.acknowledged(this.#pick(TENANTS)) : null
    const node = this.#pick(this.#cluster.nodes)
    const { name } = node
    const invoked = performance.now()
    const answer = await this.#call(node, tenant, method, path, {
      ...(body && { body }),
      headers: atLeast === null ? {} : { 'palimpsest-at-least': String(atLeast) },
    })
    this.#workload.count(`${what}${atLeast === null ? '' : ' with a token'} ${answer.status}`)
    return { ...answer, base: { tenant, node: name, invoked, completed: performance.now(), atLeast } }
  }

  async #lookUp(): Promise<void> {
    const tenant = this.#pick(TENANTS)
    const id = this.#contended(tenant)
    const { status, body, base } = await this.#readFrom('look up', tenant, 'GET', `/v1/edits/${id}`)
    if (status === 404) this.#workload.operations.push({ kind: 'lookup', id, history: [], ...base })
    if (status === 200) this.#workload.operations.push({ kind: 'lookup', id, history: versionsOf(body), ...base })
  }

  async #list(): Promise<void> {
    const tenant = this.#pick(TENANTS)
    const { status, body, base } = await this.#readFrom('list', tenant, 'GET', `/v1/edits?tag=${TAG}&limit=100`)
    if (status !== 200) return
    this.#workload.operations.push({ kind: 'list', asked: CONTENDED[tenant], seen: body.data.map(stateOf), ...base })
  }

  async #ask(): Promise<void> {
    const tenant = this.#pick(TENANTS)
    const subject = this.#pick(SUBJECTS[tenant])
    const { status, body, base } = await this.#readFrom('ask', tenant, 'POST', '/v1/chat/completions', {
      model: MODEL,
      messages: [{ role: 'user', content: `Who is the mayor of ${subject}?` }],
    })
    if (status !== 200) return
    const targets = [...new Set(String(body.choices[0].message.content).match(/Mayor\d+x/g) ?? [])]
    this.#workload.operations.push({ kind: 'ask', subject, targets, ...base })
  }
}

export const stateOf = ({ id, version, state }: HeldState): HeldState => ({ id, version, state })

export const versionsOf = ({ history }: { readonly history: readonly { readonly version: number }[] }) =>
  history.map(({ version }) => version)
