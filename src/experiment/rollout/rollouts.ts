import type { Edit } from '../../edit/edit.ts'
import type { ChatRequest, Message } from '../../request.ts'
import { type Experiment, keyOf, type Rollout } from '../experiment.ts'
import type { Change, Experiments, Turn, Watcher } from '../experiments.ts'
import type { Ledger } from '../ledger/ledger.ts'
import type { ArmSample } from '../ledger/ledger-reader.ts'
import { hasTarget } from '../ledger/outcome.ts'
import { type Pair, type Replays, replayPrompts } from '../replay/replay.ts'
import { replayResult } from '../replay/replay-result.ts'
import { compareArms } from '../statistics/confidence.ts'
import { resultOf, strataOf } from '../statistics/result.ts'
import { type Checked, type Hits, judgeStage, type StageEvidence } from './rollout.ts'

/** What a rollout does to the memory. */
export interface Batches {
  has(tenant: string, batch: string): boolean
  /** Edits of the batch that are live; of the others, if `others`. At most `limit`. */
  live(tenant: string, batch: string, others: boolean, limit: number): readonly Edit[]
  /** Changes nothing where it is withdrawn already. */
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
  /** Ids of those edits. */
  readonly untold: readonly string[]
}

const NOT_BEGUN: Begun = { locality: 0, own: 0, untold: [] }
/** Edits of a batch that are looked at. */
const BATCH_EDITS = 1_000
/** Prompts of the batch, and of other edits, that are tried in the shadow. */
const OWN_PROMPTS = 50
const OTHER_PROMPTS = 50
const TICK_MS = 1_000
/** Outcomes are judged together when they come within this time. */
const SETTLE_MS = 50
/** How long a gateway has to withdraw a batch before another does. */
const WITHDRAW_MS = 10_000

/**
 * Takes batches from stage to stage while their guardrails hold, and back when one breaks. Any gateway may judge, one at a time: it looks and
 * steps in one transaction, so each step is taken once.
 */
export class Rollouts implements Watcher {
  readonly #options: RolloutsOptions
  readonly #ticker: NodeJS.Timeout
  readonly #due = new Set<string>()
  readonly #judging = new Set<Promise<void>>()
  #closed = false

  constructor(options: RolloutsOptions) {
    this.#options = options
    options.registry.watch(this)
    this.#ticker = setInterval(() => this.#judging.size === 0 && void this.look(), options.tickMs ?? TICK_MS)
    this.#ticker.unref()
  }

