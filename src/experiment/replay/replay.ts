import { createHash } from 'node:crypto'
import type { ChatRequest, Message } from '../../request.ts'
import { type Experiment, keyOf } from '../experiment.ts'
import type { Experiments } from '../experiments.ts'
import { refuses, showsAny } from '../ledger/outcome.ts'
import { comparePairs, type PairedResult } from '../statistics/paired.ts'
import { judge, judgeRequest, type Verdict } from './judge.ts'

/** How a gateway answers a request of our own. */
export interface Answerer {
  answer(request: ChatRequest, signal: AbortSignal): Promise<Answered>
  /** The answers of several arms to one prompt; null: the model would be asked the same by all, so it is not asked. */
  answers(requests: readonly ChatRequest[], signal: AbortSignal): Promise<readonly Answered[] | null>
  /** Requests at work and waiting in the engine. */
  load(): number
  /** Name of the served model. */
  readonly model: string
}

export interface Answered {
  readonly text: string
  /** Ids of the edits put in front of the model. */
  readonly edits: readonly string[]
  /** Their targets; those without one have ''. */
  readonly targets: readonly string[]
  readonly latencyMs: number
  readonly completionTokens: number
}

/** Why a prompt is replayed. `own`: a prompt of the batch under trial; `locality`: one that the edits are not about. */
export type Origin = 'uploaded' | 'logged' | 'shadow' | 'own' | 'locality'

export interface PairAnswer {
  readonly text: string
  readonly edits: readonly string[]
  /** null: no edit at work has a target. */
  readonly targetShown: boolean | null
  readonly refusal: boolean
  readonly latencyMs: number
}

/** One prompt, answered by every arm in the order of the arms. */
export interface Pair {
  readonly origin: Origin
  /** The last message; null for live traffic, whose words are not kept. */
  readonly question: string | null
  readonly answers: readonly PairAnswer[]
  /** Of each arm but the first. */
  readonly verdicts: readonly Verdict[]
  /** The model would be asked the same by all arms, so it was not asked: the answers are the same, and their texts left empty. */
  readonly same?: true
  /** Set where an arm could not answer. */
  readonly error?: string
}

interface ReplayJob {
  readonly experiment: Experiment
  readonly messages: readonly Message[]
  readonly origin: Origin
  /** Model that judges; absent: nobody does. */
  readonly judge?: string
}

export interface ReplayOptions {
  readonly registry: Experiments
  readonly replayQueue: number
  readonly warn: (message: string) => void
}

const ANSWER_TOKENS = 128
const UNASKED: PairAnswer = { text: '', edits: [], targetShown: null, refusal: false, latencyMs: 0 }
/** Between two looks whether someone waits. */
const LOOK_MS = 10

class Preempted extends Error {}

/**
 * Answers prompts with every arm of an experiment, one at a time, only while nobody else asks for anything: as soon as a request comes, the
 * prompt under way is dropped, and taken up again later.
 */
export class Replays {
  readonly #options: ReplayOptions
  readonly #queue: ReplayJob[] = []
  readonly #closing = new AbortController()
  #answerer: Answerer | undefined
  #working: Promise<void> | null = null
  #preempted = 0

  constructor(options: ReplayOptions) {
    this.#options = options
  }

  start(answerer: Answerer): void {
    this.#answerer = answerer
    this.#wake()
  }

  /** Prompts taken into the queue, which is bounded; the rest is left out. */
  enqueue(experiment: Experiment, prompts: readonly (readonly Message[])[], origin: Origin, judgeModel?: string): number {
    const room = Math.max(0, this.#options.replayQueue - this.#queue.length)
    const taken = prompts.slice(0, room)
    for (const messages of taken)
      this.#queue.push({ experiment, messages, origin, ...(judgeModel !== undefined && { judge: judgeModel }) })
    this.#wake()
    return taken.length
  }

  waiting(experiment: Experiment): number {
    return this.#queue.filter(
      (job) => keyOf(job.experiment) === keyOf(experiment) && job.experiment.version === experiment.version,
    ).length
  }

