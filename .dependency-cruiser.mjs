/**
 * Who may import whom, from the top down: a file imports from layers below its own, or from its own room. Biome finds circles, knip what is dead.
 * `npx depcruise src` is part of `npm run lint`.
 */
const LAYERS = [
  ['main.ts'],
  ['cli'],
  ['server'],
  ['app.ts'],
  ['http', 'console'],
  ['backup'],
  // A hand-off is evaluated stage by stage, and spoken to over HTTP.
  ['handoff'],
  ['evaluate'],
  ['wire'],
  ['compare.ts'],
  ['complete-text.ts'],
  ['pipeline.ts'],
  ['assign.ts', 'plan.ts'],
  ['gateway.ts', 'config.ts'],
  ['config-values.ts'],
  ['selection'],
  ['adapters'],
  ['memory', 'prompt', 'experiment', 'models', 'access'],
  ['engine'],
  ['edit'],
  ['storage', 'terminal'],
  ['trace.ts'],
  ['request.ts', 'errors.ts', 'logger.ts', 'package-root.ts'],
]

/** Within a room: what stands left knows nothing of what stands right. */
const WITHIN = [
  ['engine/(format|output|grammar|gguf|scheduling)', 'engine/(embedded|llama-server|upstream)'],
  ['memory/log', 'memory/(files|graph|vectors)'],
  ['memory/graph', 'memory/(files|log|vectors)'],
  ['memory/vectors', 'memory/files'],
  ['cli/text', 'cli/(chat|check|client|eval|handoff)'],
  ['http/(request|reply|observe)', 'http/(inference|edits|experiments)'],
  ['experiment/(statistics|ledger)', 'experiment/(rollout|replay)'],
  ['evaluate/(data|probes)', 'evaluate/(protocols|report)'],
  ['handoff/(editor|exchange)', 'handoff/stages'],
  ['models/packages', 'models/default-model\\.ts'],
  ['console/web/(shell/(?!app\\.js)|vendor)', 'console/web/(playground|edits|experiments|evaluation|handoff|live)'],
]

const units = (layers) => `^src/(${layers.flat().join('|').replaceAll('.', '\\.')})(/|$)`

/** @type {import('dependency-cruiser').IConfiguration} */
export default {
  forbidden: [
    ...LAYERS.slice(1).map((layer, i) => ({
      name: `not-up-from-${layer[0]}`,
      severity: 'error',
      from: { path: units([layer]) },
      to: { path: units(LAYERS.slice(0, i + 1)) },
    })),
    ...LAYERS.filter((layer) => layer.length > 1).map((layer) => ({
      name: `not-sideways-in-${layer[0]}`,
      severity: 'error',
      from: { path: units([layer]) },
      to: { path: units([layer]), pathNot: '^src/$1(/|$)' },
    })),
    ...WITHIN.map(([from, to]) => ({
      name: `not-from-${from}-to-${to}`,
      severity: 'error',
      from: { path: `^src/${from}` },
      to: { path: `^src/${to}` },
    })),
    {
      name: 'every-file-has-a-layer',
      severity: 'error',
      from: { path: '^src/' },
      to: { path: '^src/', pathNot: units(LAYERS) },
    },
    {
      name: 'no-private-files-of-llama',
      comment: 'What node-llama-cpp does not show is reached for in src/engine/embedded/native.ts, which asserts the version.',
      severity: 'error',
      from: { path: '^src/' },
      to: { path: 'node_modules/node-llama-cpp/dist/(?!index)' },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    parser: 'swc',
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { extensions: ['.ts', '.js'] },
  },
}
