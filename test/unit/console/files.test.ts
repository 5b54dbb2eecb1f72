import { posix } from 'node:path'
import { expect, test } from 'vitest'
import { readWebFiles } from '../../../src/console/files.ts'

test('whatever the console’s page and scripts ask for is served', () => {
  const { files } = readWebFiles()
  const text = (name: string) => files.get(name)?.body.toString('utf8') ?? ''
  const own = [...files.keys()].filter((name) => name.endsWith('.js') && !name.startsWith('vendor/'))
  const asked = own.flatMap((name) =>
    [...text(name).matchAll(/(?:from |import\()'(\.[^']+)'/g)].map(([, path]) => posix.join(posix.dirname(name), path as string)),
  )
  const linked = [...text('index.html').matchAll(/\{\{assets\}\}\/([^"]+)"/g)].map(([, path]) => path as string)
  expect(own.length).toBeGreaterThan(30)
  expect([...asked, ...linked].filter((path) => !files.has(path))).toEqual([])
})
