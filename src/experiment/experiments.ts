import { PalimpsestError } from '../errors.ts'
import type { ChatRequest } from '../request.ts'
import { inAudience } from './assign.ts'
import { asServed, type Experiment, keyOf, type Status } from './experiment.ts'
import type { Declared, Ledger } from './ledger/ledger.ts'
import type { LedgerEvent } from './ledger/ledger-reader.ts'
import type { Outcome } from './ledger/outcome.ts'
import { type Moment, type Result, resultOf, resultsOverTime } from './statistics/result.ts'

/** What happens in an experiment, for whoever watches over it. */
export interface Watcher {
  /** An answer came, or feedback on one. */
  changed(experiment: Experiment): void
  /** A request met a batch that is in its shadow stage. */
  shadow(experiment: Experiment, request: ChatRequest): void
}

export interface ExperimentsOptions {
  readonly ledger: Ledger
  /** Milliseconds since the epoch. */
  readonly now: () => number
  /** Experiments of one tenant that may run at a time, rollouts among them. */
  readonly runningExperiments: number
  readonly warn: (message: string) => void
  /** Between two looks for what other gateways changed. */
  readonly lookMs?: number
}

/** What a change makes of an experiment, and the event that tells of it. */
export interface Change {
  readonly experiment: Experiment
  readonly event?: Omit<LedgerEvent, 'at'>
}

/** A transaction in which experiments may be changed. */
export interface Turn {
  readonly ledger: Ledger
  /** `decide` sees the experiment as it is on record, and nobody changes it meanwhile; null: nothing is changed. Once in a turn. */
  change(key: string, decide: (current: Experiment | undefined) => Change | null): Promise<Experiment | null>
}

/** How long results over time are kept, and how many times as long as they took, so that looking is never most of the work. */
const MOMENTS_MS = 1_000
const KEPT_TIMES = 20
const LOOK_MS = 500
/** Outcomes that wait for the database to come back. */
const UNSAVED_OUTCOMES = 10_000

/**
 * All experiments, in the order they were declared. What is asked on every request is held in memory; a change is on record first and then in
 * force here, and within a look on all other gateways.
 */
export class Experiments {
  readonly ledger: Ledger
  readonly #options: ExperimentsOptions
  #held = new Map<string, Declared>()
  /** Of `#held`, in the order of declaration. */
  #all: readonly Experiment[] = []
  /** All changes up to this one are held. */
  #applied = -1
  readonly #fullOnce = new Set<string>()
  readonly #moments = new Map<string, { readonly moments: Promise<readonly Moment[]>; until: number }>()
  #watcher: Watcher | undefined
  #looker: NodeJS.Timeout | undefined
  /** Whether the last look failed, so that it is told once. */
  #isAway = false
  readonly #saving = new Set<Promise<void>>()
  #unsaved: (() => Promise<void>)[] = []
  #closed = false

  private constructor(options: ExperimentsOptions) {
    this.ledger = options.ledger
    this.#options = options
  }

  static async open(options: ExperimentsOptions): Promise<Experiments> {
    const experiments = new Experiments(options)
    await experiments.refresh()
    experiments.#lookLater()
    return experiments
  }

  /** Waits for what is being saved. The ledger is not closed. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#looker)
    await Promise.all(this.#saving)
  }

  watch(watcher: Watcher): void {
    this.#watcher = watcher
  }

  /** Learns what other gateways changed. */
  async refresh(): Promise<void> {
    const held = this.#applied
    const latest = await this.ledger.look()
    if (latest === held) return
    // Fewer changes than before: another database, put back from a copy say.
    const isOther = latest < held
    const found = await this.ledger.changedSince(isOther ? -1 : held)
    if (isOther) {
      this.#held = new Map()
      this.#all = []
      this.#applied = latest
    }
    for (const declared of found) this.#hold(declared)
    this.#applied = Math.max(this.#applied, latest)
  }

  #lookLater(): void {
    if (this.#closed) return
    this.#looker = setTimeout(() => this.#track(this.#lookAgain()), this.#options.lookMs ?? LOOK_MS)
    this.#looker.unref()
  }

  async #lookAgain(): Promise<void> {
    try {
      await this.refresh()
      this.#isAway = false
      const unsaved = this.#unsaved
      this.#unsaved = []
      for (const save of unsaved) await this.#attempt(save)
    } catch (error) {
      if (!this.#isAway) this.#options.warn(`experiments stay as they are known here: ${(error as Error).message}`)
      this.#isAway = true
    }
    this.#lookLater()
  }

