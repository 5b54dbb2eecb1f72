import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const ROOT = join(import.meta.dirname, '../..')

test('what the tests’ set-up takes from the build has its source where it says', () => {
  const script = readFileSync(join(ROOT, 'scripts/test.mjs'), 'utf8')
  const listed = [...script.matchAll(/fromDist\('([^']+)\.js'\)/g)].map(([, path]) => path)
  const models = [...(script.match(/\[([^\]]*)\]\.map\(\(name\) => fromDist/)?.[1] ?? '').matchAll(/'([^']+)'/g)].map(
    ([, name]) => `models/${name}`,
  )
  expect([listed.length, models.length]).toEqual([3, 4])
  expect([...listed, ...models].filter((path) => !existsSync(join(ROOT, 'src', `${path}.ts`)))).toEqual([])
})

test('the package holds what a gateway reads, and nothing that only a clone needs', () => {
  const args = ['pack', '--dry-run', '--json', '--ignore-scripts']
  const [packed] = JSON.parse(
    execFileSync('npm', args, { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }),
  ) as {
    files: { path: string }[]
  }[]
  const paths = packed?.files.map(({ path }) => path) ?? []
  const needed = ['bin/palimpsest.mjs', 'calibration/gate.json', 'calibration/nearness.json', 'calibration/reader.safetensors']
  const read = [
    'src/console/web/index.html',
    'templates/facts.hbs',
    'editor/pyproject.toml',
    'editor/palimpsest_editor/__main__.py',
  ]
  const told = ['LICENSE', 'README.md', 'CHANGELOG.md']
  expect(paths).toEqual(expect.arrayContaining([...needed, ...read, ...told]))
  const room = /^(?:bin|calibration|dist|templates|editor\/palimpsest_editor|src\/console\/web)\//
  const alone = [...told, 'package.json', 'editor/pyproject.toml']
  expect(paths.filter((path) => !(room.test(path) || alone.includes(path)) || /\.(?:map|ts|stamp)$/.test(path))).toEqual([])
}, 180_000)
