import { createHash } from 'node:crypto'
import type { ChatRequest, Message } from '../../request.ts'
import { type Experiment, keyOf } from '../experiment.ts'
import type { Experiments } from '../experiments.ts'
import { refuses, showsAny } from '../ledger/outcome.ts'
import type { ClaimedReplay, ReplayPrompt } from '../ledger/replay-queue.ts'
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

interface ReplayJob extends ReplayPrompt {
  readonly origin: Origin
  readonly experiment: Experiment
  /** Of the experiment, when the prompt was taken. */
  readonly version: number
  /** Absent: it came with live traffic, whose words are kept nowhere, so no other gateway may take it over. */
  readonly claim?: ClaimedReplay
}

export interface ReplayOptions {
  readonly registry: Experiments
  readonly replayQueue: number
  readonly warn: (message: string) => void
  /** How long another gateway waits for the pair of one that has begun a prompt, and is silent. */
  readonly leaseMs?: number
  /** Between two looks for prompts that other gateways took. */
  readonly lookMs?: number
}

const ANSWER_TOKENS = 128
const UNASKED: PairAnswer = { text: '', edits: [], targetShown: null, refusal: false, latencyMs: 0 }
/** Between two looks whether someone waits. */
const LOAD_MS = 10
const LOOK_MS = 1_000
const LEASE_MS = 30_000
/** A prompt that ended so many gateways is asked no more. */
const ATTEMPTS = 3

class Preempted extends Error {}

/**
 * Answers prompts with every arm of an experiment, one at a time, only while nobody else asks for anything: as soon as a request comes, the
 * prompt under way is dropped, and taken up again later, by whichever gateway is free.
 */
export class Replays {
  readonly #options: ReplayOptions
  /** Prompts of live traffic, which only this gateway has. */
  readonly #own: ReplayJob[] = []
  readonly #closing = new AbortController()
  readonly #looker: NodeJS.Timeout
  #answerer: Answerer | undefined
  #working: Promise<void> | null = null
  /** Prompts came while the last look for some was under way. */
  #isAsked = false
  #isAway = false
  #preempted = 0

  constructor(options: ReplayOptions) {
    this.#options = options
    this.#looker = setInterval(() => this.wake(), options.lookMs ?? LOOK_MS)
    this.#looker.unref()
  }

  start(answerer: Answerer): void {
    this.#answerer = answerer
    this.wake()
  }

  /** Prompts taken into the queue of all gateways, which is bounded; the rest is left out. */
  async enqueue(experiment: Experiment, prompts: readonly (readonly Message[])[], origin: Origin, judge: string | null) {
    const taken = await this.#options.registry.ledger.replays.add(experiment, replayPrompts(prompts, origin, judge))
    this.wake()
    return taken
  }

