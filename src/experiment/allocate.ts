import { LRUCache } from 'lru-cache'
import { words } from '../edit/words.ts'
import type { ChatRequest } from '../request.ts'
import { assign, inAudience, unitHash, unitOf } from './assign.ts'
import { inNamespace } from './bucket.ts'
import { type Experiment, keyOf } from './experiment.ts'
import type { Experiments } from './experiments.ts'
import { type Done, type Outcome, refuses, showsAny } from './ledger/outcome.ts'

/** What selection found for a request, whatever the arm. */
export interface Chosen {
  /** Which edits, for which turns; '' for none. */
  readonly edits: string
  /** Targets of the edits chosen. */
  readonly targets: readonly string[]
}

/** What experiments leave as it is: a text completion would come apart under another model's tokens, or a template for chats. */
export type Kept = Required<Pick<ChatRequest, 'model' | 'template'>>

/** A running experiment that a request may count in. */
export interface Contest {
  readonly experiment: Experiment
  readonly asked: ChatRequest
  /** The request as each arm answers it. */
  readonly arms: readonly ChatRequest[]
  readonly unit: string
  /** The arm that the unit gets unless it was exposed before; null: then it takes no part. */
  readonly dealt: number | null
  readonly kept: Kept | undefined
}

/** The exposure on record. */
export interface Exposed {
  readonly arm: number
  /** To be told what came of the answer. */
  readonly done: Done
}

/** An earlier question of a unit, to see whether it comes back with it. */
interface ContestRequest {
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
  readonly #asked = new LRUCache<string, ContestRequest>({ max: ASKED_UNITS, ttl: ASKED_AGAIN_MS })

  constructor(experiments: Experiments, now: () => number) {
    this.#experiments = experiments
    this.#now = now
  }

  /** The request as it is answered outside of experiments. */
  usual(asked: ChatRequest, kept?: Kept): ChatRequest {
    return { ...this.#experiments.usual(asked), ...kept }
  }

  /**
   * The experiments that the request may count in: rollouts first, then the one declared first. With `kept`, only those whose arms leave that
   * as it is.
   */
  *contests(asked: ChatRequest, kept?: Kept): Generator<Contest> {
    const request = this.usual(asked, kept)
    for (const experiment of this.#experiments.dealing(request.tenant)) {
      if (!inAudience(experiment, asked)) continue
      const unit = unitOf(experiment.unit, request)
      if (unit === undefined) continue
      const dealt = assign(experiment, unit) ?? null
      if (dealt === null && !mayHaveTakenPart(experiment, unit)) continue
      const arms = this.#experiments.arms(experiment, request)
      if (kept !== undefined && !arms.every(({ model, template }) => model === kept.model && template === kept.template)) continue
      yield { experiment, asked, arms, unit, dealt, kept }
    }
  }

  /**
   * The arm that answers, and the exposure on record before the answer begins; undefined: the request does not count here. `chosen`: what
   * selection found for each arm; where all arms would ask the same of the same model, there is nothing to compare and no exposure.
   */
  async expose(contest: Contest, chosen: readonly Chosen[]): Promise<Exposed | undefined> {
    const { experiment, asked, arms, kept } = contest
    const prompts = arms.map((arm, at) => promptKey(arm, chosen[at]?.edits ?? ''))
    if (prompts.every((prompt) => prompt === prompts[0])) return undefined
    if (this.#experiments.isShadow(experiment)) {
      // Replays are chats.
      if (kept === undefined) this.#experiments.shadow(experiment, asked)
      return undefined
    }
    const arm = await this.#record(contest)
    if (arm === undefined || arms[arm] === undefined) return undefined
    const targets = [...new Set(chosen.flatMap((one) => one.targets))]
    return { arm, done: this.#done(experiment, asked, targets) }
  }

  /** A unit stays where it was exposed; else the hash says. */
  async #record({ experiment, asked, unit, dealt, kept }: Contest): Promise<number | undefined> {
    const hash = unitHash(experiment.seed, unit)
    const completion = asked.caller?.completion ?? ''
    const at = Math.round(this.#now())
    const exposure = { experiment, unit: hash, arm: dealt, completion, at, messages: asked.messages }
    const { ledger } = this.#experiments
    const recorded = await ledger.expose(exposure)
    if (recorded === 'full') this.#experiments.full(experiment)
    if (recorded === 'full' || recorded === 'no_part') return undefined
    if (experiment.logPrompts && kept === undefined) this.#experiments.saveLater(() => ledger.logPrompt(exposure))
    this.#noteQuestion(`${keyOf(experiment)}/${hash}`, completion, asked.messages.at(-1)?.content ?? '')
    return recorded
  }

  #noteQuestion(unit: string, completion: string, question: string): void {
    const now = new Set(words(question))
    const before = this.#asked.get(unit)
    if (before !== undefined && before.completion !== completion && likeness(before.words, now) >= SAME_QUESTION)
      this.#experiments.saveLater(() => this.#experiments.ledger.askedAgain(before.completion))
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

/** Changed weights move the ends of the covered parts, so one that is outside now may have been inside; a namespace never moves. */
function mayHaveTakenPart({ epoch, coverage, namespace }: Experiment, unit: string): boolean {
  return epoch > 1 && coverage < 1 && (namespace === undefined || inNamespace(unit, namespace))
}

/** Equal where the same model would be asked the same; an adapter counts on questions that edits apply to. */
function promptKey({ model, arm, template, adapter }: ChatRequest, edits: string): string {
  return JSON.stringify(arm === 'base' || edits === '' ? [model] : [model, template, adapter ?? null, edits])
}

function likeness(a: ReadonlySet<string>, b: ReadonlySet<string>): number {
  const common = [...a].filter((word) => b.has(word)).length
  return common === 0 ? 0 : common / (a.size + b.size - common)
}
