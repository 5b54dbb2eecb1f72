import { type Attributes, context, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import type { Gateway, Telemetry } from '../../gateway.ts'
import type { Call, Completed, Observer } from '../request/request-context.ts'

/** Bounds that the conventions name for each histogram. */
const REQUEST_SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
const FIRST_SECONDS = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
const TOKEN_SECONDS = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5]
const TOKENS = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864]

const PROVIDER = { 'gen_ai.provider.name': 'palimpsest' }

/**
 * OpenTelemetry's GenAI conventions (open-telemetry/semantic-conventions-genai, still in development) for each request that asks a model:
 * a span of the HTTP server, within it one named `chat MODEL`, and the metrics of model servers; beside them which arm answered, with which
 * edits. Spans are written when the request is over. Text goes into them only with `logPrompts`.
 */
export function spanObserver({ telemetry, logPrompts = false, engine }: Gateway): Observer | null {
  if (telemetry === undefined) return null
  const { tracer, propagator } = telemetry
  const record = recorder(telemetry)
  const kind = engine.model.device === 'remote' ? SpanKind.CLIENT : SpanKind.INTERNAL
  return (completed) => {
    const { call, startedMs, ms } = completed
    const caller = propagator.extract(ROOT_CONTEXT, completed.headers, { keys: Object.keys, get: (all, key) => all[key] })
    const times = { start: startedMs, end: startedMs + ms }
    const server = tracer.startSpan(
      `${completed.method} ${completed.route}`,
      { kind: SpanKind.SERVER, startTime: times.start, attributes: httpAttributes(completed) },
      caller,
    )
    if (completed.status >= 500) server.setStatus({ code: SpanStatusCode.ERROR })
    if (call !== undefined) {
      const attributes = { ...callAttributes(call), ...answerAttributes(completed), ...(logPrompts && content(completed)) }
      const within = trace.setSpan(context.active(), server)
      const span = tracer.startSpan(`${call.operation} ${call.model}`, { kind, startTime: times.start, attributes }, within)
      if (completed.error !== undefined || completed.status >= 400) span.setStatus({ code: SpanStatusCode.ERROR })
      span.end(times.end)
      record(completed, call)
    }
    server.end(times.end)
  }
}

function httpAttributes({ method, route, status, id, error }: Completed): Attributes {
  return {
    'http.request.method': method,
    'http.route': route,
    'http.response.status_code': status,
    'palimpsest.request.id': id,
    ...(status >= 500 && { 'error.type': error ?? String(status) }),
  }
}

function callAttributes({ operation, id, model, stream, n, request }: Call): Attributes {
  const sampling = request?.sampling
  return {
    ...PROVIDER,
    'gen_ai.operation.name': operation,
    'gen_ai.request.model': model,
    'gen_ai.response.model': model,
    ...(id !== null && { 'gen_ai.response.id': id }),
    ...(stream && { 'gen_ai.request.stream': true }),
    ...(n !== 1 && { 'gen_ai.request.choice.count': n }),
    ...(sampling && { 'gen_ai.request.temperature': sampling.temperature, 'gen_ai.request.top_p': sampling.topP }),
    ...(sampling?.maxTokens !== undefined && { 'gen_ai.request.max_tokens': sampling.maxTokens }),
    ...(sampling?.seed !== undefined && {
      'gen_ai.request.seed': typeof sampling.seed === 'bigint' ? String(sampling.seed) : sampling.seed,
    }),
  }
}

function answerAttributes({ call, traces, error, status }: Completed): Attributes {
  const [first] = traces
  const failed = error ?? (status >= 400 ? String(status) : undefined)
  const stages = Object.entries(first?.stagesMs ?? {}).map(([stage, ms]) => [`palimpsest.stage.${stage}.duration`, ms / 1_000])
  return {
    ...(failed !== undefined && { 'error.type': failed }),
    ...(first && {
      'gen_ai.usage.input_tokens': first.promptTokens,
      'gen_ai.usage.cache_read.input_tokens': first.tokensCached,
      'gen_ai.usage.output_tokens': outputTokens(traces),
    }),
    ...(first &&
      call?.request && {
        'gen_ai.response.finish_reasons': traces.flatMap(({ finishReason }) => finishReason ?? []),
        'palimpsest.arm': first.arm,
        'palimpsest.edits': first.applied.map(({ id }) => id),
        ...(first.adapter !== null && { 'palimpsest.adapter': first.adapter }),
        'palimpsest.edits.tokens': first.tokensAdded,
        'palimpsest.memory.version': first.memoryVersion,
        ...(first.template && { 'palimpsest.template': first.template.name }),
      }),
    ...(call?.stream &&
      first?.firstPieceMs !== undefined && { 'gen_ai.response.time_to_first_chunk': first.firstPieceMs / 1_000 }),
    ...Object.fromEntries(stages),
  }
}

function content({ call, traces }: Completed): Attributes {
  if (call?.request === undefined) return {}
  const { request } = call
  const message = (role: string, text: string) => ({ role, parts: [{ type: 'text', content: text }] })
  const asked =
    'messages' in request
      ? request.messages.map(({ role, content }) => message(role, content))
      : [message('user', String(request.prompt))]
  const said = traces.map(({ text, finishReason = 'error' }) => ({
    ...message('assistant', text?.join('') ?? ''),
    finish_reason: finishReason,
  }))
  return {
    'gen_ai.input.messages': JSON.stringify(asked),
    'gen_ai.output.messages': JSON.stringify(said),
  }
}

function recorder({ meter }: Telemetry): (completed: Completed, call: Call) => void {
  const histogram = (name: string, unit: string, explicitBucketBoundaries: number[]) =>
    meter.createHistogram(name, { unit, advice: { explicitBucketBoundaries } })
  const duration = histogram('gen_ai.server.request.duration', 's', REQUEST_SECONDS)
  const firstToken = histogram('gen_ai.server.time_to_first_token', 's', FIRST_SECONDS)
  const perToken = histogram('gen_ai.server.time_per_output_token', 's', TOKEN_SECONDS)
  const usage = histogram('gen_ai.client.token.usage', '{token}', TOKENS)
  return ({ ms, error, traces }, { operation, model }) => {
    const [first] = traces
    const attributes: Attributes = {
      ...PROVIDER,
      'gen_ai.operation.name': operation,
      'gen_ai.request.model': model,
      'gen_ai.response.model': model,
      ...(first && operation !== 'embeddings' && { 'palimpsest.arm': first.arm, 'palimpsest.edited': first.applied.length > 0 }),
    }
    duration.record(ms / 1_000, { ...attributes, ...(error !== undefined && { 'error.type': error }) })
    if (first === undefined || error !== undefined) return
    usage.record(first.promptTokens, { ...attributes, 'gen_ai.token.type': 'input' })
    if (operation !== 'embeddings') usage.record(outputTokens(traces), { ...attributes, 'gen_ai.token.type': 'output' })
    for (const { firstPieceMs, endMs, completionTokens } of traces) {
      if (firstPieceMs === undefined || endMs === undefined) continue
      firstToken.record(firstPieceMs / 1_000, attributes)
      if (completionTokens > 1) perToken.record((endMs - firstPieceMs) / 1_000 / (completionTokens - 1), attributes)
    }
  }
}

function outputTokens(traces: Completed['traces']): number {
  return traces.reduce((sum, { completionTokens }) => sum + completionTokens, 0)
}
