import type { Arm } from './request.ts'

/** Stages of a request; `Server-Timing` prints them under these names. `read` is the reader's time, wherever it is asked. */
export type Stage = 'retrieve' | 'read' | 'gate' | 'decompose' | 'render' | 'queue' | 'prefill' | 'decode' | 'embed'

/** Why a candidate was taken or refused. */
export type Reason =
  | 'selected'
  | 'requested' // named by id in the request
  | 'not_read' // too far from the message to be read
  | 'below_threshold'
  | 'other_name' // the message names another subject in full, in the same words
  | 'boundless' // it would apply to any message, and is not declared `always`
  | 'outranked' // the gate: another edit is needed much more clearly
  | 'text_task' // the message asks for a title, a summary or a translation of a text: no fact belongs into it
  | 'counterexample' // the message is nearest to one that the edit is not for
  | 'outdated' // a later edit answers the same question differently, in other words
  | 'over_limit' // the gate: more edits applied than one prompt takes
  | 'in_adapter' // was selected, and the adapter that answers holds it
  | 'budget' // was selected, and dropped while the prompt was written, to fit the context

/** One edit considered for one turn. */
export interface Considered {
  readonly id: string
  readonly subject: string
  readonly statement: string
  /** Calibrated probability in [0, 1] that the turn needs this edit. */
  readonly score: number
  /** Cosine of the whole texts, in [-1, 1]; null where the vector index did not return it. */
  readonly similarity: number | null
  /** Words of the edit's key (a prompt, paraphrase, example, …) that is nearest to the message; null: not looked for. */
  readonly key: string | null
  readonly reason: Reason
  /** Id of the later edit, when the reason is `outdated`. */
  readonly outdatedBy?: string
  /** The gate's evidence by name, for explain. */
  readonly evidence: Readonly<Record<string, number>>
  /** Where a question describes what it asks about: 2 for an edit about what an edit of hop 1 names, and so on. Absent: 1. */
  readonly hop?: number
  /** Id of the edit whose target this edit is about; `model` where the model named it. */
  readonly via?: string
}

/** What selection decided for the user turn at `messages[turn]`. */
export interface TurnTrace {
  readonly turn: number
  readonly considered: readonly Considered[]
  readonly cached: boolean
}

interface Selected {
  readonly memoryVersion: number
  readonly turns: readonly TurnTrace[]
}

/** Without what only the stages after it need. */
const turnsOf = (turns: readonly TurnTrace[]): TurnTrace[] =>
  turns.map(({ turn, considered, cached }) => ({ turn, considered, cached }))

/** An edit that was put in front of the model. */
export interface Applied {
  readonly id: string
  readonly subject: string
  readonly score: number
  readonly turn: number
}

/** A server that was asked for the answer, and what came of it. */
export interface RouteStep {
  readonly to: string
  /** "answers", or why it did not. */
  readonly outcome: string
}

/**
 * What happened to one request, filled in by every stage as it passes. The response's provenance, `explain`, `Server-Timing` and
 * the log line are all cut from it.
 */
export class Trace {
  readonly id: string
  readonly stagesMs: Partial<Record<Stage, number>> = {}
  arm: Arm = 'edited'
  /** The adapter that answers: the arm's own, or the one promoted; null: none. */
  adapter: string | null = null
  memoryVersion = 0
  turns: readonly TurnTrace[] = []
  applied: readonly Applied[] = []
  /** Name and content hash of the template that rendered the edits; null when none was rendered. */
  template: { readonly name: string; readonly hash: string } | null = null
  /** The experiment that this answer counts in, and the name of its arm; null: in none. */
  experiment: { readonly id: string; readonly arm: string } | null = null
  /** Prompt tokens that edits added to this request. */
  tokensAdded = 0
  /** What asking the model about parts of the question cost, beside the answer itself; its time is the stage `decompose`. */
  decomposition = { calls: 0, promptTokens: 0, completionTokens: 0 }
  /** Prompt tokens found in the slot's cache. */
  tokensCached = 0
  promptTokens = 0
  completionTokens = 0
  /** Of the answer, as it comes; about as many as its tokens. */
  pieces = 0
  /** Absent while the answer is under way, and where it failed. */
  finishReason?: string
  /** Milliseconds from the beginning to the first piece of text, and to the end. */
  firstPieceMs?: number
  endMs?: number
  /** The pieces of the answer, kept only where prompts may be logged. */
  text: string[] | null = null
  /** Where the model is behind several servers: those asked, in order. */
  route: readonly RouteStep[] = []
  /** Milliseconds, by the clock that all its times are taken by. */
  readonly now: () => number
  readonly #startedMs: number
  /** Of all stages that have ended. */
  #endedMs = 0

  constructor(id: string, now: () => number) {
    this.id = id
    this.now = now
    this.#startedMs = now()
  }

  /** Who answers, in which experiment, and what was selected. */
  assigned(arm: Arm, experiment: Trace['experiment'], selection: Selected): void {
    this.arm = arm
    this.experiment = experiment
    this.memoryVersion = selection.memoryVersion
    this.turns = turnsOf(selection.turns)
  }

  planned({
    adapter,
    turns,
  }: {
    readonly adapter: { readonly id: string } | undefined
    readonly turns: readonly TurnTrace[]
  }): void {
    this.adapter = adapter?.id ?? null
    this.turns = turnsOf(turns)
  }

  written({ applied, template, tokensAdded, turns }: Pick<Trace, 'applied' | 'template' | 'tokensAdded' | 'turns'>): void {
    this.applied = applied
    this.template = template
    this.tokensAdded = tokensAdded
    this.turns = turnsOf(turns)
  }

  /** A piece of the answer came; `echoed`: one of the prompt's, before the model has written anything. */
  piece(text: string, echoed: boolean): void {
    if (!echoed) {
      this.firstPieceMs ??= this.now() - this.#startedMs
      this.pieces++
    }
    this.text?.push(text)
  }

  /** The answer is complete. */
  finish(reason: string, completionTokens: number): void {
    this.endMs = this.now() - this.#startedMs
    this.finishReason = reason
    this.completionTokens = completionTokens
  }

  /** Run `work`, adding its milliseconds to `stage`; those of a stage within it count for that one alone. */
  async time<T>(stage: Stage, work: () => T | Promise<T>): Promise<T> {
    // Named in the order in which they begin.
    this.add(stage, 0)
    const [start, before] = [this.now(), this.#endedMs]
    try {
      return await work()
    } finally {
      const whole = this.now() - start
      this.add(stage, whole - (this.#endedMs - before))
      this.#endedMs = before + whole
    }
  }

  /** The model was asked about a part of the question. */
  asked({ promptTokens, completionTokens }: { readonly promptTokens: number; readonly completionTokens: number }): void {
    this.decomposition.calls++
    this.decomposition.promptTokens += promptTokens
    this.decomposition.completionTokens += completionTokens
  }

  add(stage: Stage, ms: number): void {
    this.stagesMs[stage] = (this.stagesMs[stage] ?? 0) + ms
  }
}