  /** A prompt of live traffic. */
  shadow(experiment: Experiment, messages: readonly Message[]): void {
    if (this.#own.length >= this.#options.replayQueue) return
    for (const prompt of replayPrompts([messages], 'shadow', null))
      this.#own.push({ ...prompt, experiment, version: experiment.version })
    this.wake()
  }

  async waiting(experiment: Experiment): Promise<number> {
    const own = this.#own.filter((job) => keyOf(job.experiment) === keyOf(experiment) && job.version === experiment.version)
    return own.length + (await this.#options.registry.ledger.replays.waiting(experiment))
  }

  /** Prompts dropped because a request came. */
  get preempted(): number {
    return this.#preempted
  }

  async idle(): Promise<void> {
    await this.#working
  }

  /** What is under way is given back. */
  async close(): Promise<void> {
    clearInterval(this.#looker)
    this.#closing.abort(new Preempted())
    await this.#working
  }

  wake(): void {
    this.#isAsked = true
    if (this.#working !== null || this.#answerer === undefined || this.#closing.signal.aborted) return
    this.#isAsked = false
    this.#working = this.#work(this.#answerer)
      .then(
        () => {
          this.#isAway = false
        },
        (error: unknown) => {
          if (!this.#isAway) this.#options.warn(`replays wait: ${(error as Error).message}`)
          this.#isAway = true
        },
      )
      .finally(() => {
        this.#working = null
        if (this.#isAsked) this.wake()
      })
  }

  async #work(answerer: Answerer): Promise<void> {
    const { replays } = this.#options.registry.ledger
    while (!this.#closing.signal.aborted && (this.#own.length > 0 || (await replays.any()))) {
      while (answerer.load() > 0 && !this.#closing.signal.aborted) await pause(LOAD_MS)
      if (this.#closing.signal.aborted) return
      const job = (await this.#claim()) ?? this.#own[0]
      if (job !== undefined) await this.#replay(job, answerer)
    }
  }

  async #claim(): Promise<ReplayJob | undefined> {
    const { registry, leaseMs = LEASE_MS } = this.#options
    const claim = await registry.ledger.replays.claim(leaseMs)
    if (claim === undefined) return undefined
    // Another gateway may have declared it a moment ago.
    if ((registry.known(claim.experiment)?.version ?? 0) < claim.version) await registry.refresh()
    const experiment = registry.known(claim.experiment)
    if (experiment === undefined) {
      await registry.ledger.replays.remove(claim)
      return undefined
    }
    return { ...claim, origin: claim.origin as Origin, experiment, claim }
  }

  async #replay(job: ReplayJob, answerer: Answerer): Promise<void> {
    const { registry } = this.#options
    if (isOver(job, registry)) {
      await this.#done(job, null)
      return
    }
    const pair = await this.#tried(job, answerer)
    if (pair !== null) {
      await this.#done(job, pair)
      registry.replayed(job.experiment)
      return
    }
    this.#preempted++
    if (job.claim !== undefined) await registry.ledger.replays.giveBack(job.claim)
  }

  /** Off the queue, and its pair on record, at once. */
  async #done({ claim, experiment, version, prompt }: ReplayJob, pair: Pair | null): Promise<void> {
    const { ledger } = this.#options.registry
    if (claim === undefined) this.#own.shift()
    await ledger.atOnce('recording a replayed prompt', async (turn) => {
      if (pair !== null) await turn.savePair(experiment, version, prompt, pair)
      if (claim !== undefined) await turn.replays.remove(claim)
    })
  }

  /** The pair, or why there is none; null: someone else came. */
  async #tried(job: ReplayJob, answerer: Answerer): Promise<Pair | null> {
    if ((job.claim?.attempts ?? 0) > ATTEMPTS) return this.#failed(job, `${ATTEMPTS} gateways began it and ended`)
    const { registry, leaseMs = LEASE_MS } = this.#options
    const { claim } = job
    const keep = setInterval(() => {
      // One that cannot be kept is taken over, and its pair is the same.
      if (claim !== undefined) registry.ledger.replays.keep(claim, leaseMs).catch(() => {})
    }, leaseMs / 3)
    try {
      return await this.#pair(job, answerer)
    } catch (error) {
      return error instanceof Preempted ? null : this.#failed(job, (error as Error).message)
    } finally {
      clearInterval(keep)
    }
  }

  #failed({ experiment, origin }: ReplayJob, error: string): Pair {
    this.#options.warn(`experiment ${keyOf(experiment)}: a prompt could not be replayed (${error})`)
    return { origin, question: null, answers: [], verdicts: [], error }
  }

  /** Throws Preempted when someone else comes. */
  async #pair({ experiment, messages, origin, judge: model }: ReplayJob, answerer: Answerer): Promise<Pair> {
    const preempt = new AbortController()
    const signal = AbortSignal.any([preempt.signal, this.#closing.signal])
    const watch = setInterval(() => {
      if (answerer.load() > 1) preempt.abort(new Preempted())
    }, LOAD_MS)
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
        if (model === null || base === undefined || base.text === other.text) continue
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
function isOver({ experiment: { tenant, id, rollout }, version }: ReplayJob, registry: Experiments): boolean {
  const now = registry.get(tenant, id)
  return rollout !== undefined && (now.status !== 'running' || now.version !== version)
}

/** As the queue takes them. */
export function replayPrompts(
  prompts: readonly (readonly Message[])[],
  origin: Origin,
  judge: string | null,
): (ReplayPrompt & { readonly origin: Origin })[] {
  return prompts.map((messages) => ({ messages, origin, judge, prompt: promptHash(messages, origin) }))
}

function promptHash(messages: readonly Message[], origin: Origin): string {
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

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
