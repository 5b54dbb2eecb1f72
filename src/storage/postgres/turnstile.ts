import { PalimpsestError } from '../../errors.ts'

export interface TurnstileOptions {
  /** How many are inside at a time. */
  readonly places: number
  /** More than these are refused at once. */
  readonly waiting: number
  /** Whoever waits longer is refused. */
  readonly waitMs: number
  /** What messages call it: a database. */
  readonly name: string
}

interface Waiter {
  readonly enter: () => void
  readonly refuse: (why: PalimpsestError) => void
}

const RETRY_AFTER_SECONDS = 1

/** Lets as many in as there are connections, the others in their turn. Throws `storage_unavailable` where too many wait, or for too long. */
export class Turnstile {
  readonly #options: TurnstileOptions
  readonly #waiting = new Set<Waiter>()
  #inside = 0

  constructor(options: TurnstileOptions) {
    this.#options = options
  }

  /** Resolves to the way out, to be called once. */
  async enter(doing: string): Promise<() => void> {
    const { places, waiting } = this.#options
    if (this.#inside < places) this.#inside++
    else if (this.#waiting.size >= waiting)
      throw this.#refusal(doing, `${waiting} statements wait for it already, which is the limit`)
    else await this.#turn(doing)
    return () => this.#leave()
  }

  #turn(doing: string): Promise<void> {
    const { waitMs, places } = this.#options
    return new Promise((resolve, reject) => {
      const settle = () => {
        clearTimeout(timer)
        this.#waiting.delete(waiter)
      }
      const waiter: Waiter = {
        enter: () => {
          settle()
          resolve()
        },
        refuse: (why) => {
          settle()
          reject(why)
        },
      }
      const timer = setTimeout(
        () => waiter.refuse(this.#refusal(doing, `none of its ${places} connections came free within ${waitMs} ms`)),
        waitMs,
      )
      this.#waiting.add(waiter)
    })
  }

  /** The place goes from one to the next, so that nobody comes between. */
  #leave(): void {
    const [next] = this.#waiting
    if (next === undefined) this.#inside--
    else next.enter()
  }

  /** For all who wait, as for the one who found out: the database cannot be reached. */
  refuseAll(why: PalimpsestError): void {
    for (const waiter of this.#waiting) waiter.refuse(why)
  }

  #refusal(doing: string, why: string): PalimpsestError {
    const message = `${this.#options.name} is busy (${why}), so ${doing} failed. Try again in a moment, or give the gateway more \`databaseConnections\`.`
    return new PalimpsestError('storage_unavailable', message, { retryAfterSeconds: RETRY_AFTER_SECONDS })
  }
}
