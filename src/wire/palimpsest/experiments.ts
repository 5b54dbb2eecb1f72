import { z } from 'zod'
import { type ErrorCode, PalimpsestError } from '../../errors.ts'
import {
  type Experiment,
  type Guardrail,
  METRICS,
  type Metric,
  type Serves,
  type Stage,
  type Unit,
} from '../../experiment/experiment.ts'
import type { Limits } from '../../gateway.ts'
import { check } from '../openai/refusal.ts'
import { tenant, text } from './selection.ts'

const id = z.string().regex(/^[A-Za-z0-9._-]{1,64}$/, { error: '1 to 64 letters, digits, dots, dashes or underscores' })
const share = z.number().gt(0).max(1)

const unit = z
  .string()
  .regex(/^(user|key|conversation|header:[A-Za-z0-9-]{1,64})$/, { error: "'user', 'key', 'conversation' or 'header:NAME'" })
  .transform((by): Unit => {
    const [kind, name] = by.split(':') as ['user' | 'key' | 'conversation' | 'header', string | undefined]
    return kind === 'header' ? { by: 'header', name: (name ?? '').toLowerCase() } : { by: kind }
  })

const metric = z
  .string()
  .refine((name) => Object.hasOwn(METRICS, name) || /^(label|number):[^"\\]{1,64}$/.test(name), {
    error: `one of ${Object.keys(METRICS).join(', ')}, or label:NAME or number:NAME of the feedback`,
  })
  .transform((name) => name as Metric)

const guardrails = z.strictObject({
  locality: share.optional(),
  collateral: z.number().min(0).max(1).optional(),
  error: z.number().min(0).max(1).optional(),
  negative_feedback: z.number().min(0).max(1).optional(),
  refusal: z.number().min(0).max(1).optional(),
  latency: z.number().min(1).max(100).optional(),
})

export function experimentBody({ experimentArms, selectors }: Limits) {
  const several = z.array(text.min(1).max(256)).max(selectors)
  const arm = z.strictObject({
    name: id,
    weight: z.number().gt(0).max(1e6).optional(),
    edits: z.enum(['on', 'off']).optional(),
    template: text.optional(),
    tags: several.optional(),
    threshold: z.number().min(0).max(1).optional(),
    without_batches: several.optional(),
    model: text.optional(),
    adapter: text.optional(),
  })
  return z.strictObject({
    id,
    tenant: tenant.optional(),
    arms: z
      .array(arm)
      .min(2)
      .max(experimentArms)
      .refine((arms) => new Set(arms.map(({ name }) => name)).size === arms.length, { error: 'arms of different names' })
      .optional(),
    unit: unit.optional(),
    audience: z.strictObject({ tags: several.optional(), models: several.optional() }).optional(),
    coverage: share.optional(),
    namespace: z.strictObject({ name: id, from: z.number().min(0).max(1), to: z.number().min(0).max(1) }).optional(),
    metrics: z.array(metric).min(1).max(16).optional(),
    guardrails: guardrails.omit({ locality: true }).optional(),
    seed: text.min(1).max(128).optional(),
    alpha: z.number().min(0.0001).max(0.2).optional(),
    planned_units: z.int().min(20).max(1e9).optional(),
    log_prompts: z.boolean().optional(),
  })
}

/** What an experiment may refer to. */
export interface ServedNow {
  readonly templates: readonly string[]
  readonly models: readonly string[]
  /** Ids. */
  readonly adapters: readonly string[]
  /** Milliseconds since the epoch. */
  readonly now: number
  readonly source: string
}

const DEFAULT_ARMS = [
  { name: 'base', edits: 'off' },
  { name: 'edited', edits: 'on' },
] as const
const DEFAULT_METRICS: readonly Metric[] = ['target_shown', 'negative_feedback', 'refusal', 'latency_ms']
const ALPHA = 0.05
const PLANNED_UNITS = 2_000

