import { setTimeout as sleep, setImmediate as yieldToLoop } from 'node:timers/promises'
import type { Edit } from '../edit/edit.ts'
import type { Log } from './indexer.ts'
import type { KeptVectors } from './kept-vectors.ts'

interface Job {
  readonly tenant: string
  readonly seq: number
  readonly edit: Edit
}

/** How often it is looked whether the others have done with the processor, and how long they must have. */
const LOOK_MS = 250
const CALM_MS = 1_000
/** Edits prepared between two marks; a start after a kill looks at so many again. */
const MARK_EDITS = 64

export interface PreparationOptions {
  readonly kept: KeptVectors
  /** What the first question about an edit needs embedded besides itself. */
  readonly textsOf: (edit: Edit) => readonly string[]
  /** Remembers that a tenant's edits up to this log record are done. */
  readonly mark: (tenant: string, seq: number) => void
  readonly log: Log
}

/** Embeds, while nobody else needs the processor, what the first question about each edit would otherwise wait for. */
export class Preparation {
  readonly #options: PreparationOptions
  readonly #stop = new AbortController()
  #jobs: Job[] = []
  #quiet: (() => boolean) | null = null
  #running: Promise<void> | null = null

  constructor(options: PreparationOptions) {
    this.#options = options
  }

  /** A tenant's edits come in the order of their records. */
  enqueue(jobs: readonly Job[]): void {
    for (const job of jobs) this.#jobs.push(job)
    this.#go()
  }

  /** Nothing is done before. `quiet`: nobody else needs the processor. */
  start(quiet: () => boolean): void {
    this.#quiet = quiet
    this.#go()
  }

  #go(): void {
    if (this.#quiet === null || this.#jobs.length === 0 || this.#stop.signal.aborted) return
    this.#running ??= this.#run(this.#quiet).finally(() => {
      this.#running = null
    })
  }

  async #run(quiet: () => boolean): Promise<void> {
    const { signal } = this.#stop
    const done = new Map<string, number>()
    const mark = () => {
      for (const [tenant, seq] of done) this.#options.mark(tenant, seq)
      done.clear()
    }
    await yieldToLoop()
    try {
      for (let i = 0; i < this.#jobs.length; i++) {
        const { tenant, seq, edit } = this.#jobs[i] as Job
        await this.#calm(quiet)
        await this.#options.kept.embed(new Set(this.#options.textsOf(edit)), 'import', signal)
        done.set(tenant, seq)
        if (i % MARK_EDITS === MARK_EDITS - 1) mark()
        await yieldToLoop()
      }
    } catch (error) {
      if (!signal.aborted)
        this.#options.log.warn({ err: error }, 'embedding in advance failed; what is left is embedded when it is first asked for')
    }
    mark()
    this.#jobs = []
  }

  /** Whoever was served a moment ago is likely to ask again. */
  async #calm(quiet: () => boolean): Promise<void> {
    const pause = (ms: number) => sleep(ms, undefined, { signal: this.#stop.signal, ref: false })
    while (!quiet()) {
      do await pause(LOOK_MS)
      while (!quiet())
      await pause(CALM_MS)
    }
  }

  async close(): Promise<void> {
    this.#stop.abort()
    await this.#running
  }
}
