import type { Gateway, Telemetry } from '../../src/gateway.ts'
import { openMetrics } from '../../src/http/observe/metrics.ts'
import { spanObserver } from '../../src/http/observe/spans.ts'
import { code, page, table } from './markdown.ts'

interface Defined {
  readonly name: string
  readonly help: string
  readonly type: string
  readonly labelNames: readonly string[]
  readonly buckets?: readonly number[]
}

/** Metrics as they are registered for Prometheus, and as they are made for OpenTelemetry. */
export function metricsPage(gateway: Gateway): string {
  const defined = openMetrics(gateway).registry.getMetricsAsArray() as unknown as readonly Defined[]
  return page(
    'Metrics',
    'the definitions in `src/http/observe/`',
    'How they are read: [what a running gateway tells](../guide/operations.md).',
    '## Prometheus: `GET /metrics`',
    table(
      ['metric', 'type', 'labels', ''],
      defined.map(({ name, type, labelNames, help }) => [code(name), type, labelNames.map(code).join(', '), help]),
    ),
    'Beside these: `process_…` and `nodejs_…`, which are those of prom-client. No label has a value of a client’s choosing, so the number of series has a bound.',
    '## OpenTelemetry',
    table(
      ['metric', 'type', 'unit'],
      exported(gateway).map(({ name, unit }) => [code(name), 'histogram', code(unit)]),
    ),
  )
}

interface Exported {
  readonly name: string
  readonly unit: string
}

/** What the observer asks a meter for. */
function exported(gateway: Gateway): Exported[] {
  const made: Exported[] = []
  const meter = {
    createHistogram: (name: string, { unit = '' }: { unit?: string } = {}) => {
      made.push({ name, unit })
      return { record: () => {} }
    },
  }
  spanObserver({ ...gateway, telemetry: { meter } as unknown as Telemetry })
  return made
}