/** Reads the body of `POST /v1/experiments`, or an experiment file. Throws a PalimpsestError that names the field at fault. */
export function readExperiment(body: unknown, limits: Limits, ofTenant: string, served: ServedNow): Experiment {
  const fields = check(experimentBody(limits), body)
  const { namespace, audience, guardrails: guards = {} } = fields
  if (namespace !== undefined && namespace.from >= namespace.to)
    throw new PalimpsestError('invalid_value', 'Expected `namespace.from` to be less than `namespace.to`.', {
      param: 'namespace',
    })
  return {
    id: fields.id,
    tenant: ofTenant,
    seed: fields.seed ?? fields.id,
    arms: (fields.arms ?? DEFAULT_ARMS).map((arm, at) => toArm(arm, at, served)),
    unit: fields.unit ?? { by: 'user' },
    audience: { tags: audience?.tags ?? [], models: audience?.models ?? [] },
    coverage: fields.coverage ?? 1,
    ...(namespace !== undefined && { namespace }),
    metrics: [...new Set(fields.metrics ?? DEFAULT_METRICS)],
    guardrails: toGuardrails(guards),
    logPrompts: fields.log_prompts ?? false,
    alpha: fields.alpha ?? ALPHA,
    plannedUnits: fields.planned_units ?? PLANNED_UNITS,
    source: served.source,
    status: 'running',
    version: 1,
    epoch: 1,
    createdAt: Math.round(served.now),
  }
}

type WireArm = NonNullable<z.output<ReturnType<typeof experimentBody>>['arms']>[number]

function toArm(arm: WireArm, at: number, served: ServedNow) {
  const fault = (code: ErrorCode, message: string, field: string) =>
    new PalimpsestError(code, message, { param: `arms[${at}].${field}` })
  const known = (code: ErrorCode, field: 'template' | 'model' | 'adapter', names: readonly string[]) => {
    const name = arm[field]
    if (name === undefined || names.includes(name)) return
    throw fault(code, `There is no ${field} '${name.slice(0, 64)}'. There are: ${names.join(', ') || 'none'}.`, field)
  }
  known('template_not_found', 'template', served.templates)
  known('model_not_found', 'model', served.models)
  known('adapter_not_found', 'adapter', served.adapters)
  const { name, weight = 1, model, adapter } = arm
  const edited = arm.edits !== 'off'
  const changes = [arm.template, arm.threshold, arm.tags, arm.without_batches].some((value) => value !== undefined)
  if (adapter !== undefined && (changes || !edited || model !== undefined))
    throw fault(
      'invalid_value',
      `Arm '${name}' has \`adapter\`, which comes with the edits that it does not hold: leave edits, template, tags, threshold, without_batches and model away.`,
      'adapter',
    )
  if ((!edited || model !== undefined) && changes)
    throw fault(
      'invalid_value',
      `Arm '${name}' has \`${model === undefined ? 'edits: off' : 'model'}\`, so template, tags, threshold and without_batches have nothing to act on: leave them away.`,
      'edits',
    )
  return { name, weight, serves: servesOf(arm, edited) }
}

function servesOf({ adapter, model, template, threshold, tags = [], without_batches = [] }: WireArm, edited: boolean): Serves {
  if (adapter !== undefined) return { kind: 'adapter', adapter }
  if (model !== undefined) return { kind: 'model', model, edited }
  if (!edited) return { kind: 'base' }
  return {
    kind: 'edited',
    tags,
    withoutBatches: without_batches,
    ...(template !== undefined && { template }),
    ...(threshold !== undefined && { threshold }),
  }
}

function toGuardrails(fields: z.output<typeof guardrails>): Guardrail[] {
  const { locality, collateral, latency, ...rates } = fields
  const kinds = ['error', 'negative_feedback', 'refusal'] as const
  return [
    ...(locality === undefined ? [] : [{ kind: 'locality', least: locality } as const]),
    ...(collateral === undefined ? [] : [{ kind: 'collateral', most: collateral } as const]),
    ...kinds.flatMap((kind) => (rates[kind] === undefined ? [] : [{ kind, mostMore: rates[kind] } as const])),
    ...(latency === undefined ? [] : [{ kind: 'latency', mostTimes: latency } as const]),
  ]
}

