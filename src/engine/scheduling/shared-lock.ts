interface Waiter {
  readonly alone: boolean
  readonly enter: () => void
}

/** Any number of requests together, or one alone; first come, first served. */
export class Turns {
  #inside = 0
  #alone = false
  readonly #waiting: Waiter[] = []

  /** Resolves to what ends the turn. Throws the signal's reason when aborted while waiting. */
  async enter(alone: boolean, signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted()
    if (this.#waiting.length > 0 || !this.#admit(alone)) await this.#wait(alone, signal)
    return () => this.#leave(alone)
  }

  #admit(alone: boolean): boolean {
    if (this.#alone || (alone && this.#inside > 0)) return false
    this.#inside++
    this.#alone = alone
    return true
  }

  #wait(alone: boolean, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const give = () => {
        this.#waiting.splice(this.#waiting.indexOf(waiter), 1)
        reject(signal.reason)
        this.#next()
      }
      const waiter: Waiter = {
        alone,
        enter: () => {
          signal.removeEventListener('abort', give)
          resolve()
        },
      }
      signal.addEventListener('abort', give, { once: true })
      this.#waiting.push(waiter)
    })
  }

  #leave(alone: boolean): void {
    this.#inside--
    if (alone) this.#alone = false
    this.#next()
  }

  #next(): void {
    for (let first = this.#waiting[0]; first !== undefined && this.#admit(first.alone); first = this.#waiting[0]) {
      this.#waiting.shift()
      first.enter()
    }
  }
}
