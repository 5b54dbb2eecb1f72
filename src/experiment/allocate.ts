import { LRUCache } from 'lru-cache'
import { words } from '../edit/words.ts'
import type { ChatRequest } from '../request.ts'
import type { Trace } from '../trace.ts'
import { assign, inAudience, unitHash, unitOf } from './assign.ts'
import type { Experiment } from './experiment.ts'
import type { Experiments } from './experiments.ts'
import { type Done, type Outcome, refuses, showsAny } from './outcome.ts'

/** What the gate chose for a request, whatever the arm. */
export interface Chosen<Scope> {
  readonly scope: Scope
  /** Which edits, for which turns; '' for none. */
  readonly edits: string
  /** Targets of the edits chosen. */
  readonly targets: readonly string[]
}

/** What experiments leave as it is: a text completion would come apart under another model's tokens, or a template for chats. */
export type Kept = Required<Pick<ChatRequest, 'model' | 'template'>>

/** How a request is answered. */
export interface Allocation<Scope> {
  readonly request: ChatRequest
  readonly scope: Scope
  /** To be told what came of the answer; absent where it counts in no experiment. */
  readonly done?: Done
}

/** An earlier question of a unit, to see whether it comes back with it. */
interface Asked {
  readonly completion: string
  readonly words: ReadonlySet<string>
}

const ASKED_UNITS = 10_000
const ASKED_AGAIN_MS = 600_000
/** Least share of words in common (Jaccard) that makes two questions one. */
const SAME_QUESTION = 0.6

export class Allocator {
  readonly #experiments: Experiments
  readonly #now: () => number
  readonly #asked = new LRUCache<string, Asked>({ max: ASKED_UNITS, ttl: ASKED_AGAIN_MS })

  constructor(experiments: Experiments, now: () => number) {
    this.#experiments = experiments
    this.#now = now
  }

  /**
   * The arm that answers, and the exposure on record before the answer begins. `choose` is the gate; it is asked for every arm before the
   * arm is known, and where all would be asked the same of the same model, there is nothing to compare and no exposure. Of several
   * experiments, rollouts go first and the one declared first goes before the others; a request counts in one at most. With `kept`, only
   * in one whose arms leave that as it is, and it is not replayed, since replays are chats.
   */
  async allocate<Scope>(
    asked: ChatRequest,
    choose: (served: ChatRequest) => Promise<Chosen<Scope>>,
    trace: Trace,
    kept?: Kept,
  ): Promise<Allocation<Scope>> {
    const request = { ...this.#experiments.usual(asked), ...kept }
    const gate = remembering(choose, trace)
    for (const experiment of this.#experiments.running(request.tenant)) {
      if (!inAudience(experiment, asked)) continue
      const unit = unitOf(experiment.unit, request)
      const dealt = unit === undefined ? undefined : this.#arm(experiment, unit)
      if (unit === undefined || dealt === undefined) continue
      const arms = this.#experiments.arms(experiment, request)
      if (kept !== undefined && !arms.every(({ model, template }) => model === kept.model && template === kept.template)) continue
      const chosen = await Promise.all(arms.map(gate))
      const prompts = arms.map((arm, at) => promptKey(arm, chosen[at]?.edits ?? ''))
      if (prompts.every((prompt) => prompt === prompts[0])) continue
      if (this.#experiments.isShadow(experiment)) {
        if (kept === undefined) this.#experiments.shadow(experiment, asked)
        continue
      }
      const arm = this.#expose(kept === undefined ? experiment : { ...experiment, logPrompts: false }, unit, dealt, request)
      const [served, own] = [arms[arm ?? -1], chosen[arm ?? -1]]
      if (arm === undefined || served === undefined || own === undefined) continue
      trace.experiment = { id: experiment.id, arm: experiment.arms[arm]?.name ?? '' }
      const { scope } = await gate(served)
      const targets = [...new Set(chosen.flatMap((one) => one.targets))]
      return { request: served, scope, done: this.#done(experiment, asked, targets) }
    }
    return { request, scope: (await gate(request)).scope }
  }

  /** A unit stays where it was exposed; else the hash says. */
  #arm(experiment: Experiment, unit: string): number | undefined {
    return this.#experiments.ledger.armOf(experiment, unitHash(experiment.seed, unit)) ?? assign(experiment, unit)
  }

  #expose(experiment: Experiment, unit: string, arm: number, { caller, messages }: ChatRequest): number | undefined {
    const hash = unitHash(experiment.seed, unit)
    const exposure = { experiment, unit: hash, arm, completion: caller?.completion ?? '', at: this.#now(), messages }
    const recorded = this.#experiments.ledger.expose({ ...exposure, at: Math.round(exposure.at) })
    if (recorded === undefined) this.#experiments.full(experiment)
    else this.#noteQuestion(`${experiment.tenant}/${experiment.id}/${hash}`, exposure.completion, messages.at(-1)?.content ?? '')
    return recorded
  }

  #noteQuestion(unit: string, completion: string, question: string): void {
    const now = new Set(words(question))
    const before = this.#asked.get(unit)
    if (before !== undefined && before.completion !== completion && likeness(before.words, now) >= SAME_QUESTION)
      this.#experiments.ledger.askedAgain(before.completion)
    this.#asked.set(unit, { completion, words: now })
  }

  #done(experiment: Experiment, { caller }: ChatRequest, targets: readonly string[]): Done {
    const begun = this.#now()
    return (text, finish) => {
      const outcome: Outcome = {
        latencyMs: this.#now() - begun,
        promptTokens: finish?.promptTokens ?? 0,
        completionTokens: finish?.completionTokens ?? 0,
        error: finish === null,
        refusal: finish === null ? null : refuses(text),
        targetShown: finish === null ? null : showsAny(text, targets),
      }
      this.#experiments.finished(experiment, caller?.completion ?? '', outcome)
    }
  }
}

/** Equal where the same model would be asked the same; an adapter counts on questions that edits apply to. */
function promptKey({ model, arm, template, adapter }: ChatRequest, edits: string): string {
  return JSON.stringify(arm === 'base' || edits === '' ? [model] : [model, template, adapter ?? null, edits])
}

/** The gate, asked once for each way of selecting; the trace then tells of what was asked for last. */
function remembering<Scope>(choose: (served: ChatRequest) => Promise<Chosen<Scope>>, trace: Trace) {
  const known = new Map<string, Promise<Chosen<Scope> & { turns: Trace['turns'] }>>()
  let last: Promise<unknown> = Promise.resolve()
  return async (served: ChatRequest): Promise<Chosen<Scope>> => {
    const { arm, tags, threshold, withoutBatches = [], model } = served
    const key = JSON.stringify([tags, threshold, withoutBatches, model])
    // One after another: each leaves its reasons in the one trace.
    const found = known.get(key) ?? last.then(async () => ({ ...(await choose(served)), turns: trace.turns }))
    known.set(key, found)
    last = found
    const { turns, ...chosen } = await found
    trace.turns = turns
    trace.arm = arm
    return chosen
  }
}

function likeness(a: ReadonlySet<string>, b: ReadonlySet<string>): number {
  const common = [...a].filter((word) => b.has(word)).length
  return common === 0 ? 0 : common / (a.size + b.size - common)
}
