import { PalimpsestError } from '../../errors.ts'
import type { Logger } from '../../logger.ts'
import type { Listening } from '../../storage/sql.ts'
import { type EditLog, type Entry, isBehind, type LogPage, type Position } from './edit-log.ts'

/** How a node learns what others write: `sole`, nobody else can; `listening` for hints, and polling; `polling` alone; `away`: it cannot now. */
export type FeedState = 'sole' | 'listening' | 'polling' | 'away'

export interface FeedStatus {
  readonly state: FeedState
  /** Last record that this node has applied. */
  readonly applied: number
  /** Last record of the log, as far as this node knows. */
  readonly seen: number
  /** When the log was last reached, in milliseconds since the epoch. */
  readonly lastContact: number
  /** Why it cannot be followed, where it is `away`. */
  readonly fault: string | null
}

export interface FeedOptions {
  readonly log: EditLog
  /** How far this node has applied the log. */
  readonly applied: () => Position
  /** Takes batches just read or written; those known already are passed over. `isOwn`: this node wrote the entry. */
  readonly apply: (page: LogPage, isOwn: (entry: Entry) => boolean) => void
  /** Told first what is about to be applied, all of which the log holds. */
  readonly announce: (page: LogPage) => Promise<void>
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly say: Logger
}

/** What a writer does in its turn. `answer` is asked once all of it is applied, and before the next turn of this node. */
export interface Planned<Answer> {
  readonly entries: readonly Entry[]
  readonly answer: () => Answer | Promise<Answer>
}

export type Plan<Answer> = () => Planned<Answer> | Promise<Planned<Answer>>

/** Between two looks at the log. While hints arrive, polling only covers what they miss. */
const POLL_MS = { listening: 1_000, otherwise: 250 }

/** A write that has waited so long for its turn is refused if the log cannot be reached: each turn before it may take as long as a statement may. */
const LINE_MS = 2_000
const RETRY_AFTER_SECONDS = 2

interface Waiter {
  readonly seq: number
  readonly resolve: (isReached: boolean) => void
}

/** The one way by which records come into this node's memory: what it and others have written, in the order of the log. */
export class Feed {
  readonly #options: FeedOptions
  #isClosed = false
  #listening: Listening | undefined
  #following: Promise<void> | undefined
  /** Ends with the operation of this node that came last. */
  #turns: Promise<unknown> = Promise.resolve()
  /** What this node writes just now. It may be read before the answer to its commit is here. */
  #writing: readonly Entry[] = []
  #seen = 0
  #lastContact: number
  #fault: string | null = null
  /** There is something to look for. */
  #isWoken = false
  #wakeUp = () => {}
  #waiters: Waiter[] = []

  constructor(options: FeedOptions) {
    this.#options = options
    this.#lastContact = options.now()
  }