const STAGES: readonly Stage[] = [
  { share: 0, least: 10 },
  { share: 0.01, least: 20 },
  { share: 0.1, least: 50 },
  { share: 0.5, least: 100 },
]
const GUARDRAILS = { locality: 0.98, collateral: 0.3, error: 0.02, negative_feedback: 0.05, refusal: 0.05, latency: 2 }

/** The body of `POST /v1/rollouts`. */
export function rolloutBody(limits: Limits) {
  const stage = z.strictObject({ share: z.number().min(0).max(1), least: z.int().min(0).max(1e9).optional() })
  return z.strictObject({
    id: id.optional(),
    batch: text.min(1).max(128).describe('Id of the batch that is rolled out.'),
    tenant: tenant.optional(),
    unit: unit.optional(),
    stages: z
      .array(stage)
      .min(1)
      .max(16)
      .refine((stages) => stages.every(({ share }, i) => i === 0 || share > (stages[i - 1]?.share ?? 0)), {
        error: 'stages of growing shares',
      })
      .optional()
      .describe('Growing shares of the units, and the exposures that each stage asks for.'),
    guardrails: guardrails.optional(),
    locality_prompts: z.array(text.min(1).max(4_096)).max(limits.replayPrompts).optional(),
    seed: text.min(1).max(128).optional(),
    alpha: z.number().min(0.0001).max(0.2).optional(),
  })
}

/** Reads the body of `POST /v1/rollouts`. */
export function readRollout(
  body: unknown,
  limits: Limits,
  ofTenant: string,
  { now, source }: Pick<ServedNow, 'now' | 'source'>,
): Experiment {
  const fields = check(rolloutBody(limits), body)
  const name = fields.id ?? `rollout-${fields.batch.replace(/[^A-Za-z0-9._-]/g, '-').slice(0, 56)}`
  const stages = fields.stages?.map(({ share, least }) => ({ share, least: least ?? 20 })) ?? STAGES
  const without: Serves = { kind: 'edited', tags: [], withoutBatches: [fields.batch] }
  const withBatch: Serves = { kind: 'edited', tags: [], withoutBatches: [] }
  const first = stages[0]?.share ?? 0
  return {
    id: name,
    tenant: ofTenant,
    seed: fields.seed ?? name,
    arms: [
      { name: 'without', weight: 1 - first, serves: without },
      { name: 'with', weight: first, serves: withBatch },
    ],
    unit: fields.unit ?? { by: 'user' },
    audience: { tags: [], models: [] },
    coverage: 1,
    metrics: DEFAULT_METRICS,
    logPrompts: false,
    plannedUnits: 200,
    guardrails: toGuardrails(fields.guardrails ?? GUARDRAILS),
    alpha: fields.alpha ?? ALPHA,
    source,
    status: 'running',
    version: 1,
    epoch: 1,
    createdAt: Math.round(now),
    rollout: { batch: fields.batch, stages, stage: 0, outcome: 'under_way', localityPrompts: fields.locality_prompts ?? [] },
  }
}

/** The body of `POST /v1/feedback`. */
export const feedbackBody = z
  .strictObject({
    completion_id: text.min(1).max(128),
    id: text.min(1).max(128).optional(),
    tenant: tenant.optional(),
    score: z.number().optional(),
    label: text.min(1).max(64).optional(),
    numbers: z
      .record(z.string().min(1).max(64), z.number())
      .refine((numbers) => Object.keys(numbers).length <= 32, { error: 'at most 32 numbers' })
      .optional(),
  })
  .refine(({ score, label, numbers }) => score !== undefined || label !== undefined || numbers !== undefined, {
    error: 'feedback with a `score`, a `label` or `numbers`',
  })
  // PostgreSQL keeps none in a text.
  .refine((said) => !JSON.stringify(said).includes('\\u0000'), { error: 'texts without the character U+0000' })

/** Reads the body of `POST /v1/feedback`. */
export function readFeedback(body: unknown) {
  return check(feedbackBody, body)
}
