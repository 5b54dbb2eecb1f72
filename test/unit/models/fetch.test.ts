import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { CatalogModel } from '../../../src/models/catalog.ts'
import { ensureModel, type FetchOptions } from '../../../src/models/fetch.ts'
import { ensureModelsShown } from '../../../src/models/fetch-progress.ts'
import { hubSource } from '../../../src/models/hub.ts'
import type { Source } from '../../../src/models/source.ts'
import { Database } from '../../../src/storage/database.ts'
import { lockFile } from '../../../src/storage/file-lock.ts'
import { content, hub, model, scratch } from '../../support/stand-ins/models-stand-ins.ts'

const FILE = content(200_000)
const TOY = model(FILE)
const ROOT = resolve(import.meta.dirname, '../../..')

/** Gives the file without a network, and counts how often it was asked. */
function source(bytes: Buffer = FILE): Source & { asked: number } {
  return {
    name: 'hub',
    described: 'a test',
    asked: 0,
    scratchBytes: () => 0,
    async gather(_model, gatherings, job) {
      this.asked++
      for (const g of gatherings) writeFileSync(g.partPath, bytes)
      job.meter.fetchedBytes += bytes.length
    },
  }
}

function setting(more: Partial<FetchOptions> = {}) {
  const said: string[] = []
  const from = source()
  const home = scratch()
  const options: FetchOptions = { home, sources: [from], log: (l) => said.push(l), catalog: [TOY], ...more }
  return { options, said, from, path: join(home, 'models', 'toy.gguf') }
}

it('names a truncated file and fetches it again', async () => {
  const { options, said, from, path } = setting()
  await ensureModel('toy', options)
  writeFileSync(path, FILE.subarray(0, 150_000))
  expect((await ensureModel('toy', options)).fetchedBytes).toBe(FILE.length)
  expect(said).toContain('models/toy.gguf is 150,000 bytes, expected 200,000: fetching it again')
  expect(readFileSync(path).equals(FILE)).toBe(true)
  expect(from.asked).toBe(2)
})

it('notices a changed byte by the time of change, and fetches again', async () => {
  const { options, said, path } = setting()
  await ensureModel('toy', options)
  const bad = Buffer.from(FILE)
  bad[1_000] = (bad[1_000] ?? 0) ^ 1
  writeFileSync(path, bad)
  utimesSync(path, 1, 1)
  await ensureModel('toy', options)
  expect(said.some((l) => l.startsWith('models/toy.gguf has the right length but sha256'))).toBe(true)
  expect(readFileSync(path).equals(FILE)).toBe(true)
})

it('reads the file once, and afterwards only when asked to', async () => {
  const { options, from, path } = setting()
  await ensureModel('toy', options)
  const { mtimeMs } = statSync(path)
  expect(JSON.parse(readFileSync(`${path}.json`, 'utf8'))).toEqual({ sha256: TOY.sha256, bytes: FILE.length, mtimeMs })
  const bad = Buffer.from(FILE)
  bad[0] = (bad[0] ?? 0) ^ 1
  writeFileSync(path, bad)
  writeFileSync(`${path}.json`, JSON.stringify({ sha256: TOY.sha256, bytes: FILE.length, mtimeMs: statSync(path).mtimeMs }))
  expect((await ensureModel('toy', options)).fetchedBytes).toBe(0)
  expect((await ensureModel('toy', { ...options, verify: true })).fetchedBytes).toBe(FILE.length)
  expect(from.asked).toBe(2)
})

it('takes a file that someone put there, once its checksum is right', async () => {
  const { options, from, path } = setting()
  mkdirSync(join(options.home, 'models'))
  writeFileSync(path, FILE)
  expect((await ensureModel('toy', options)).fetchedBytes).toBe(0)
  expect([from.asked, existsSync(`${path}.json`)]).toEqual([0, true])
})

it('says what to do when no source has it', async () => {
  const { options, path } = setting({ sources: [] })
  await expect(ensureModel('toy', options)).rejects.toMatchObject({
    code: 'network',
    message: expect.stringContaining(`put it at ${path}`),
  })
  await expect(ensureModel('tiy', options)).rejects.toMatchObject({ code: 'model_not_found' })
})

it('says so when the folder cannot be made', async () => {
  const { options } = setting()
  writeFileSync(join(options.home, 'file'), '')
  await expect(ensureModel('toy', { ...options, home: join(options.home, 'file') })).rejects.toMatchObject({
    code: 'storage_failed',
  })
})

it('explains a disk that fills up on the way', async () => {
  const full: Source = { ...source(), gather: () => Promise.reject(Object.assign(new Error('write'), { code: 'ENOSPC' })) }
  await expect(ensureModel('toy', setting({ sources: [full] }).options)).rejects.toMatchObject({ code: 'storage_full' })
})

it('does not try for ever when one of several ingredients is always wrong', async () => {
  const [good, bad] = [content(100), content(100)]
  const b = { path: 'b', bytes: FILE.length, sha256: TOY.sha256 }
  const two: CatalogModel = { ...TOY, convert: 'minilm', ingredients: [...model(good).ingredients, b] }
  const from = source()
  from.gather = async (_model, gatherings) => {
    from.asked++
    gatherings.forEach((g, i) => {
      writeFileSync(g.partPath, i === 0 ? good : bad)
    })
  }
  await expect(ensureModel('toy', setting({ sources: [from], catalog: [two] }).options)).rejects.toMatchObject({
    code: 'network',
  })
  expect(from.asked).toBe(1)
  await expect(ensureModel('toy', setting({ sources: [from], catalog: [two] }).options)).rejects.toThrow('b has sha256')
})