  /** Prompts dropped because a request came. */
  get preempted(): number {
    return this.#preempted
  }

  async idle(): Promise<void> {
    await this.#working
  }

  async close(): Promise<void> {
    this.#closing.abort(new Preempted())
    await this.#working
  }

  #wake(): void {
    if (this.#working !== null || this.#answerer === undefined || this.#queue.length === 0) return
    const answerer = this.#answerer
    this.#working = this.#work(answerer).finally(() => {
      this.#working = null
      this.#wake()
    })
  }

  async #work(answerer: Answerer): Promise<void> {
    while (this.#queue.length > 0 && !this.#closing.signal.aborted) {
      while (answerer.load() > 0 && !this.#closing.signal.aborted) await pause(LOOK_MS)
      const job = this.#queue[0] as ReplayJob
      const { registry } = this.#options
      if (isOver(job.experiment, registry)) {
        this.#queue.shift()
        continue
      }
      const pair = await this.#pair(job, answerer).catch((error: unknown) => {
        if (error instanceof Preempted) return null
        this.#options.warn(`experiment ${keyOf(job.experiment)}: a prompt could not be replayed (${(error as Error).message})`)
        return { origin: job.origin, question: null, answers: [], verdicts: [], error: String((error as Error).message) }
      })
      if (pair === null) {
        this.#preempted++
        continue
      }
      this.#queue.shift()
      registry.ledger.savePair(job.experiment, promptHash(job), pair)
      registry.replayed(job.experiment)
    }
    if (this.#closing.signal.aborted) this.#queue.length = 0
  }

  /** Throws Preempted when someone else comes. */
  async #pair({ experiment, messages, origin, judge: model }: ReplayJob, answerer: Answerer): Promise<Pair> {
    const preempt = new AbortController()
    const signal = AbortSignal.any([preempt.signal, this.#closing.signal])
    const watch = setInterval(() => {
      if (answerer.load() > 1) preempt.abort(new Preempted())
    }, LOOK_MS)
    try {
      const { registry } = this.#options
      const arms = registry.arms(experiment, registry.usual(replayRequest(experiment, messages, answerer.model)))
      const shown = origin === 'shadow' && !experiment.logPrompts ? null : (messages.at(-1)?.content ?? '')
      const answers = await answerer.answers(arms, signal)
      if (answers === null) return { origin, question: shown, answers: arms.map(() => UNASKED), verdicts: [], same: true }
      const targets = [...new Set(answers.flatMap((one) => one.targets))]
      const question = messages.at(-1)?.content ?? ''
      const verdicts: Verdict[] = []
      const [base, ...others] = answers
      for (const other of others) {
        if (model === undefined || base === undefined || base.text === other.text) continue
        const ask = async (prompt: string) => (await answerer.answer(judgeRequest(model, experiment.tenant, prompt), signal)).text
        verdicts.push(await judge(ask, question, base.text, other.text))
      }
      return {
        origin,
        verdicts,
        question: shown,
        answers: answers.map(({ text, edits, latencyMs }) => ({
          text,
          edits,
          latencyMs,
          refusal: refuses(text),
          targetShown: showsAny(text, targets),
        })),
      }
    } catch (error) {
      throw signal.aborted ? new Preempted() : error
    } finally {
      clearInterval(watch)
    }
  }
}

/** Whether the stage that a prompt was replayed for has passed. */
function isOver({ tenant, id, version, rollout }: Experiment, registry: Experiments): boolean {
  const now = registry.get(tenant, id)
  return rollout !== undefined && (now.status !== 'running' || now.version !== version)
}

function promptHash({ messages, origin }: ReplayJob): string {
  return createHash('sha256')
    .update(JSON.stringify([origin === 'locality', messages]))
    .digest('base64url')
    .slice(0, 22)
}

