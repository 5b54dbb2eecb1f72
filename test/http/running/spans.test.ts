import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { W3CTraceContextPropagator } from '@opentelemetry/core'
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { readConfig } from '../../../src/config.ts'
import { DEFAULT_LIMITS, type Gateway, type Limits } from '../../../src/gateway.ts'
import { openTelemetry } from '../../../src/server/telemetry.ts'
import { MODEL, post, type Served, serve } from '../fakes.ts'

/** For a machine that does other things too. */
vi.setConfig({ testTimeout: 60_000 })

const open: Served[] = []
afterEach(async () => {
  for (const served of open.splice(0)) await served.close()
})

async function observed(gateway: Partial<Gateway> = {}) {
  const spans = new InMemorySpanExporter()
  const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 1_000_000 })
  const meters = new MeterProvider({ readers: [reader] })
  const tracers = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] })
  const telemetry = {
    tracer: tracers.getTracer('test'),
    meter: meters.getMeter('test'),
    propagator: new W3CTraceContextPropagator(),
  }
  const served = await serve({ gateway: { telemetry, ...gateway } })
  open.push(served)
  const finished = (count: number) =>
    vi.waitFor(() => {
      expect(spans.getFinishedSpans()).toHaveLength(count)
      return spans.getFinishedSpans()
    }, 10_000)
  const figures = async () => {
    await reader.forceFlush()
    const last = exporter.getMetrics().at(-1)
    return last?.scopeMetrics[0]?.metrics ?? []
  }
  onTestFinished(() => meters.shutdown())
  return { served, finished, figures }
}

const chat = (content: string, fields: object = {}) => ({ model: MODEL, messages: [{ role: 'user', content }], ...fields })
const TRACE = '0af7651916cd43dd8448eb211c80319c'

describe("OpenTelemetry's GenAI conventions", () => {
  test("name a chat's span, within the server's, within the caller's trace", async () => {
    const { served, finished } = await observed()
    await post(served, '/v1/edits', { id: 'e_mayor', subject: 'Lund', prompt: 'The mayor of Lund is', target_new: 'Ada' })
    const traceparent = `00-${TRACE}-b7ad6b7169203331-01`
    const body = chat('Lund?', { temperature: 0.5, seed: 3, max_tokens: 50, stop: 'my own stop' })
    const { id } = (await (await post(served, '/v1/chat/completions', body, { traceparent })).json()) as { id: string }
    const [, span, server] = await finished(3)
    expect(server).toMatchObject({
      name: 'POST /v1/chat/completions',
      parentSpanContext: { spanId: 'b7ad6b7169203331' },
      attributes: { 'http.request.method': 'POST', 'http.route': '/v1/chat/completions', 'http.response.status_code': 200 },
    })
    expect(span?.spanContext().traceId).toBe(TRACE)
    expect(span?.parentSpanContext?.spanId).toBe(server?.spanContext().spanId)
    expect(span?.name).toBe(`chat ${MODEL}`)
    expect(span?.attributes).toMatchObject({
      'gen_ai.operation.name': 'chat',
      'gen_ai.provider.name': 'palimpsest',
      'gen_ai.request.model': MODEL,
      'gen_ai.response.model': MODEL,
      'gen_ai.response.id': id,
      'gen_ai.response.finish_reasons': ['stop'],
      'gen_ai.request.temperature': 0.5,
      'gen_ai.request.top_p': 1,
      'gen_ai.request.seed': 3,
      'gen_ai.request.max_tokens': 50,
      'gen_ai.usage.input_tokens': expect.any(Number),
      'gen_ai.usage.output_tokens': expect.any(Number),
      'palimpsest.arm': 'edited',
      'palimpsest.edits': ['e_mayor'],
      'palimpsest.template': 'facts',
      'palimpsest.memory.version': 1,
    })
    expect(JSON.stringify(span?.attributes)).not.toMatch(/Lund|Ada|my own stop/)
  })

  test('tell of streams, errors and embeddings', async () => {
    const { served, finished } = await observed()
    await (await post(served, '/v1/responses', { model: MODEL, input: 'x', stream: true })).text()
    await post(served, '/v1/embeddings', { model: 'fake', input: 'one two' })
    await post(served, '/v1/chat/completions', chat('x', { palimpsest: { edits: ['e_none'] } }))
    const spans = await finished(6)
    expect(
      spans.filter(({ name }) => !name.startsWith('POST')).map(({ name, attributes }) => ({ name, attributes })),
    ).toMatchObject([
      {
        name: `chat ${MODEL}`,
        attributes: { 'gen_ai.request.stream': true, 'gen_ai.response.time_to_first_chunk': expect.any(Number) },
      },
      { name: 'embeddings fake', attributes: { 'gen_ai.usage.input_tokens': 4 } },
      { name: `chat ${MODEL}`, attributes: { 'error.type': 'edit_not_found' } },
    ])
  })

  test('have text only where that is asked for', async () => {
    const { served, finished } = await observed({ logPrompts: true })
    await post(served, '/v1/chat/completions', chat('Who?'), { authorization: 'Bearer secret' })
    const [span, server] = await finished(2)
    expect(JSON.parse(String(span?.attributes['gen_ai.input.messages']))).toEqual([
      { role: 'user', parts: [{ type: 'text', content: 'Who?' }] },
    ])
    expect(JSON.parse(String(span?.attributes['gen_ai.output.messages']))).toEqual([
      { role: 'assistant', parts: [{ type: 'text', content: 'You said: Who?' }], finish_reason: 'stop' },
    ])
    expect(JSON.stringify([span?.attributes, server?.attributes])).not.toContain('secret')
  })

  test("name a model server's metrics, with arm and edits, and nothing of a client's choosing", async () => {
    const { served, figures, finished } = await observed()
    for (let i = 0; i < 3; i++)
      await post(served, '/v1/chat/completions', chat('x', { user: `u${i}`, palimpsest: { tenant: `t${i}` } }))
    await finished(6)
    const metrics = await figures()
    expect(metrics.map(({ descriptor: { name, unit } }) => [name, unit])).toEqual([
      ['gen_ai.server.request.duration', 's'],
      ['gen_ai.server.time_to_first_token', 's'],
      ['gen_ai.server.time_per_output_token', 's'],
      ['gen_ai.client.token.usage', '{token}'],
    ])
    expect(metrics[0]?.dataPoints).toMatchObject([
      {
        attributes: {
          'gen_ai.operation.name': 'chat',
          'gen_ai.provider.name': 'palimpsest',
          'gen_ai.request.model': MODEL,
          'gen_ai.response.model': MODEL,
          'palimpsest.arm': 'edited',
          'palimpsest.edited': false,
        },
        value: { count: 3 },
      },
    ])
    expect(metrics[3]?.dataPoints.map(({ attributes }) => attributes['gen_ai.token.type']).sort()).toEqual(['input', 'output'])
  })
})

