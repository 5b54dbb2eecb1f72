import { PalimpsestError } from '../errors.ts'
import type { ChatRequest } from '../request.ts'
import { inAudience } from './assign.ts'
import { asServed, type Experiment, keyOf, type Status } from './experiment.ts'
import type { Ledger } from './ledger/ledger.ts'
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
}

/** How long results over time are kept, and how many times as long as they took, so that looking is never most of the work. */
const MOMENTS_MS = 1_000
const KEPT_TIMES = 20

/** All experiments, in the order they were declared; those that run are asked on every request. */
export class Experiments {
  readonly ledger: Ledger
  readonly #options: ExperimentsOptions
  readonly #held: Map<string, Experiment>
  readonly #fullOnce = new Set<string>()
  readonly #moments = new Map<string, { readonly moments: readonly Moment[]; readonly until: number }>()
  #watcher: Watcher | undefined

  constructor(options: ExperimentsOptions) {
    this.ledger = options.ledger
    this.#options = options
    this.#held = new Map(options.ledger.experiments().map((experiment) => [keyOf(experiment), experiment]))
  }

  watch(watcher: Watcher): void {
    this.#watcher = watcher
  }

  all(tenant: string): Experiment[] {
    return [...this.#held.values()].filter((experiment) => experiment.tenant === tenant)
  }

  everywhere(): Experiment[] {
    return [...this.#held.values()]
  }

  /** Throws `experiment_not_found`. */
  get(tenant: string, id: string): Experiment {
    const found = this.#held.get(keyOf({ tenant, id }))
    if (found !== undefined) return found
    const message = `There is no experiment or rollout '${id.slice(0, 128)}' in tenant '${tenant}'. List them with GET /v1/experiments.`
    throw new PalimpsestError('experiment_not_found', message, { param: 'id' })
  }

  /** Rollouts first, else as declared. */
  running(tenant: string): Experiment[] {
    const running = this.all(tenant).filter(({ status }) => status === 'running')
    return [...running.filter(({ rollout }) => rollout !== undefined), ...running.filter(({ rollout }) => rollout === undefined)]
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
    this.ledger.finish(completion, outcome)
    this.#watcher?.changed(experiment)
  }

  /** Both arms' answers to a prompt are on record. */
  replayed(experiment: Experiment): void {
    this.#watcher?.changed(experiment)
  }

  /** Feedback came on an answer of this experiment. */
  heard(completion: string): void {
    const experiment = this.#held.get(this.ledger.experimentOf(completion) ?? '')
    if (experiment !== undefined) this.#watcher?.changed(experiment)
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

  /** Throws `invalid_value` where the id is taken or too many run. */
  declare(experiment: Experiment): void {
    const { tenant, id } = experiment
    if (this.#held.has(keyOf(experiment)))
      throw new PalimpsestError('invalid_value', `There is an experiment '${id}' already. Give this one another id.`, {
        param: 'id',
      })
    const running = this.running(tenant).length
    if (running >= this.#options.runningExperiments)
      throw new PalimpsestError('invalid_value', `${running} experiments run already, which is the limit: stop one first.`, {
        param: 'id',
      })
    this.update(experiment, 'declared', {})
  }

  /** On the disk first, then in force. */
  update(experiment: Experiment, kind: string, body: Readonly<Record<string, unknown>>): void {
    this.ledger.save(experiment, { at: Math.round(this.#options.now()), kind, body })
    this.#held.set(keyOf(experiment), experiment)
  }

  /** New weights of a running experiment, in the order of its arms; units that were exposed stay where they are. */
  reweigh(experiment: Experiment, weights: readonly number[]): Experiment {
    this.#assertRunning(experiment)
    const arms = experiment.arms.map((arm, at) => ({ ...arm, weight: weights[at] ?? arm.weight }))
    const next = { ...experiment, arms, epoch: experiment.epoch + 1 }
    this.update(next, 'reweighed', { epoch: next.epoch, before: experiment.arms.map(({ weight }) => weight), weights })
    return next
  }

  /** Ends it; everyone is answered as before it. Its results stay on record. */
  stop(experiment: Experiment, why: Readonly<Record<string, unknown>> = {}): Experiment {
    return this.#end(experiment, 'stopped', {}, why)
  }

  /** Ends it; its audience is answered by this arm from now on. `stop` takes that back. */
  ship(experiment: Experiment, arm: number): Experiment {
    this.#assertRunning(experiment)
    return this.#end(experiment, 'shipped', { shipped: arm })
  }

  #end(
    experiment: Experiment,
    status: Status,
    more: Partial<Experiment>,
    why: Readonly<Record<string, unknown>> = {},
  ): Experiment {
    const { shipped: _, ...rest } = experiment
    const ended = { ...rest, status, endedAt: experiment.endedAt ?? Math.round(this.#options.now()), ...more }
    const result = experiment.status === 'running' ? { result: this.result(experiment) } : {}
    this.update(ended, status, {
      ...why,
      ...result,
      ...(more.shipped !== undefined && { arm: experiment.arms[more.shipped]?.name }),
    })
    return ended
  }

  result(experiment: Experiment): Result {
    return resultOf(experiment, this.ledger)
  }

  /** See `resultsOverTime`. Many may look at once, so it is kept for a moment. */
  overTime(experiment: Experiment, points: number): readonly Moment[] {
    const key = JSON.stringify([keyOf(experiment), experiment.version, experiment.epoch, points])
    const now = this.#options.now()
    for (const [held, { until }] of this.#moments) if (until < now) this.#moments.delete(held)
    const known = this.#moments.get(key)
    if (known !== undefined) return known.moments
    const moments = resultsOverTime(experiment, this.ledger, points)
    const took = this.#options.now() - now
    this.#moments.set(key, { moments, until: now + Math.max(MOMENTS_MS, KEPT_TIMES * took) })
    return moments
  }

  #assertRunning({ id, status }: Experiment): void {
    if (status !== 'running')
      throw new PalimpsestError('invalid_value', `Experiment '${id}' does not run: it is ${status}.`, { param: 'id' })
  }
}
