import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { Gateway } from '../../gateway.ts'
import type { Completed, Observer } from '../request/request-context.ts'
import { type Routes, route } from '../routes.ts'

/** Seconds; the bounds are OpenTelemetry's for `gen_ai.server.request.duration`, with finer ones below for routes that ask no model. */
const DURATION_SECONDS = [
  0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
]
const STAGE_SECONDS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60]
const METHODS = new Set(['GET', 'HEAD', 'POST', 'DELETE', 'OPTIONS', 'PUT', 'PATCH'])

export interface Metrics {
  readonly observe: Observer
  /** Those of the gateway itself, without the process's. */
  readonly registry: Registry
  readonly routes: Routes
}

let processMetrics: Registry | undefined

/** Of this process (CPU, memory, event loop, collections of garbage), collected once however many gateways it holds. */
function ofProcess(): Registry {
  if (processMetrics === undefined) {
    processMetrics = new Registry()
    collectDefaultMetrics({ register: processMetrics })
  }
  return processMetrics
}

/**
 * `GET /metrics`, for Prometheus. A label's values are ours, never a client's: routes are patterns, and models, tenants and keys are no
 * labels. So the number of series has a bound that no request can move.
 */
export function openMetrics(gateway: Gateway): Metrics {
  const registry = new Registry()
  const observe = observer(registry)
  gauges(registry, gateway)
  const all = Registry.merge([ofProcess(), registry])
  return {
    observe,
    registry,
    routes: {
      '/metrics': {
        get: route(
          { summary: 'Metrics, for Prometheus.', reply: 'text/plain; version=0.0.4; charset=utf-8' },
          async (_req, res) => void res.type(all.contentType).send(await all.metrics()),
        ),
      },
    },
  }
}

function observer(register: Registry): Observer {
  const registers = [register]
  const duration = new Histogram({
    name: 'palimpsest_request_duration_seconds',
    help: 'From a request to the end of its response.',
    registers,
    labelNames: ['route', 'method', 'status'] as const,
    buckets: DURATION_SECONDS,
  })
  const stage = new Histogram({
    name: 'palimpsest_stage_duration_seconds',
    help: 'Time in each stage of an answer.',
    registers,
    labelNames: ['stage'] as const,
    buckets: STAGE_SECONDS,
  })
  const firstPiece = new Histogram({
    name: 'palimpsest_time_to_first_token_seconds',
    help: 'From the beginning of an answer to its first text.',
    registers,
    labelNames: ['arm', 'edited'] as const,
    buckets: DURATION_SECONDS,
  })
  const errors = new Counter({
    name: 'palimpsest_errors_total',
    help: 'Requests that ended in an error, by its code.',
    registers,
    labelNames: ['code'] as const,
  })
  const answers = new Counter({
    name: 'palimpsest_answers_total',
    help: 'Answers of the model; edited: at least one edit was in the prompt.',
    registers,
    labelNames: ['arm', 'edited', 'finish'] as const,
  })
  const edits = new Counter({ name: 'palimpsest_edits_applied_total', help: 'Edits put in front of the model.', registers })
  const tokens = new Counter({
    name: 'palimpsest_tokens_total',
    help: 'Tokens: of prompts, those of them found cached or added by edits, and of answers.',
    registers,
    labelNames: ['kind'] as const,
  })
  return ({ route, method, status, ms, error, call, traces }: Completed) => {
    duration.observe({ route, method: METHODS.has(method) ? method : 'other', status }, ms / 1_000)
    if (error !== undefined) errors.inc({ code: error })
    for (const trace of traces) {
      const edited = String(trace.applied.length > 0)
      for (const [name, took] of Object.entries(trace.stagesMs)) stage.observe({ stage: name }, took / 1_000)
      if (trace.firstPieceMs !== undefined) firstPiece.observe({ arm: trace.arm, edited }, trace.firstPieceMs / 1_000)
      if (call?.request !== undefined) answers.inc({ arm: trace.arm, edited, finish: trace.finishReason ?? 'failed' })
      edits.inc(trace.applied.length)
      tokens.inc({ kind: 'prompt' }, trace.promptTokens)
      tokens.inc({ kind: 'cached' }, trace.tokensCached)
      tokens.inc({ kind: 'added' }, Math.max(0, trace.tokensAdded))
      tokens.inc({ kind: 'completion' }, trace.completionTokens)
    }
  }
}

/** Read when Prometheus asks. */
function gauges(register: Registry, { engine, memory, version }: Gateway): void {
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name: `palimpsest_${name}`,
      help,
      registers: [register],
      collect() {
        this.set(read())
      },
    })
  gauge('slots', 'Answers that can be written at once.', () => engine.load().slots)
  gauge('slots_busy', 'Answers being written.', () => engine.load().busy)
  gauge('queue_length', 'Requests that wait for a slot.', () => engine.load().queued)
  gauge('queue_limit', 'Requests that may wait for a slot.', () => engine.load().queueLimit)
  gauge('memory_version', 'Last change of the edits, of all tenants, that is applied here.', () => memory.feed().applied)
  gauge('memory_behind', 'Changes of the edits that are known of and not applied here yet.', () => {
    const { applied, seen } = memory.feed()
    return seen - applied
  })
  gauge('edits_indexed', 'Edits whose vector can be searched.', () => total(memory, 'indexed'))
  gauge('edits_pending', 'Edits whose vector is yet to be made.', () => total(memory, 'pending'))
  new Gauge({
    name: 'palimpsest_info',
    help: 'Always 1: what is served here.',
    registers: [register],
    labelNames: ['version', 'model', 'device'] as const,
  }).set({ version, model: engine.model.name, device: engine.model.device }, 1)
}

function total(memory: Gateway['memory'], key: 'indexed' | 'pending'): number {
  return memory.status().reduce((sum, tenant) => sum + tenant[key], 0)
}
