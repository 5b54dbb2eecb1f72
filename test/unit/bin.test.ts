import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const ROOT = join(import.meta.dirname, '../..')

test('what a clone’s first start takes from the build has its source where it says', () => {
  const bin = readFileSync(join(ROOT, 'bin/palimpsest.mjs'), 'utf8')
  const listed = [...bin.matchAll(/fromDist\('([^']+)\.js'\)/g)].map(([, path]) => path)
  const models = [...(bin.match(/\[([^\]]*)\]\.map\(\(name\) => fromDist/)?.[1] ?? '').matchAll(/'([^']+)'/g)].map(
    ([, name]) => `models/${name}`,
  )
  expect(models.length).toBeGreaterThan(3)
  expect([...listed, ...models].filter((path) => !existsSync(join(ROOT, 'src', `${path}.ts`)))).toEqual([])
})
