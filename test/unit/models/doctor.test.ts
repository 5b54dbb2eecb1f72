import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { checkTable, doctor } from '../../../src/cli/doctor.ts'
import { catalogModel, EMBEDDER_MODEL } from '../../../src/models/catalog.ts'
import { scratch } from '../../support/stand-ins/models-stand-ins.ts'

it('sets the advice below what it is for', () => {
  const table = checkTable([
    { state: 'ok', what: 'Node', found: '20.1.0' },
    { state: 'missing', what: 'Python', found: 'not found', mend: 'Install it.' },
  ])
  expect(table).toEqual(['ok       Node    20.1.0', 'MISSING  Python  not found', '                 Install it.'])
})

it('names each thing that is missing, and how to mend it', async () => {
  const home = scratch()
  mkdirSync(join(home, 'models'))
  writeFileSync(join(home, 'models', catalogModel(EMBEDDER_MODEL).file), 'cut short')
  writeFileSync(join(home, 'file'), '')
  const server = createServer()
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  onTestFinished(() => void server.close())
  const { port } = server.address() as { port: number }
  let said = ''
  const out = { write: (text: string) => (said += text) }
  const dataDir = join(home, 'file', 'data')
  const code = await doctor({
    home,
    dataDir,
    host: '127.0.0.1',
    port,
    verify: false,
    python: '/nowhere/python3',
    wanted: 'gpt-9',
    out,
    now: Date.now,
  })
  expect(code).toBe(1)
  expect(said).toMatch(/^ok {7}@photostructure\/sqlite +SQLite 3/m)
  expect(said).toMatch(/^ok {7}usearch /m)
  expect(said).toMatch(/^ok {7}node-llama-cpp /m)
  expect(said).toMatch(/^-- {7}Python and pip +\/nowhere\/python3 -m pip does not run/m)
  expect(said).toMatch(/^MISSING {2}Model to serve +There is no model "gpt-9"/m)
  expect(said).toMatch(
    /^MISSING {2}Model multilingual-e5-small +models\/multilingual-e5-small-q4_0\.gguf is 9 bytes, expected 73,568,768\n +The next start fetches it again/m,
  )
  expect(said).toMatch(/^MISSING {2}Data folder .* cannot be written/m)
  expect(said).toMatch(/^MISSING {2}Port \d+ on 127\.0\.0\.1 +in use by another program/m)
  expect(said).toContain('4 missing: see above.')
}, 60_000)
