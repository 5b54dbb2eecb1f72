import type { ChatRequest } from '../request.ts'
import type { Namespace } from './bucket.ts'
import type { Kind } from './statistics/confidence.ts'

/** What an arm answers with. */
export type Serves =
  | { readonly kind: 'base' }
  | {
      readonly kind: 'edited'
      readonly template?: string
      /** Only edits with one of these tags; empty: all. */
      readonly tags: readonly string[]
      /** The gate's operating point; absent: as calibrated. */
      readonly threshold?: number
      /** Batches that this arm does without, as though they had never landed. */
      readonly withoutBatches: readonly string[]
    }
  /** Through an adapter, with the edits that it does not hold. */
  | { readonly kind: 'adapter'; readonly adapter: string }
  /** Another model that this gateway serves, with the edits or without. */
  | { readonly kind: 'model'; readonly model: string; readonly edited: boolean }

export interface Arm {
  readonly name: string
  /** Share of the units, relative to those of the other arms. */
  readonly weight: number
  readonly serves: Serves
}

/** Who or what stays in one arm. */
export type Unit =
  | { readonly by: 'header'; readonly name: string }
  | { readonly by: 'user' }
  | { readonly by: 'key' }
  /** How the conversation begins: system message and first question. */
  | { readonly by: 'conversation' }

/** Requests that take part; those of other tenants never do. Empty: all. */
export interface Audience {
  readonly tags: readonly string[]
  readonly models: readonly string[]
}

/** What is compared: of each unit, the mean over its answers. */
export const METRICS = {
  target_shown: { kind: 'proportion', better: 'higher' },
  negative_feedback: { kind: 'proportion', better: 'lower' },
  score: { kind: 'mean', better: 'higher' },
  asked_again: { kind: 'proportion', better: 'lower' },
  refusal: { kind: 'proportion', better: 'lower' },
  error: { kind: 'proportion', better: 'lower' },
  latency_ms: { kind: 'ratio', better: 'lower' },
  completion_tokens: { kind: 'ratio', better: 'lower' },
} as const satisfies Record<string, { kind: Kind; better: 'higher' | 'lower' }>

/** One of those above, or `label:NAME` and `number:NAME` of the feedback. */
export type Metric = keyof typeof METRICS | `label:${string}` | `number:${string}`

export function kindOf(metric: Metric): Kind {
  if (metric.startsWith('label:')) return 'proportion'
  return metric.startsWith('number:') ? 'mean' : METRICS[metric as keyof typeof METRICS].kind
}

/** What the arms other than the first must not do. Shares are of answers, in [0, 1]. */
export type Guardrail =
  /** Prompts that the edits are not about must be answered as by the first arm. */
  | { readonly kind: 'locality'; readonly least: number }
  /** Answers that changed though none of the edits' targets shows in them. */
  | { readonly kind: 'collateral'; readonly most: number }
  | { readonly kind: 'error' | 'negative_feedback' | 'refusal'; readonly mostMore: number }
  /** 1.5: half as slow again. */
  | { readonly kind: 'latency'; readonly mostTimes: number }

export type Status = 'running' | 'stopped' | 'shipped'

export interface Stage {
  /** Share of the units that get the batch; 0: none, both ways of answering are tried in the background. */
  readonly share: number
  /** Units of the batch's arm that must have been exposed before the next stage (in the shadow: pairs of answers). */
  readonly least: number
}

export interface Rollout {
  readonly batch: string
  readonly stages: readonly Stage[]
  /** Index of the present stage. */
  readonly stage: number
  readonly outcome: 'under_way' | 'live' | 'rolled_back'
  /** Set while the batch is taken back, with the evidence: from now on nobody gets it. `landed`: it was in the memory. */
  readonly takenBack?: { readonly landed: boolean; readonly why: Readonly<Record<string, unknown>> }
  /** Prompts that the batch is not about. */
  readonly localityPrompts: readonly string[]
}

/** An experiment as declared, and how far it is. The first arm is the one that the others are compared with. */
export interface Experiment {
  readonly id: string
  readonly tenant: string
  readonly seed: string
  readonly arms: readonly Arm[]
  readonly unit: Unit
  readonly audience: Audience
  /** Share of the audience's units that take part, in (0, 1]. */
  readonly coverage: number
  readonly namespace?: Namespace
  readonly metrics: readonly Metric[]
  readonly guardrails: readonly Guardrail[]
  /** Keep the prompts of exposures, to replay them. */
  readonly logPrompts: boolean
  readonly alpha: number
  /** Units at which one expects to decide: intervals are tightest there. */
  readonly plannedUnits: number
  /** Where it was declared: `http`, or a file. */
  readonly source: string
  readonly status: Status
  /** Counts fresh starts: units go where the hash puts them now, and only what came since is compared. A rollout's stages are such. */
  readonly version: number
  /** Counts changes of weights within a version: units that were exposed stay where they are. */
  readonly epoch: number
  /** Milliseconds since the epoch. */
  readonly createdAt: number
  readonly endedAt?: number
  /** Set where the experiment is a batch on its way to everyone. */
  readonly rollout?: Rollout
  /** Index of the arm that everyone in the audience gets, once shipped. */
  readonly shipped?: number
}

/** Unique among all tenants. */
export function keyOf({ tenant, id }: Pick<Experiment, 'tenant' | 'id'>): string {
  return `${tenant}/${id}`
}

/** The request as this arm answers it. */
export function asServed(request: ChatRequest, serves: Serves): ChatRequest {
  switch (serves.kind) {
    case 'base':
      return { ...request, arm: 'base' }
    case 'edited': {
      const { template, tags, threshold, withoutBatches } = serves
      return {
        ...request,
        arm: 'edited',
        ...(template !== undefined && { template }),
        ...(tags.length > 0 && { tags }),
        ...(threshold !== undefined && { threshold }),
        withoutBatches: [...(request.withoutBatches ?? []), ...withoutBatches],
      }
    }
    case 'adapter':
      return { ...request, arm: 'adapter', adapter: serves.adapter }
    case 'model':
      return { ...request, model: serves.model, arm: serves.edited ? 'edited' : 'base' }
    default:
      return serves satisfies never
  }
}
