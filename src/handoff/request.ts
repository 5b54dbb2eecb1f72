import { z } from 'zod'
import { ADAPTER_ID } from '../adapters/record.ts'
import type { Limits } from '../gateway.ts'
import { check } from '../wire/openai/refusal.ts'
import { tenant, text } from '../wire/palimpsest/selection.ts'
import { URGENCIES } from './advice.ts'
import type { EditsQuery } from './exchange/edit-query.ts'
import { type HandoffMethod, type HandoffThresholds, METHODS, type Settings, THRESHOLDS, thresholds } from './job.ts'

/** What `POST /v1/handoffs` asks for. */
export interface HandoffRequest {
  /** Absent: made from method and time. */
  readonly id?: string
  readonly tenant?: string
  readonly method: HandoffMethod
  readonly query: EditsQuery
  /** Shares of the edits after each stage, in per cent, ascending. */
  readonly stages: readonly number[]
  readonly settings: Omit<Settings, 'threads'> & { readonly threads?: number }
}

const STAGES = [10, 50, 100]
const MOST_STAGES = 10
const count = (most: number) => z.int().min(0).max(most)

function filterOf(limits: Limits) {
  const short = text.min(1).max(limits.searchChars)
  return z.strictObject({
    tag: short.optional(),
    batch: short.optional(),
    subject: short.optional(),
    q: short.optional(),
  })
}

/** The body of `POST /v1/handoffs`. */
export function handoffBody(limits: Limits) {
  return z.strictObject({
    id: z
      .string()
      .regex(ADAPTER_ID, { error: '1 to 64 letters, digits, dots, dashes or underscores, a letter or digit first' })
      .optional(),
    tenant: tenant.optional(),
    method: z.enum(METHODS),
    edits: z
      .union([z.array(text.min(1)).min(1).max(limits.handoffEdits), filterOf(limits)], {
        error: `an array of at most ${limits.handoffEdits} edit ids, or {tag, batch, subject, q}`,
      })
      .optional(),
    stages: z.array(z.number().gt(0).max(100)).min(1).max(MOST_STAGES).optional(),
    thresholds: thresholds.partial().strict().optional(),
    sample_edits: count(1_000).min(1).optional(),
    unrelated_questions: count(100).optional(),
    fluency_openings: count(100).optional(),
    ability_questions: count(100).optional(),
    answer_tokens: count(512).min(1).optional(),
    seed: count(2 ** 31).optional(),
    threads: count(1_024).min(1).optional(),
    device: z
      .string()
      .regex(/^(?:auto|cpu|cuda(?::\d+)?|mps)$/, { error: "'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'" })
      .optional(),
    dtype: z.enum(['auto', 'float32', 'bfloat16']).optional(),
    memory_bytes: z.int().min(1).optional(),
    hparams: z.record(z.string(), z.unknown()).optional(),
    statistics: z.record(z.string(), z.unknown()).optional(),
    data: text.min(1).optional(),
  })
}

/** Reads the body of `POST /v1/handoffs`; throws as every reader does, naming the field. */
export function readHandoff(body: unknown, limits: Limits): HandoffRequest {
  const read = check(handoffBody(limits), body)
  return {
    ...(read.id !== undefined && { id: read.id }),
    ...(read.tenant !== undefined && { tenant: read.tenant }),
    method: read.method,
    query: queryOf(read.edits),
    stages: [...new Set(read.stages ?? STAGES)].sort((a, b) => a - b),
    settings: {
      thresholds: { ...THRESHOLDS, ...defined(read.thresholds ?? {}) },
      sample_edits: read.sample_edits ?? 16,
      unrelated_questions: read.unrelated_questions ?? 10,
      fluency_openings: read.fluency_openings ?? 20,
      ability_questions: read.ability_questions ?? 16,
      answer_tokens: read.answer_tokens ?? 32,
      seed: read.seed ?? 0,
      ...(read.threads !== undefined && { threads: read.threads }),
      device: read.device ?? 'auto',
      dtype: read.dtype ?? 'auto',
      memory_bytes: read.memory_bytes ?? null,
      hparams: read.hparams ?? {},
      statistics: read.statistics ?? {},
      data: read.data ?? null,
    },
  }
}

function queryOf(
  edits:
    | readonly string[]
    | { tag?: string | undefined; batch?: string | undefined; subject?: string | undefined; q?: string | undefined }
    | undefined,
): EditsQuery {
  if (Array.isArray(edits)) return { ids: edits }
  const { tag, batch, subject, q } = (edits ?? {}) as { tag?: string; batch?: string; subject?: string; q?: string }
  return {
    ...(tag !== undefined && { tag }),
    ...(batch !== undefined && { batchId: batch }),
    ...(subject !== undefined && { subject }),
    ...(q !== undefined && { text: q }),
  }
}

function defined<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never
}

/** The query of `GET /v1/handoffs/advice`. */
export function adviceQuery(limits: Limits) {
  return filterOf(limits).extend({ when: z.enum(URGENCIES).optional(), tenant: tenant.optional() })
}

export const resumptionBody = z.strictObject({ thresholds: thresholds.partial().strict().optional() })

export const promotionBody = z.strictObject({ replace: z.boolean().optional(), gated: z.boolean().optional() })

/** Reads the query of `GET /v1/handoffs/advice`. */
export function readAdvice(query: unknown, limits: Limits) {
  const { when = 'later', tenant: named, ...filter } = check(adviceQuery(limits), query)
  return { when, tenant: named, query: queryOf(filter) }
}

/** Reads the body of `POST /v1/handoffs/ID/resume`. */
export function readResumption(body: unknown): Partial<HandoffThresholds> {
  return defined(check(resumptionBody, body ?? {}).thresholds ?? {})
}

/** Reads the body of `POST /v1/handoffs/ID/promote`. */
export function readPromotion(body: unknown): { readonly replace: boolean; readonly gated?: boolean } {
  const { replace = false, gated } = check(promotionBody, body ?? {})
  return { replace, ...(gated !== undefined && { gated }) }
}

export interface ImportRequest {
  readonly id: string
  readonly path: string
  readonly method: string
  readonly edits: readonly string[]
  readonly tenant?: string
}

const METHOD_CHARS = 64

/** The body of `POST /v1/handoffs/import`. */
export function importBody(limits: Limits) {
  return z.strictObject({
    id: z.string().regex(ADAPTER_ID),
    path: text.min(1).describe("On the gateway's machine: a LoRA of PEFT's, or parameters that were edited."),
    method: text.min(1).max(METHOD_CHARS).optional(),
    edits: z.array(text.min(1)).max(limits.withdrawIds).optional(),
    tenant: tenant.optional(),
  })
}

/** Reads the body of `POST /v1/handoffs/import`; `path` is on the gateway's machine. */
export function readImport(body: unknown, limits: Limits): ImportRequest {
  const { method = 'imported', edits = [], tenant: named, ...rest } = check(importBody(limits), body)
  return { ...rest, method, edits, ...(named !== undefined && { tenant: named }) }
}
