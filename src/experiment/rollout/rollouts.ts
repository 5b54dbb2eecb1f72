import type { Edit } from '../../edit/edit.ts'
import type { ChatRequest, Message } from '../../request.ts'
import type { Experiment, Rollout } from '../experiment.ts'
import type { Experiments, Watcher } from '../experiments.ts'
import { hasTarget } from '../ledger/outcome.ts'
import { type Pair, type Replays, replayResult } from '../replay/replay.ts'
import { compareArms } from '../statistics/confidence.ts'
import { strataOf } from '../statistics/result.ts'
import { type Checked, type Hits, judgeStage, type StageEvidence } from './rollout.ts'

/** What a rollout does to the memory. */
export interface Batches {
  has(tenant: string, batch: string): boolean
  /** Edits of the batch that are live; of the others, if `others`. At most `limit`. */
  live(tenant: string, batch: string, others: boolean, limit: number): readonly Edit[]
  withdraw(tenant: string, batch: string, source: string): Promise<void>
}

export interface RolloutsOptions {
  readonly registry: Experiments
  readonly replays: Replays
  readonly batches: Batches
  /** Asked of every batch, beside the prompts a rollout names. */
  readonly unrelated: readonly string[]
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly warn: (message: string) => void
  /** Between two looks while nothing happens. */
  readonly tickMs?: number
}

/** One arm against the guardrails. */
export interface Standing extends Pick<StageEvidence, 'exposed' | 'locality'> {
  readonly arm: string
  /** Exposures that the next stage asks for; null: there are no stages. */
  readonly least: number | null
  readonly checked: readonly Checked[]
}

/** What a stage began with: prompts that are replayed, and the batch's edits without a target. */
interface Begun {
  readonly locality: number
  readonly own: number
  readonly untold: ReadonlySet<string>
}

const NOT_BEGUN: Begun = { locality: 0, own: 0, untold: new Set() }
/** Edits of a batch that are looked at. */
const BATCH_EDITS = 1_000
/** Prompts of the batch, and of other edits, that are tried in the shadow. */
const OWN_PROMPTS = 50
const OTHER_PROMPTS = 50
const TICK_MS = 1_000
/** Outcomes are judged together when they come within this time. */
const SETTLE_MS = 50

/** Takes batches from stage to stage while their guardrails hold, and back when one breaks. */
export class Rollouts implements Watcher {
  readonly #options: RolloutsOptions
  readonly #ticker: NodeJS.Timeout
  readonly #due = new Set<string>()
  #closed = false
  /** By rollout and version. */
  readonly #begun = new Map<string, Begun>()

  constructor(options: RolloutsOptions) {
    this.#options = options
    options.registry.watch(this)
    this.#ticker = setInterval(() => void this.look(), options.tickMs ?? TICK_MS)
    this.#ticker.unref()
  }