/** Greedy and seeded, so that equal prompts get equal answers. */
function replayRequest({ tenant }: Experiment, messages: readonly Message[], model: string): ChatRequest {
  return {
    model,
    messages,
    tenant,
    arm: 'edited',
    edits: { kind: 'on' },
    tags: [],
    explain: false,
    sampling: { temperature: 0, topP: 1, stop: [], seed: 0, maxTokens: ANSWER_TOKENS },
  }
}

export interface EditEffect {
  readonly id: string
  readonly pairs: number
  readonly changed: number
  readonly gained: number
  readonly lost: number
}

/** What replaying showed of one arm against the first. */
export interface ReplayResult {
  readonly arm: string
  readonly pairs: number
  readonly failed: number
  readonly changed: number
  /** Pairs in which an edit was put in front of either arm. */
  readonly exposed: number
  /** Of those in which such an edit has a target: has the answer it? */
  readonly targetShown: PairedResult
  /** Gained: judged better than the first arm's. */
  readonly judged: PairedResult
  readonly edits: readonly EditEffect[]
  /** Answers that an edit with a target changed without its target showing. */
  readonly collateral: { readonly n: number; readonly changed: number }
  /** Prompts that the edits are not about. */
  readonly locality: { readonly n: number; readonly identical: number }
}

/** `untold`: ids of edits that no answer can be seen to hold, such as rules: what they alone changed is no collateral damage. */
export function replayResult(
  experiment: Experiment,
  pairs: readonly Pair[],
  arm: number,
  untold: ReadonlySet<string> = new Set(),
): ReplayResult {
  const whole = pairs.flatMap((pair) => {
    const [base, other] = [pair.answers[0], pair.answers[arm]]
    return base === undefined || other === undefined ? [] : [{ base, other, pair, changed: base.text !== other.text }]
  })
  const inScope = whole.filter(({ pair }) => pair.origin !== 'locality')
  const fired = inScope.filter(({ base, other }) => base.edits.length + other.edits.length > 0)
  const told = fired.filter(
    ({ base, other }) => other.targetShown !== null && [...base.edits, ...other.edits].some((id) => !untold.has(id)),
  )
  const verdicts = inScope.map(({ pair }) => pair.verdicts[arm - 1])
  const judged = {
    n: verdicts.filter((verdict) => verdict !== undefined).length,
    gained: verdicts.filter((verdict) => verdict === 'other').length,
    lost: verdicts.filter((verdict) => verdict === 'base').length,
  }
  const planned = Math.max(20, experiment.plannedUnits)
  const local = whole.filter(({ pair }) => pair.origin === 'locality')
  return {
    arm: experiment.arms[arm]?.name ?? '',
    pairs: whole.length,
    failed: pairs.length - whole.length,
    changed: inScope.filter(({ changed }) => changed).length,
    exposed: fired.length,
    targetShown: comparePairs(flips(told), experiment.alpha, planned),
    judged: comparePairs(judged, experiment.alpha, planned),
    edits: effects(fired),
    collateral: { n: told.length, changed: told.filter(({ other, changed }) => changed && !other.targetShown).length },
    locality: { n: local.length, identical: local.filter(({ changed }) => !changed).length },
  }
}

interface Compared {
  readonly base: PairAnswer
  readonly other: PairAnswer
  readonly changed: boolean
}

function flips(pairs: readonly Compared[]) {
  return {
    n: pairs.length,
    gained: pairs.filter(({ base, other }) => other.targetShown && !base.targetShown).length,
    lost: pairs.filter(({ base, other }) => base.targetShown && !other.targetShown).length,
  }
}

/** Each edit's share in it, those that changed most first. */
function effects(pairs: readonly Compared[]): EditEffect[] {
  const byEdit = new Map<string, Compared[]>()
  for (const pair of pairs)
    for (const id of new Set([...pair.base.edits, ...pair.other.edits])) byEdit.set(id, [...(byEdit.get(id) ?? []), pair])
  return [...byEdit]
    .map(([id, own]) => {
      const { gained, lost } = flips(own)
      return { id, pairs: own.length, changed: own.filter(({ changed }) => changed).length, gained, lost }
    })
    .sort((a, b) => b.changed - a.changed)
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
