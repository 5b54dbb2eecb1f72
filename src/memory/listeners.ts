import type { Logger } from '../logger.ts'

/** Who hears of changes that have landed: one that throws stops nothing. */
export class Listeners<About extends { readonly tenant: string }> {
  readonly #listeners = new Set<(about: About) => void>()
  readonly #say: Logger

  constructor(say: Logger) {
    this.#say = say
  }

  /** Returns the way to unsubscribe. */
  add(listener: (about: About) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  tell(about: About): void {
    for (const listener of this.#listeners) {
      try {
        listener(about)
      } catch (error) {
        this.#say.error({ err: error, tenant: about.tenant }, 'a listener of the memory failed; the change itself has landed')
      }
    }
  }
}
