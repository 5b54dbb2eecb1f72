/** What the gateway answers, as far as the command line shows it. The shapes are made in `src/wire`. */
import type { wireLanding } from '../wire/palimpsest/edits.ts'
import type { wireEvent, wireExperiment, wireReplay, wireResult } from '../wire/palimpsest/experiment-answers.ts'
import type { wireExplanation } from '../wire/palimpsest/explain.ts'

export interface WireEdit {
  readonly id: string
  readonly subject?: string
  readonly aliases: readonly string[]
  /** Of a fact. */
  readonly prompt?: string
  readonly target_new?: string
  readonly target_true?: string
  readonly relation?: string
  /** Of a sentence. */
  readonly text?: string
  /** Of a rule. */
  readonly when?: string
  readonly instruction?: string
  readonly always?: true
  readonly paraphrases: readonly string[]
  readonly examples?: readonly string[]
  readonly counterexamples?: readonly string[]
  readonly tags: readonly string[]
  readonly tenant: string
  readonly models?: readonly string[]
  readonly valid_from?: string
  readonly valid_to?: string
  readonly source?: string
  readonly state: string
  readonly superseded_by?: string
  readonly batch: string
  readonly version: number
  readonly landed_at: string
}

export interface WireHistory extends WireEdit {
  readonly history: readonly {
    readonly version: number
    readonly at: string
    readonly kind: string
    readonly batch: string
    readonly edit?: Partial<WireEdit>
  }[]
}

export interface WirePage<T> {
  readonly data: readonly T[]
  readonly has_more: boolean
  readonly next_cursor: string | null
  readonly total: number
}

export interface WireBatch {
  readonly id: string
  readonly landed_at: string
  readonly source: string
  readonly edits: number
  readonly live: number
}

export type WireLanding = ReturnType<typeof wireLanding>
export type WireReport = NonNullable<WireLanding['report']>
export type WireSide = WireReport['findings'][number]['edit']
export type WireExplanation = ReturnType<typeof wireExplanation>
export type WireConsidered = WireExplanation['turns'][number]['considered'][number]

/** The `palimpsest` object of an answer that was asked for with `explain`. */
export interface WireProvenance {
  readonly arm: string
  readonly edits: readonly { readonly id: string; readonly subject: string; readonly score: number; readonly turn: number }[]
  readonly template: string | null
  readonly tokens_added: number
  readonly trace?: { readonly turns: WireExplanation['turns'] }
}

export type WireExperiment = ReturnType<typeof wireExperiment>
export type WireExperimentResult = WireExperiment & {
  readonly result: ReturnType<typeof wireResult>
  readonly events: readonly ReturnType<typeof wireEvent>[]
}
export type WireReplayResult = ReturnType<typeof wireReplay>

export interface WireComparison {
  readonly identical: boolean
  readonly arms: readonly {
    readonly arm: string
    readonly text: string
    readonly latency_ms: number
    readonly tokens_added: number
    readonly turns: WireExplanation['turns']
  }[]
}