  get status(): FeedStatus {
    const { seq } = this.#options.applied()
    return {
      state: this.#state,
      applied: seq,
      seen: Math.max(seq, this.#seen),
      lastContact: this.#lastContact,
      fault: this.#fault,
    }
  }

  get #state(): FeedState {
    if (this.#fault !== null) return 'away'
    if (!this.#options.log.isShared) return 'sole'
    return this.#listening?.up === true ? 'listening' : 'polling'
  }

  /** Applies all that was written up to now. Throws storage errors. */
  async catchUp(): Promise<void> {
    const { log, applied, announce } = this.#options
    try {
      const head = await log.head()
      this.#seen = Math.max(this.#seen, head.seq)
      // What this node has written meanwhile is beyond `head`, and no fault.
      const before = applied()
      while (isBehind(applied(), head)) {
        const page = await log.after(applied())
        await announce(page)
        this.#take(page)
      }
      if (before.seq > head.seq) log.assertReaches(await log.head(), before)
      this.#reached()
    } catch (error) {
      this.#failed(error)
      throw error
    }
  }

  #take(page: LogPage): void {
    const own = this.#writing.map(({ batch }) => batch)
    this.#options.apply(page, ({ batch }) => own.some(({ tenant, id }) => tenant === batch.tenant && id === batch.id))
    this.#release()
  }

  #reached(): void {
    if (this.#fault !== null) this.#options.say.info({ log: this.status.applied }, 'the log of edits is followed again')
    this.#fault = null
    this.#lastContact = this.#options.now()
  }

  #failed(error: unknown): void {
    const fault = error instanceof Error ? error.message : String(error)
    if (this.#fault === null)
      this.#options.say.error({ err: error }, 'the log of edits cannot be followed; answering from memory')
    this.#fault = fault
  }

  /** From now on, follows what others write, until `close`. */
  follow(): void {
    const { log } = this.#options
    if (!log.isShared || this.#following !== undefined) return
    this.#listening = log.listen((seq) => {
      this.#seen = Math.max(this.#seen, seq)
      if (seq === 0 || seq > this.#options.applied().seq) this.#wake()
    })
    this.#following = this.#follow()
  }

  async #follow(): Promise<void> {
    while (!this.#isClosed) {
      await this.#pause()
      // What fails is noted, and tried again at the next look.
      if (!this.#isClosed) await this.catchUp().catch(() => {})
    }
  }

  async #pause(): Promise<void> {
    const ms = this.#listening?.up === true && this.#fault === null ? POLL_MS.listening : POLL_MS.otherwise
    if (!this.#isWoken)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms)
        timer.unref()
        this.#wakeUp = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    this.#isWoken = false
  }

  #wake(): void {
    this.#isWoken = true
    this.#wakeUp()
  }

  /** Runs `plan` in this node's turn among all writers, and what it plans is kept and applied when this resolves. Throws storage errors. */
  append<Answer>(plan: Plan<Answer>): Promise<Answer> {
    const asked = performance.now()
    const turn = this.#turns.then(() => {
      if (this.#fault !== null && performance.now() - asked > LINE_MS) throw notReached(this.#fault)
      return this.#append(plan)
    })
    this.#turns = turn.catch(() => {})
    return turn
  }

  async #append<Answer>(plan: Plan<Answer>): Promise<Answer> {
    const { log, applied, announce } = this.#options
    let planned: Planned<Answer> | undefined
    try {
      const page = await log.append({
        applied,
        missed: (missed) => this.#take(missed),
        plan: async () => {
          planned = await plan()
          this.#writing = planned.entries
          return planned.entries
        },
      })
      this.#reached()
      await announce(page)
      this.#take(page)
    } catch (error) {
      if (error instanceof PalimpsestError && error.code === 'storage_unavailable') this.#failed(error)
      throw error
    } finally {
      this.#writing = []
    }
    if (planned === undefined) throw new Error('a turn of the log must plan')
    return planned.answer()
  }

  /** Waits up to `ms` until the record is applied here; false where it is not by then. */
  reached(seq: number, ms: number): Promise<boolean> {
    if (this.#options.applied().seq >= seq) return Promise.resolve(true)
    this.#wake()
    return new Promise((resolve) => {
      const settle = (isReached: boolean) => {
        clearTimeout(timer)
        this.#waiters = this.#waiters.filter((one) => one !== waiter)
        resolve(isReached)
      }
      const waiter = { seq, resolve: settle }
      const timer = setTimeout(() => settle(false), ms)
      this.#waiters.push(waiter)
    })
  }

  #release(): void {
    const { seq } = this.#options.applied()
    for (const waiter of this.#waiters.filter((one) => one.seq <= seq)) waiter.resolve(true)
  }

  /** After the turns that were begun. */
  async close(): Promise<void> {
    this.#isClosed = true
    this.#wake()
    for (const waiter of this.#waiters) waiter.resolve(false)
    await Promise.all([this.#turns, this.#following, this.#listening?.close()])
  }
}

function notReached(fault: string): PalimpsestError {
  return new PalimpsestError(
    'storage_unavailable',
    `The log of edits could not be reached while this change waited for its turn, and nothing of it was kept (${fault}). Try again in a moment.`,
    { retryAfterSeconds: RETRY_AFTER_SECONDS },
  )
}