  close(): void {
    this.#closed = true
    clearInterval(this.#ticker)
  }

  changed({ tenant, id, rollout, guardrails }: Experiment): void {
    const key = JSON.stringify([tenant, id])
    if ((rollout === undefined && guardrails.length === 0) || this.#due.has(key)) return
    this.#due.add(key)
    setTimeout(() => {
      this.#due.delete(key)
      void this.#attempt(() => this.#judge(this.#options.registry.get(tenant, id)))
    }, SETTLE_MS).unref()
  }

  shadow(experiment: Experiment, { messages }: ChatRequest): void {
    this.#options.replays.enqueue(experiment, [messages], 'shadow')
  }

  /** Judges every rollout that is under way. */
  async look(): Promise<void> {
    for (const { tenant, id } of [...this.#options.registry.everywhere()])
      await this.#attempt(() => this.#judge(this.#options.registry.get(tenant, id)))
  }

  /** Nobody waits for a judgement: what fails, a full disk say, is told, and tried again at the next tick. */
  async #attempt(judge: () => Promise<void>): Promise<void> {
    if (this.#closed) return
    try {
      await judge()
    } catch (error) {
      this.#options.warn(`a rollout or guardrail could not be judged: ${(error as Error).message}`)
    }
  }

  /** How each arm stands with the guardrails now, and what the next stage waits for. Empty where nothing is guarded or runs. */
  standing(experiment: Experiment): Standing[] {
    const { status, guardrails, rollout, arms, alpha, tenant, id, version } = experiment
    if (status !== 'running' || guardrails.length === 0) return []
    const begun = rollout && this.#begun.get(JSON.stringify([tenant, id, version]))
    const least = rollout === undefined ? null : this.#least(rollout, begun?.own)
    return arms.slice(1).map(({ name }, i) => {
      const evidence = this.#evidence(experiment, i + 1, begun ?? NOT_BEGUN)
      const { checked } = judgeStage(Number.POSITIVE_INFINITY, guardrails, evidence, alpha)
      return { arm: name, exposed: evidence.exposed, least, locality: evidence.locality, checked }
    })
  }

  /** A small batch has fewer prompts of its own than the first stage asks for. */
  #least({ stages, stage }: Rollout, own: number | undefined): number {
    return Math.min(stages[stage]?.least ?? 0, stage === 0 ? (own ?? Number.POSITIVE_INFINITY) : Number.POSITIVE_INFINITY)
  }

  /** Ends a rollout by hand: the batch is withdrawn. */
  rollBack(experiment: Experiment, why: string): Promise<Experiment> {
    return this.#back(experiment, { why })
  }

  async #judge(experiment: Experiment): Promise<void> {
    const { rollout, status, guardrails } = experiment
    if (status !== 'running' || guardrails.length === 0) return
    if (rollout === undefined) {
      this.#guard(experiment)
      return
    }
    if (!this.#options.batches.has(experiment.tenant, rollout.batch)) return
    const begun = this.#begin(experiment, rollout)
    const evidence = this.#evidence(experiment, 1, begun)
    const { verdict, checked } = judgeStage(this.#least(rollout, begun.own), guardrails, evidence, experiment.alpha)
    switch (verdict) {
      case 'wait':
        break
      case 'broken':
        await this.#back(experiment, { broken: checked.filter(({ broken }) => broken), checked, evidence })
        break
      case 'advance':
        this.#advance(experiment, rollout, { checked, evidence })
        break
      default:
        verdict satisfies never
    }
  }

  /** An experiment of which an arm breaks a guardrail is stopped. */
  #guard(experiment: Experiment): void {
    const { registry } = this.#options
    for (const [arm, { name }] of experiment.arms.entries()) {
      if (arm === 0) continue
      const evidence = this.#evidence(experiment, arm, NOT_BEGUN)
      const { verdict, checked } = judgeStage(Number.POSITIVE_INFINITY, experiment.guardrails, evidence, experiment.alpha)
      if (verdict !== 'broken') continue
      registry.stop(experiment, { arm: name, broken: checked.filter(({ broken }) => broken) })
      return
    }
  }

  /** Has the prompts of a stage replayed, once. */
  #begin(experiment: Experiment, { batch, stage, localityPrompts }: Rollout): Begun {
    const { tenant, id, version } = experiment
    const key = JSON.stringify([tenant, id, version])
    const known = this.#begun.get(key)
    if (known !== undefined) return known
    const { replays, batches, unrelated } = this.#options
    const edits = batches.live(tenant, batch, false, BATCH_EDITS)
    const others = batches.live(tenant, batch, true, OTHER_PROMPTS).flatMap((edit) => messagesFor(edit).slice(0, 1))
    // A rule for every message leaves no question alone.
    const usual = [...unrelated, ...others]
    const isEverywhere = edits.some(({ always }) => always)
    const held = edits.flatMap(({ counterexamples = [] }) => counterexamples).slice(0, OTHER_PROMPTS)
    const prompts = new Set([...localityPrompts, ...held, ...(isEverywhere ? [] : usual)])
    const own = new Set([...edits.flatMap(messagesFor), ...(isEverywhere ? usual : [])])
    const tried = stage > 0 ? [] : [...own].slice(0, OWN_PROMPTS)
    const begun: Begun = {
      locality: replays.enqueue(experiment, [...prompts].map(message), 'locality'),
      own: replays.enqueue(experiment, tried.map(message), 'own'),
      untold: new Set(edits.filter((edit) => !hasTarget(edit)).map((edit) => edit.id)),
    }
    this.#begun.set(key, begun)
    return begun
  }

  #evidence(experiment: Experiment, arm: number, begun: Begun): StageEvidence {
    const { ledger } = this.#options.registry
    const pairs = ledger.pairs<Pair>(experiment)
    const { collateral, exposed, locality } = replayResult(experiment, pairs, arm, begun.untold)
    const units = ledger
      .counts(experiment)
      .filter((row) => row.arm === arm)
      .reduce((sum, row) => sum + row.units, 0)
    const failed = pairs.filter(({ origin, error }) => origin === 'locality' && error !== undefined).length
    const rate = (metric: 'error' | 'negative_feedback' | 'refusal') => this.#rate(experiment, metric, arm)
    return {
      exposed: this.#options.registry.isShadow(experiment) ? exposed : units,
      locality: { ...locality, expected: begun.locality - failed },
      collateral,
      rates: { error: rate('error'), negative_feedback: rate('negative_feedback'), refusal: rate('refusal') },
      latency: compareArms(
        strataOf(ledger.samples(experiment, 'latency_ms'), arm),
        'ratio',
        experiment.alpha / Math.max(1, experiment.guardrails.length),
        experiment.plannedUnits,
      ),
    }
  }

  /** A unit counts as the share of its answers; the sum is rounded, for an exact test wants whole events. */
  #rate(experiment: Experiment, metric: 'error' | 'negative_feedback' | 'refusal', arm: number): readonly [Hits, Hits] {
    const samples = this.#options.registry.ledger.samples(experiment, metric)
    const of = (index: number): Hits => {
      const own = samples.filter((sample) => sample.arm === index)
      const n = own.reduce((sum, sample) => sum + sample.n, 0)
      return { n, hits: Math.round(own.reduce((sum, sample) => sum + sample.n * sample.mean, 0)) }
    }
    return [of(0), of(arm)]
  }

