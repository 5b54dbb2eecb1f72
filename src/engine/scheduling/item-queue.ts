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
 * Jobs of some items each, one item at a time: after each item a waiting query goes before every import, jobs of a kind in order of arrival.
 * An abort takes effect between items.
 */
export class ItemQueue<Item, Result> {
  readonly #evaluate: (item: Item) => Promise<Result>
  readonly #waiting: Record<ItemPriority, QueuedItem<Item, Result>[]> = { query: [], import: [] }
  #closed = false
  #working: Promise<void> | null = null

  constructor(evaluate: (item: Item) => Promise<Result>) {
    this.#evaluate = evaluate
  }

  run(items: readonly Item[], priority: ItemPriority, signal?: AbortSignal): Promise<Result[]> {
    return new Promise((done, failed) => {
      this.#waiting[priority].push({ items, signal, results: [], done, failed })
      this.#working ??= this.#work()
    })
  }

  /** What waits is refused; resolves once the item in hand is done. */
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

  /** Evaluates the job's next item; true when the job is over, in whichever way. */
  async #advance(job: QueuedItem<Item, Result>): Promise<boolean> {
    try {
      if (this.#closed) throw shuttingDown()
      job.signal?.throwIfAborted()
      const item = job.items[job.results.length]
      if (item !== undefined) job.results.push(await this.#evaluate(item))
      if (job.results.length < job.items.length) return false
      job.done(job.results)
    } catch (error) {
      job.failed(error)
    }
    return true
  }
}