it('shows what it fetched, and nothing when all is there', async () => {
  const { options } = setting()
  const written: string[] = []
  const stream = { write: (text: string) => written.push(text) }
  await ensureModelsShown(['toy'], options, stream)
  expect(written.join('')).toMatch(/Fetching toy\.gguf .*\ntoy: fetched 200,000 bytes in [\d.]+ s, checksum right\n$/)
  written.length = 0
  await ensureModelsShown(['toy'], options, stream)
  expect(written).toEqual([])
})

it('fetches once for two callers at the same time', async () => {
  const { options, from, said } = setting()
  const files = await Promise.all([ensureModel('toy', options), ensureModel('toy', options)])
  expect(files.map((f) => f.fetchedBytes).sort()).toEqual([0, FILE.length])
  expect(from.asked).toBe(1)
  expect(said.some((l) => l.includes(`by process ${process.pid}`))).toBe(true)
})

it('stops waiting for a lock when told to', async () => {
  const path = join(scratch(), 'x.lock')
  const release = await lockFile(path, new AbortController().signal, Date.now, () => {})
  const stop = new AbortController()
  const waiting = lockFile(path, stop.signal, Date.now, () => stop.abort(new Error('enough')))
  await expect(waiting).rejects.toThrow('enough')
  release()
})

it('says who holds a lock, though who has it wrote that late', async () => {
  const path = join(scratch(), 'x.lock')
  const holder = new Database(path, { timeoutMs: 0 })
  holder.exec('BEGIN EXCLUSIVE')
  const told: string[] = []
  const waiting = lockFile(path, new AbortController().signal, Date.now, (who) => {
    told.push(who)
    holder.close()
  })
  // Two looks have found no note by then.
  await sleep(400)
  writeFileSync(`${path}.json`, JSON.stringify({ pid: 42, since: 0 }))
  ;(await waiting)()
  expect(told).toEqual(['process 42 (since 1970-01-01T00:00:00.000Z)'])
})

/** Node 20 runs no TypeScript, so the processes below run a compiled copy, put where it finds the native modules. */
let compiled: string
beforeAll(() => {
  mkdirSync(join(ROOT, 'node_modules', '.cache'), { recursive: true })
  compiled = mkdtempSync(join(ROOT, 'node_modules', '.cache', 'models-test-'))
  const flags = [
    '--ignoreConfig',
    '--skipLibCheck',
    '--target',
    'es2023',
    '--module',
    'nodenext',
    '--types',
    'node',
    '--rewriteRelativeImportExtensions',
  ]
  const args = [
    ...flags,
    '--rootDir',
    join(ROOT, 'src'),
    '--outDir',
    join(compiled, 'dist'),
    join(ROOT, 'src/models/fetch-progress.ts'),
    join(ROOT, 'src/models/hub.ts'),
  ]
  const { status, stdout } = spawnSync(process.execPath, [join(ROOT, 'node_modules/typescript/bin/tsc'), ...args], {
    cwd: ROOT,
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(stdout)
  writeFileSync(join(compiled, 'package.json'), '{"type":"module"}')
  cpSync(join(ROOT, 'calibration/reader.json'), join(compiled, 'calibration/reader.json'))
}, 60_000)
afterAll(() => rmSync(compiled, { recursive: true, force: true }))

/** A process that fetches the toy model; `said` is what it printed. */
function fetcher(home: string, endpoint: string) {
  const from = (name: string) => JSON.stringify(pathToFileURL(join(compiled, 'dist', 'models', name)).href)
  const script = `
    import { ensureModel } from ${from('fetch.js')}
    import { hubSource } from ${from('hub.js')}
    const log = (l) => console.log(l)
    const file = await ensureModel('toy', { home: ${JSON.stringify(home)}, sources: [hubSource({ endpoint: '${endpoint}' })], log, catalog: [${JSON.stringify(TOY)}] })
    console.log('fetched ' + file.fetchedBytes)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const out = { child, said: '', ended: once(child, 'close') }
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out.said += text
  })
  return out
}

it('fetches once for two processes, the second saying for whom it waits', async () => {
  let go: (() => void) | undefined
  const { endpoint, asked } = await hub(FILE, (_req, res) => {
    go = () => res.writeHead(200, { 'content-length': FILE.length }).end(FILE)
    return true
  })
  const home = scratch()
  const pair = [fetcher(home, endpoint), fetcher(home, endpoint)]
  await expect.poll(() => pair.some((p) => p.said.includes('waiting for it')) && go !== undefined, { timeout: 20_000 }).toBe(true)
  const first = pair.find((p) => !p.said.includes('waiting for it'))
  expect(pair.some((p) => p.said.includes(`process ${first?.child.pid} `))).toBe(true)
  go?.()
  await Promise.all(pair.map((p) => p.ended))
  expect(pair.map((p) => /fetched (\d+)/.exec(p.said)?.[1]).sort()).toEqual(['0', String(FILE.length)])
  expect(asked).toHaveLength(1)
}, 40_000)

it('takes over from a process that was killed, and goes on where it stopped', async () => {
  const { endpoint, asked } = await hub(FILE, (_req, res, count) => {
    if (count > 1) return false
    res.writeHead(200, { 'content-length': FILE.length })
    res.write(FILE.subarray(0, 100_000))
    return true
  })
  const { options, path } = setting({ sources: [hubSource({ endpoint })] })
  const doomed = fetcher(options.home, endpoint)
  await expect.poll(() => existsSync(`${path}.part`) && statSync(`${path}.part`).size, { timeout: 20_000 }).toBe(100_000)
  doomed.child.kill('SIGKILL')
  await doomed.ended
  expect((await ensureModel('toy', options)).fetchedBytes).toBe(100_000)
  expect(asked.map((a) => a.range)).toEqual([undefined, 'bytes=100000-'])
  expect(readFileSync(path).equals(FILE)).toBe(true)
}, 40_000)