  #advance(experiment: Experiment, rollout: Rollout, evidence: object): void {
    const { registry, now } = this.#options
    const next = rollout.stages[rollout.stage + 1]
    if (next === undefined) {
      const live = { ...experiment, rollout: { ...rollout, outcome: 'live' as const } }
      registry.update({ ...live, status: 'shipped', endedAt: Math.round(now()) }, 'live', {
        ...evidence,
        ...this.#account(experiment),
      })
      return
    }
    const [without, withBatch] = experiment.arms
    if (without === undefined || withBatch === undefined) return
    const arms = [
      { ...without, weight: 1 - next.share },
      { ...withBatch, weight: next.share },
    ]
    const version = experiment.version + 1
    registry.update({ ...experiment, arms, version, rollout: { ...rollout, stage: rollout.stage + 1 } }, 'stage', {
      stage: rollout.stage + 1,
      share: next.share,
      passed: evidence,
    })
  }

  /** The memory first: a process that ends between the two finds the guardrail broken again. */
  async #back(experiment: Experiment, evidence: object): Promise<Experiment> {
    const { registry, batches, now } = this.#options
    const { tenant, id, rollout } = experiment
    if (rollout === undefined) return experiment
    if (batches.has(tenant, rollout.batch)) await batches.withdraw(tenant, rollout.batch, `rollout ${id}`)
    // Another judgement may have ended it while the memory was written.
    const latest = registry.get(tenant, id)
    if (latest.status !== experiment.status) return latest
    const ended: Experiment = {
      ...experiment,
      status: 'stopped',
      endedAt: Math.round(now()),
      rollout: { ...rollout, outcome: 'rolled_back' },
    }
    registry.update(ended, 'rolled_back', { ...evidence, ...this.#account(experiment) })
    return ended
  }

  /** How far it came, and how many answers the batch had made by then. */
  #account(experiment: Experiment) {
    const { ledger } = this.#options.registry
    const share = experiment.rollout?.stages[experiment.rollout.stage]?.share
    const first = ledger.firstAnswer(experiment, 1)
    return {
      stage: experiment.rollout?.stage,
      share,
      requests_affected: ledger.answersEver(experiment, 1),
      seconds: (this.#options.now() - experiment.createdAt) / 1_000,
      seconds_since_first_affected: first === null ? null : (this.#options.now() - first) / 1_000,
    }
  }
}

/** What a user may write who needs the edit. */
function messagesFor({ kind, prompt, examples = [] }: Edit): readonly string[] {
  return kind !== undefined && examples.length > 0 ? examples : prompt === '' ? [] : [prompt]
}

function message(content: string): Message[] {
  return [{ role: 'user', content }]
}
