interface Waiting<Item, Result> {
  readonly item: Item
  readonly resolve: (result: Result) => void
  readonly reject: (error: unknown) => void
}

/**
 * One call of `work` at a time for each name. All that is asked of a name while one is under way goes into the next together: a row that
 * everybody wants is written as often as the database can, and not once for each. `apart`: none waits, since nothing is gained by it.
 */
export class Turns<Item, Result> {
  readonly #work: (items: readonly Item[]) => Promise<readonly Result[]>
  readonly #apart: boolean
  readonly #waiting = new Map<string, Waiting<Item, Result>[]>()

  /** `work` gives a result for each item, in their order. */
  constructor(work: (items: readonly Item[]) => Promise<readonly Result[]>, apart: boolean) {
    this.#work = work
    this.#apart = apart
  }

  async ask(name: string, item: Item): Promise<Result> {
    if (this.#apart) return (await this.#work([item]))[0] as Result
    return new Promise((resolve, reject) => {
      const one = { item, resolve, reject }
      const waiting = this.#waiting.get(name)
      if (waiting !== undefined) {
        waiting.push(one)
        return
      }
      this.#waiting.set(name, [])
      void this.#run(name, [one])
    })
  }

  async #run(name: string, first: readonly Waiting<Item, Result>[]): Promise<void> {
    for (let batch = first; batch.length > 0; batch = this.#waiting.get(name)?.splice(0) ?? []) {
      try {
        const results = await this.#work(batch.map(({ item }) => item))
        for (const [at, { resolve }] of batch.entries()) resolve(results[at] as Result)
      } catch (error) {
        for (const { reject } of batch) reject(error)
      }
    }
    this.#waiting.delete(name)
  }
}