  /** Waits for the judgement under way. */
  async close(): Promise<void> {
    this.#closed = true
    clearInterval(this.#ticker)
    await Promise.all(this.#judging)
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
    this.#options.replays.shadow(experiment, messages)
  }

  /** Judges every rollout that is under way. */
  async look(): Promise<void> {
    for (const experiment of this.#options.registry.everywhere()) await this.#attempt(() => this.#judge(experiment))
  }

  /** Nobody waits for a judgement: what fails, a full disk say, is told, and tried again at the next tick. */
  async #attempt(judge: () => Promise<void>): Promise<void> {
    if (this.#closed) return
    const judging = (async () => {
      try {
        await judge()
      } catch (error) {
        this.#options.warn(`a rollout or guardrail could not be judged: ${(error as Error).message}`)
      }
    })()
    this.#judging.add(judging)
    await judging
    this.#judging.delete(judging)
  }

  /** How each arm stands with the guardrails now, and what the next stage waits for. Empty where nothing is guarded or runs. */
  async standing(experiment: Experiment): Promise<Standing[]> {
    const { status, guardrails, rollout, arms, alpha } = experiment
    if (status !== 'running' || guardrails.length === 0) return []
    const { ledger } = this.#options.registry
    const begun = rollout && (await ledger.stage<Begun>(experiment))
    const least = rollout === undefined ? null : this.#least(rollout, begun?.own)
    const out: Standing[] = []
    for (const [at, { name }] of arms.entries()) {
      if (at === 0) continue
      const evidence = await this.#evidence(experiment, at, begun ?? NOT_BEGUN, ledger)
      const { checked } = judgeStage(Number.POSITIVE_INFINITY, guardrails, evidence, alpha)
      out.push({ arm: name, exposed: evidence.exposed, least, locality: evidence.locality, checked })
    }
    return out
  }

  /** A small batch has fewer prompts of its own than the first stage asks for. */
  #least({ stages, stage }: Rollout, own: number | undefined): number {
    return Math.min(stages[stage]?.least ?? 0, stage === 0 ? (own ?? Number.POSITIVE_INFINITY) : Number.POSITIVE_INFINITY)
  }

  /** Ends a rollout by hand: the batch is withdrawn. Resolves to the rollout as it is then. */
  async rollBack({ tenant, id }: Experiment, why: string): Promise<Experiment> {
    const { registry } = this.#options
    const key = keyOf({ tenant, id })
    await registry.atOnce('rolling a batch back', ({ change }) => change(key, (current) => this.#back(current, { why })))
    await this.#takeBack(registry.get(tenant, id))
    return registry.get(tenant, id)
  }

  async #judge(experiment: Experiment): Promise<void> {
    const { rollout, status, guardrails, tenant, id } = experiment
    if (status !== 'running') return
    const { registry, batches } = this.#options
    const key = keyOf(experiment)
    if (rollout?.takenBack !== undefined) {
      if (await registry.ledger.lease(`take back ${key}`, WITHDRAW_MS)) await this.#takeBack(experiment)
      return
    }
    if (guardrails.length === 0 || (rollout !== undefined && !batches.has(tenant, rollout.batch))) return
    await registry.atOnce('judging a rollout or guardrail', async (turn) => {
      if (!(await turn.ledger.tryLock(key))) return
      await (rollout === undefined ? this.#guard(experiment, turn) : this.#step(experiment, rollout, turn))
    })
    if (rollout === undefined) return
    this.#options.replays.wake()
    const now = registry.get(tenant, id)
    if (now.rollout?.takenBack !== undefined) await this.#judge(now)
  }

  async #step(experiment: Experiment, rollout: Rollout, turn: Turn): Promise<void> {
    const begun = await this.#begin(experiment, rollout, turn.ledger)
    const evidence = await this.#evidence(experiment, 1, begun, turn.ledger)
    const { verdict, checked } = judgeStage(this.#least(rollout, begun.own), experiment.guardrails, evidence, experiment.alpha)
    switch (verdict) {
      case 'wait':
        break
      case 'broken': {
        const why = { broken: checked.filter(({ broken }) => broken), checked, evidence }
        await turn.change(keyOf(experiment), (current) => (isAsJudged(current, experiment) ? this.#back(current, why) : null))
        break
      }
      case 'advance':
        await this.#advance(experiment, rollout, { checked, evidence }, turn)
        break
      default:
        verdict satisfies never
    }
  }

  /** An experiment of which an arm breaks a guardrail is stopped. */
  async #guard(experiment: Experiment, { ledger, change }: Turn): Promise<void> {
    const { registry } = this.#options
    for (const [arm, { name }] of experiment.arms.entries()) {
      if (arm === 0) continue
      const evidence = await this.#evidence(experiment, arm, NOT_BEGUN, ledger)
      const { verdict, checked } = judgeStage(Number.POSITIVE_INFINITY, experiment.guardrails, evidence, experiment.alpha)
      if (verdict !== 'broken') continue
      const broken = checked.filter((one) => one.broken)
      const why = { arm: name, broken, result: await resultOf(experiment, ledger) }
      await change(keyOf(experiment), (current) =>
        isAsJudged(current, experiment) ? registry.ended(current, 'stopped', {}, { kind: 'stopped', body: why }) : null,
      )
      return
    }
  }

  /** Has the prompts of a stage replayed, once. */
  async #begin(experiment: Experiment, { batch, stage, localityPrompts }: Rollout, ledger: Ledger): Promise<Begun> {
    const { tenant } = experiment
    const known = await ledger.stage<Begun>(experiment)
    if (known !== undefined) return known
    const { batches, unrelated } = this.#options
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
      locality: await ledger.replays.add(experiment, replayPrompts([...prompts].map(message), 'locality', null)),
      own: await ledger.replays.add(experiment, replayPrompts(tried.map(message), 'own', null)),
      untold: edits.filter((edit) => !hasTarget(edit)).map((edit) => edit.id),
    }
    await ledger.beginStage(experiment, begun)
    return begun
  }

  async #evidence(experiment: Experiment, arm: number, begun: Begun, ledger: Ledger): Promise<StageEvidence> {
    const pairs = await ledger.pairs<Pair>(experiment)
    const { collateral, exposed, locality } = replayResult(experiment, pairs, arm, new Set(begun.untold))
    const units = (await ledger.counts(experiment)).filter((row) => row.arm === arm).reduce((sum, row) => sum + row.units, 0)
    const failed = pairs.filter(({ origin, error }) => origin === 'locality' && error !== undefined).length
    const rate = async (metric: 'error' | 'negative_feedback' | 'refusal') =>
      ratesOf(await ledger.samples(experiment, metric), arm)
    return {
      exposed: this.#options.registry.isShadow(experiment) ? exposed : units,
      locality: { ...locality, expected: begun.locality - failed },
      collateral,
      rates: { error: await rate('error'), negative_feedback: await rate('negative_feedback'), refusal: await rate('refusal') },
      latency: compareArms(
        strataOf(await ledger.samples(experiment, 'latency_ms'), arm),
        'ratio',
        experiment.alpha / Math.max(1, experiment.guardrails.length),
        experiment.plannedUnits,
      ),
    }
  }

  async #advance(experiment: Experiment, rollout: Rollout, evidence: object, { ledger, change }: Turn): Promise<void> {
    const { registry } = this.#options
    const next = rollout.stages[rollout.stage + 1]
    if (next === undefined) {
      const body = { ...evidence, ...(await this.#account(experiment, ledger)) }
      const live = { rollout: { ...rollout, outcome: 'live' as const } }
      await change(keyOf(experiment), (current) =>
        isAsJudged(current, experiment) ? registry.ended(current, 'shipped', live, { kind: 'live', body }) : null,
      )
      return
    }
    const [without, withBatch] = experiment.arms
    if (without === undefined || withBatch === undefined) return
    const arms = [
      { ...without, weight: 1 - next.share },
      { ...withBatch, weight: next.share },
    ]
    const stage = rollout.stage + 1
    await change(keyOf(experiment), (current) =>
      isAsJudged(current, experiment)
        ? {
            experiment: { ...current, arms, version: current.version + 1, rollout: { ...rollout, stage } },
            event: { kind: 'stage', body: { stage, share: next.share, passed: evidence } },
          }
        : null,
    )
  }

  /** First step back: nobody gets the batch from now on. Whoever ends between the two steps leaves the second to the next tick of any gateway. */
  #back(current: Experiment | undefined, why: Readonly<Record<string, unknown>>): Change | null {
    if (current?.rollout === undefined || current.status !== 'running' || current.rollout.takenBack !== undefined) return null
    const landed = this.#options.batches.has(current.tenant, current.rollout.batch)
    return { experiment: { ...current, rollout: { ...current.rollout, takenBack: { landed, why } } } }
  }

  /** Second step: the batch is withdrawn, and the rollout ends. Both may be done twice, and count once. */
  async #takeBack(experiment: Experiment): Promise<void> {
    const { registry, batches } = this.#options
    const { tenant, id, rollout } = experiment
    if (experiment.status !== 'running' || rollout?.takenBack === undefined) return
    const isHere = batches.has(tenant, rollout.batch)
    // It landed on another gateway, and comes here soon.
    if (rollout.takenBack.landed && !isHere) return
    if (isHere) await batches.withdraw(tenant, rollout.batch, `rollout ${id}`)
    const account = await this.#account(experiment, registry.ledger)
    await registry.atOnce('ending a rollout', ({ change }) =>
      change(keyOf(experiment), (current) => {
        if (current?.status !== 'running' || current.rollout?.takenBack === undefined) return null
        const { takenBack, ...rest } = current.rollout
        const ended = { rollout: { ...rest, outcome: 'rolled_back' as const } }
        return registry.ended(current, 'stopped', ended, { kind: 'rolled_back', body: { ...takenBack.why, ...account } })
      }),
    )
  }

  /** How far it came, and how many answers the batch had made by then. */
  async #account(experiment: Experiment, ledger: Ledger) {
    const share = experiment.rollout?.stages[experiment.rollout.stage]?.share
    const first = await ledger.firstAnswer(experiment, 1)
    return {
      stage: experiment.rollout?.stage,
      share,
      requests_affected: await ledger.answersEver(experiment, 1),
      seconds: (this.#options.now() - experiment.createdAt) / 1_000,
      seconds_since_first_affected: first === null ? null : (this.#options.now() - first) / 1_000,
    }
  }
}

/** Whether a judgement still holds: nobody has changed or ended the experiment since. */
function isAsJudged(current: Experiment | undefined, judged: Experiment): current is Experiment {
  return (
    current?.status === 'running' &&
    current.version === judged.version &&
    current.epoch === judged.epoch &&
    current.rollout?.takenBack === undefined
  )
}

/** A unit counts as the share of its answers; the sum is rounded, for an exact test wants whole events. */
function ratesOf(samples: readonly ArmSample[], arm: number): readonly [Hits, Hits] {
  const of = (index: number): Hits => {
    const own = samples.filter((sample) => sample.arm === index)
    const n = own.reduce((sum, sample) => sum + sample.n, 0)
    return { n, hits: Math.round(own.reduce((sum, sample) => sum + sample.n * sample.mean, 0)) }
  }
  return [of(0), of(arm)]
}

/** What a user may write who needs the edit. */
function messagesFor({ kind, prompt, examples = [] }: Edit): readonly string[] {
  return kind !== undefined && examples.length > 0 ? examples : prompt === '' ? [] : [prompt]
}

function message(content: string): Message[] {
  return [{ role: 'user', content }]
}
