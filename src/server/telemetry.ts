import type { PushMetricExporter } from '@opentelemetry/sdk-metrics'
import type { SpanExporter } from '@opentelemetry/sdk-trace-base'
import type { Config } from '../config.ts'
import { PalimpsestError } from '../errors.ts'
import type { Limits, Telemetry } from '../gateway.ts'

export interface OpenTelemetry {
  /** Absent where nobody asked for an export. */
  readonly telemetry?: Telemetry
  /** Sends what is left. */
  close(): Promise<void>
}

type Signal = 'TRACES' | 'METRICS'
type Env = Config<Limits>['environment']

/**
 * Export of spans and metrics over OTLP, set up by OpenTelemetry's own variables: where `OTEL_EXPORTER_OTLP_ENDPOINT` (or that of one
 * signal) is set, and neither `OTEL_SDK_DISABLED` nor `OTEL_TRACES_EXPORTER=none` says otherwise. The SDK is loaded only then; it reads
 * headers, timeouts, sampler, intervals and resource attributes from the environment by itself.
 */
export async function openTelemetry({ environment: env }: Config<Limits>, version: string): Promise<OpenTelemetry> {
  const wanted = (['TRACES', 'METRICS'] as const).filter((signal) => isWanted(env, signal))
  if (wanted.length === 0) return { close: async () => {} }
  const [{ BasicTracerProvider, BatchSpanProcessor }, { MeterProvider, PeriodicExportingMetricReader }, resources, core] =
    await Promise.all([
      import('@opentelemetry/sdk-trace-base'),
      import('@opentelemetry/sdk-metrics'),
      import('@opentelemetry/resources'),
      import('@opentelemetry/core'),
    ])
  const resource = resources
    .defaultResource()
    .merge(resources.resourceFromAttributes({ 'service.name': 'palimpsest', 'service.version': version }))
    .merge(resources.detectResources({ detectors: [resources.envDetector] }))
  const [spans, figures] = await Promise.all([
    wanted.includes('TRACES') ? spanExporter(env) : null,
    wanted.includes('METRICS') ? metricExporter(env) : null,
  ])
  const tracers = new BasicTracerProvider({ resource, spanProcessors: spans === null ? [] : [new BatchSpanProcessor(spans)] })
  const meters = new MeterProvider({
    resource,
    readers: figures === null ? [] : [new PeriodicExportingMetricReader({ exporter: figures })],
  })
  return {
    telemetry: {
      tracer: tracers.getTracer('palimpsest', version),
      meter: meters.getMeter('palimpsest', version),
      propagator: new core.W3CTraceContextPropagator(),
    },
    close: async () => void (await Promise.allSettled([tracers.shutdown(), meters.shutdown()])),
  }
}

function isWanted(env: Env, signal: Signal): boolean {
  if (env.OTEL_SDK_DISABLED?.trim().toLowerCase() === 'true') return false
  if (env[`OTEL_${signal}_EXPORTER`]?.trim() === 'none') return false
  return [`OTEL_EXPORTER_OTLP_${signal}_ENDPOINT`, 'OTEL_EXPORTER_OTLP_ENDPOINT'].some((name) => (env[name] ?? '').trim() !== '')
}

async function spanExporter(env: Env): Promise<SpanExporter> {
  const { OTLPTraceExporter } =
    protocolOf(env, 'TRACES') === 'http/json'
      ? await import('@opentelemetry/exporter-trace-otlp-http')
      : await import('@opentelemetry/exporter-trace-otlp-proto')
  return new OTLPTraceExporter()
}

async function metricExporter(env: Env): Promise<PushMetricExporter> {
  const { OTLPMetricExporter } =
    protocolOf(env, 'METRICS') === 'http/json'
      ? await import('@opentelemetry/exporter-metrics-otlp-http')
      : await import('@opentelemetry/exporter-metrics-otlp-proto')
  return new OTLPMetricExporter()
}

/** Throws `invalid_value` for a protocol that is not spoken. */
function protocolOf(env: Env, signal: Signal): 'http/protobuf' | 'http/json' {
  const name = [`OTEL_EXPORTER_OTLP_${signal}_PROTOCOL`, 'OTEL_EXPORTER_OTLP_PROTOCOL'].find(
    (key) => (env[key] ?? '').trim() !== '',
  )
  const protocol = name === undefined ? 'http/protobuf' : env[name]?.trim()
  if (protocol === 'http/protobuf' || protocol === 'http/json') return protocol
  throw new PalimpsestError('invalid_value', `Expected ${name} to be http/protobuf or http/json, got '${protocol}'.`, {
    param: name ?? null,
  })
}