describe('export over OTLP', () => {
  const configured = (env: Record<string, string>) => readConfig<Limits>({ flags: {}, limits: DEFAULT_LIMITS, env, cwd: '/' })

  test('happens where the standard variables name an endpoint, and nowhere else', async () => {
    expect((await openTelemetry(configured({}), '1')).telemetry).toBeUndefined()
    const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1' }
    for (const off of [{ OTEL_SDK_DISABLED: 'true' }, { OTEL_TRACES_EXPORTER: 'none', OTEL_METRICS_EXPORTER: 'none' }])
      expect((await openTelemetry(configured({ ...endpoint, ...off }), '1')).telemetry).toBeUndefined()
    await expect(openTelemetry(configured({ ...endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }), '1')).rejects.toThrow(
      "Expected OTEL_EXPORTER_OTLP_PROTOCOL to be http/protobuf or http/json, got 'grpc'.",
    )
  })

  test.each(['http/json', 'http/protobuf'])('in %s', async (protocol) => {
    const came: { path: string; type: string; body: string }[] = []
    const collector = createServer((req, res) => {
      const parts: Buffer[] = []
      req.on('data', (part: Buffer) => parts.push(part))
      req.on('end', () => {
        came.push({ path: req.url ?? '', type: req.headers['content-type'] ?? '', body: Buffer.concat(parts).toString() })
        res.writeHead(200, { 'content-type': 'application/json' }).end('{}')
      })
    })
    await new Promise<void>((listening) => collector.listen(0, '127.0.0.1', listening))
    onTestFinished(() => new Promise((closed) => collector.close(() => closed())))
    const url = `http://127.0.0.1:${(collector.address() as AddressInfo).port}`
    // The exporters read the real environment.
    vi.stubEnv('OTEL_EXPORTER_OTLP_ENDPOINT', url)
    vi.stubEnv('OTEL_RESOURCE_ATTRIBUTES', 'deployment.environment.name=test')
    onTestFinished(() => void vi.unstubAllEnvs())
    const { telemetry, close } = await openTelemetry(
      configured({ OTEL_EXPORTER_OTLP_ENDPOINT: url, OTEL_EXPORTER_OTLP_PROTOCOL: protocol }),
      '1.2.3',
    )
    if (telemetry === undefined) throw new Error('an endpoint is set')
    const served = await serve({ gateway: { telemetry } })
    await (await post(served, '/v1/chat/completions', chat('x'))).text()
    await served.close()
    await close()
    expect(came.map(({ path }) => path).sort()).toEqual(['/v1/metrics', '/v1/traces'])
    const type = protocol === 'http/json' ? 'application/json' : 'application/x-protobuf'
    for (const { type: sent } of came) expect(sent).toBe(type)
    const all = came.map(({ body }) => body).join('')
    for (const name of ['palimpsest', '1.2.3', 'deployment.environment.name', `chat ${MODEL}`, 'gen_ai.server.request.duration'])
      expect(all).toContain(name)
  })
})