  #hold(declared: Declared): void {
    const key = keyOf(declared.experiment)
    // A look that began before a change may end after it.
    if ((this.#held.get(key)?.changed ?? -1) > declared.changed) return
    this.#held.set(key, declared)
    this.#all = [...this.#held.values()].sort((a, b) => a.place - b.place).map(({ experiment }) => experiment)
  }

  /** What is not waited for: a request is over by then. What fails since the database is away is tried again when it is back. */
  saveLater(save: () => Promise<void>): void {
    this.#track(this.#attempt(save))
  }

  async #attempt(save: () => Promise<void>): Promise<void> {
    try {
      await save()
    } catch (error) {
      const isAway = error instanceof PalimpsestError && error.code === 'storage_unavailable'
      if (isAway && !this.#closed && this.#unsaved.length < UNSAVED_OUTCOMES) this.#unsaved.push(save)
      else this.#options.warn(`what came of an answer was not recorded: ${(error as Error).message}`)
    }
  }

  #track(work: Promise<void>): void {
    this.#saving.add(work)
    void work.finally(() => this.#saving.delete(work))
  }

  all(tenant: string): Experiment[] {
    return this.#all.filter((experiment) => experiment.tenant === tenant)
  }

  everywhere(): readonly Experiment[] {
    return this.#all
  }

  /** By its key. */
  known(key: string): Experiment | undefined {
    return this.#held.get(key)?.experiment
  }

  /** Throws `experiment_not_found`. */
  get(tenant: string, id: string): Experiment {
    const found = this.known(keyOf({ tenant, id }))
    if (found !== undefined) return found
    const message = `There is no experiment or rollout '${id.slice(0, 128)}' in tenant '${tenant}'. List them with GET /v1/experiments.`
    throw new PalimpsestError('experiment_not_found', message, { param: 'id' })
  }

  /** Rollouts first, else as declared. */
  running(tenant: string): Experiment[] {
    const running = this.all(tenant).filter(({ status }) => status === 'running')
    return [...running.filter(({ rollout }) => rollout !== undefined), ...running.filter(({ rollout }) => rollout === undefined)]
  }

  /** Those of them that deal arms: a rollout that is being taken back deals none. */
  dealing(tenant: string): Experiment[] {
    return this.running(tenant).filter(({ rollout }) => rollout?.takenBack === undefined)
  }

  /** Batches that are being rolled out, and so kept from all requests but those that the rollout lets have them. */
  #heldBack(tenant: string): string[] {
    return this.all(tenant).flatMap(({ status, rollout }) =>
      status === 'running' && rollout !== undefined ? [rollout.batch] : [],
    )
  }

  /** The request as it is answered outside of experiments: without batches held back, and with the arm that was shipped. */
  usual(request: ChatRequest): ChatRequest {
    const shipped = this.all(request.tenant).filter(
      (e) => e.status === 'shipped' && e.rollout === undefined && inAudience(e, request),
    )
    const arm = shipped.at(-1)
    const serves = arm?.arms[arm.shipped ?? -1]?.serves
    const withoutBatches = this.#heldBack(request.tenant)
    const plain = withoutBatches.length === 0 ? request : { ...request, withoutBatches }
    return serves === undefined ? plain : asServed(plain, serves)
  }

  /** The request as each arm answers it. */
  arms({ arms, rollout }: Experiment, request: ChatRequest): ChatRequest[] {
    if (rollout === undefined) return arms.map(({ serves }) => asServed(request, serves))
    const others = (request.withoutBatches ?? []).filter((batch) => batch !== rollout.batch)
    return [
      { ...request, withoutBatches: [...others, rollout.batch] },
      { ...request, withoutBatches: others },
    ]
  }

  isShadow({ rollout, arms }: Experiment): boolean {
    return rollout !== undefined && arms[1]?.weight === 0
  }

  shadow(experiment: Experiment, request: ChatRequest): void {
    this.#watcher?.shadow(experiment, request)
  }

  finished(experiment: Experiment, completion: string, outcome: Outcome): void {
    this.saveLater(async () => {
      await this.ledger.finish(completion, outcome)
      this.#watcher?.changed(experiment)
    })
  }

  /** Both arms' answers to a prompt are on record. */
  replayed(experiment: Experiment): void {
    this.#watcher?.changed(experiment)
  }

  /** Feedback came on an answer. */
  heard(completion: string): void {
    this.saveLater(async () => {
      const experiment = this.known((await this.ledger.experimentOf(completion)) ?? '')
      if (experiment !== undefined) this.#watcher?.changed(experiment)
    })
  }

