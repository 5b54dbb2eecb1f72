import { shuttingDown } from './slot-queue.ts'

export type ItemPriority = 'query' | 'import'

interface QueuedItem<Item, Result> {
  readonly items: readonly Item[]
  readonly signal: AbortSignal | undefined
  readonly results: Result[]
  readonly done: (results: Result[]) => void
  readonly failed: (reason: unknown) => void
}

/**
 * Jobs of some items each, `atOnce` of one job at a time: after them a waiting query goes before every import, jobs of a kind in order of
 * arrival. An abort takes effect in between.
 */
export class ItemQueue<Item, Result> {
  readonly #evaluate: (items: readonly Item[]) => Promise<readonly Result[]>
  readonly #atOnce: () => number
  readonly #waiting: Record<ItemPriority, QueuedItem<Item, Result>[]> = { query: [], import: [] }
  #closed = false
  #working: Promise<void> | null = null

  constructor(evaluate: (items: readonly Item[]) => Promise<readonly Result[]>, atOnce: () => number) {
    this.#evaluate = evaluate
    this.#atOnce = atOnce
  }

  run(items: readonly Item[], priority: ItemPriority, signal?: AbortSignal): Promise<Result[]> {
    return new Promise((done, failed) => {
      this.#waiting[priority].push({ items, signal, results: [], done, failed })
      this.#working ??= this.#work()
    })
  }

  /** What waits is refused; resolves once what is in hand is done. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#working
  }

  async #work(): Promise<void> {
    for (;;) {
      const queue = this.#waiting.query.length > 0 ? this.#waiting.query : this.#waiting.import
      const job = queue[0]
      if (job === undefined) break
      // Awaited even where the job has no item: it must not be over before `#working` is set.
      if (await this.#advance(job)) queue.shift()
    }
    this.#working = null
  }

  /** Evaluates the job's next items; true when the job is over, in whichever way. */
  async #advance(job: QueuedItem<Item, Result>): Promise<boolean> {
    try {
      if (this.#closed) throw shuttingDown()
      job.signal?.throwIfAborted()
      const from = job.results.length
      if (from < job.items.length) job.results.push(...(await this.#evaluate(job.items.slice(from, from + this.#atOnce()))))
      if (job.results.length < job.items.length) return false
      job.done(job.results)
    } catch (error) {
      job.failed(error)
    }
    return true
  }
}

/** Items of a job to be given to so many lanes at once: two for each, since the next wait for the slowest. */
export const itemsFor = (lanes: number): number => (lanes === 1 ? 1 : 2 * lanes)

/** `work` for every item by the next free lane; resolves to the results in order. What fails is thrown once every lane is free again. */
export async function sideBySide<Lane, Item, Result>(
  lanes: readonly Lane[],
  items: readonly Item[],
  work: (lane: Lane, item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = []
  let next = 0
  const run = async (lane: Lane) => {
    for (let at = next++; at < items.length; at = next++) results[at] = await work(lane, items[at] as Item)
  }
  const ended = await Promise.allSettled(lanes.map(run))
  for (const end of ended) if (end.status === 'rejected') throw end.reason
  return results
}