  full({ tenant, id }: Experiment): void {
    const key = keyOf({ tenant, id })
    if (!this.#fullOnce.has(key)) this.#options.warn(`experiment ${key}: the ledger is full, so no more exposures are taken`)
    this.#fullOnce.add(key)
  }

  /** Whether an exposure was turned away since the start. */
  isFull(experiment: Experiment): boolean {
    return this.#fullOnce.has(keyOf(experiment))
  }

  /** A transaction, whose changes are in force here once they have landed. */
  async atOnce<Done>(doing: string, work: (turn: Turn) => Promise<Done>): Promise<Done> {
    const changed: Declared[] = []
    const done = await this.ledger.atOnce(doing, (ledger) =>
      work({
        ledger,
        change: async (key, decide) => {
          const latest = await ledger.lockChanges()
          for (const declared of await ledger.changedSince(this.#applied)) this.#hold(declared)
          this.#applied = Math.max(this.#applied, latest)
          const change = decide(this.known(key))
          if (change === null) return null
          const event = change.event && { ...change.event, at: Math.round(this.#options.now()) }
          changed.push(await ledger.save(change.experiment, latest, event))
          return change.experiment
        },
      }),
    )
    for (const declared of changed) {
      this.#hold(declared)
      this.#applied = Math.max(this.#applied, declared.changed)
    }
    return done
  }

  /** One change that looks and writes; resolves to what it wrote, or, where there was nothing to write, to the experiment as it is. */
  async #change(doing: string, { tenant, id }: Experiment, decide: (current: Experiment | undefined) => Change | null) {
    const written = await this.atOnce(doing, ({ change }) => change(keyOf({ tenant, id }), decide))
    return written ?? this.get(tenant, id)
  }

  /** Throws `invalid_value` where the id is taken or too many run. */
  declare(experiment: Experiment): Promise<Experiment> {
    const { tenant, id } = experiment
    return this.#change('declaring an experiment', experiment, (known) => {
      if (known !== undefined)
        throw new PalimpsestError('invalid_value', `There is an experiment '${id}' already. Give this one another id.`, {
          param: 'id',
        })
      const running = this.running(tenant).length
      if (running >= this.#options.runningExperiments)
        throw new PalimpsestError('invalid_value', `${running} experiments run already, which is the limit: stop one first.`, {
          param: 'id',
        })
      return { experiment, event: { kind: 'declared', body: {} } }
    })
  }

  /** New weights of a running experiment, in the order of its arms; where one is left out, it stays. Exposed units stay where they are. */
  reweigh(experiment: Experiment, given: readonly (number | undefined)[]): Promise<Experiment> {
    return this.#change('changing weights', experiment, (current = experiment) => {
      assertRunning(current)
      const before = current.arms.map(({ weight }) => weight)
      const arms = current.arms.map((arm, at) => ({ ...arm, weight: given[at] ?? arm.weight }))
      const epoch = current.epoch + 1
      const body = { epoch, before, weights: arms.map(({ weight }) => weight) }
      return { experiment: { ...current, arms, epoch }, event: { kind: 'reweighed', body } }
    })
  }

  /** Ends it, once; everyone is answered as before it. Its results stay on record. */
  async stop(experiment: Experiment): Promise<Experiment> {
    const result = await this.#lastResult(experiment)
    return this.#change('stopping an experiment', experiment, (current = experiment) =>
      current.status === 'stopped' ? null : this.ended(current, 'stopped', {}, { kind: 'stopped', body: result }),
    )
  }

  /** Ends it; its audience is answered by this arm from now on. `stop` takes that back. */
  async ship(experiment: Experiment, arm: number): Promise<Experiment> {
    assertRunning(experiment)
    const result = await this.#lastResult(experiment)
    return this.#change('shipping an arm', experiment, (current = experiment) => {
      assertRunning(current)
      const body = { ...result, arm: current.arms[arm]?.name }
      return this.ended(current, 'shipped', { shipped: arm }, { kind: 'shipped', body })
    })
  }

  async #lastResult(experiment: Experiment): Promise<{ readonly result?: Result }> {
    return experiment.status === 'running' ? { result: await this.result(experiment) } : {}
  }

  /** The change that ends an experiment. */
  ended(experiment: Experiment, status: Status, more: Partial<Experiment>, event: Omit<LedgerEvent, 'at'>): Change {
    const { shipped: _, ...rest } = experiment
    const endedAt = experiment.endedAt ?? Math.round(this.#options.now())
    return { experiment: { ...rest, status, endedAt, ...more }, event }
  }

  result(experiment: Experiment): Promise<Result> {
    return resultOf(experiment, this.ledger)
  }

  /** See `resultsOverTime`. Many may look at once, so it is kept for a moment. */
  overTime(experiment: Experiment, points: number): Promise<readonly Moment[]> {
    const key = JSON.stringify([keyOf(experiment), experiment.version, experiment.epoch, points])
    const { now } = this.#options
    const begun = now()
    for (const [held, { until }] of this.#moments) if (until < begun) this.#moments.delete(held)
    const known = this.#moments.get(key)
    if (known !== undefined) return known.moments
    const looked = { moments: resultsOverTime(experiment, this.ledger, points), until: Number.POSITIVE_INFINITY }
    this.#moments.set(key, looked)
    looked.moments.then(
      () => {
        looked.until = now() + Math.max(MOMENTS_MS, KEPT_TIMES * (now() - begun))
      },
      () => this.#moments.delete(key),
    )
    return looked.moments
  }
}

function assertRunning({ id, status }: Experiment): void {
  if (status !== 'running')
    throw new PalimpsestError('invalid_value', `Experiment '${id}' does not run: it is ${status}.`, { param: 'id' })
}
