import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { ensureModel, type FetchOptions } from '../../../src/models/fetch.ts'
import { type HubOptions, hubSource } from '../../../src/models/hub.ts'
import type { Progress } from '../../../src/models/meter.ts'
import { content, cut, hub, model, scratch, serveRange, sha256 } from '../../support/stand-ins/models-stand-ins.ts'

const FILE = content(300_000)
const TOY = model(FILE)

function options(hubOptions: HubOptions, more: Partial<FetchOptions> = {}) {
  const said: string[] = []
  const home = scratch()
  const fetchOptions: FetchOptions = {
    home,
    sources: [hubSource({ retryMs: 1, ...hubOptions })],
    log: (l) => said.push(l),
    catalog: [TOY],
    ...more,
  }
  return { fetchOptions, said, path: join(home, 'models', 'toy.gguf') }
}

it('fetches a file, reports progress, and does not ask the hub again', async () => {
  const { endpoint, asked } = await hub(FILE)
  const progress: Progress[] = []
  const { fetchOptions, path } = options({ endpoint: `${endpoint}/` }, { onProgress: (p) => progress.push(p) })
  expect(await ensureModel('toy', fetchOptions)).toEqual({
    path,
    sha256: TOY.sha256,
    bytes: FILE.length,
    fetchedBytes: FILE.length,
  })
  expect(readFileSync(path).equals(FILE)).toBe(true)
  expect(existsSync(`${path}.part`)).toBe(false)
  expect(asked.map((a) => a.url)).toEqual(['/someone/toy/resolve/main/toy.gguf'])
  expect(progress.filter((p) => p.source === 'hub').at(-1)).toMatchObject({
    file: 'toy.gguf',
    bytesDone: FILE.length,
    bytesTotal: FILE.length,
  })
  expect((await ensureModel('TOY', fetchOptions)).fetchedBytes).toBe(0)
  expect(asked).toHaveLength(1)
})

it('follows redirects to another host and keeps the token from it', async () => {
  const store = await hub(FILE)
  const front = await hub(FILE, (_req, res) => {
    res.writeHead(302, { location: `${store.endpoint}/blob?sig=x`, 'x-linked-etag': `"${sha256(FILE)}"` }).end()
    return true
  })
  const { fetchOptions } = options({ endpoint: front.endpoint, token: 'secret' })
  expect((await ensureModel('toy', fetchOptions)).bytes).toBe(FILE.length)
  expect(front.asked[0]?.authorization).toBe('Bearer secret')
  expect(store.asked).toEqual([{ url: '/blob?sig=x', range: undefined, authorization: undefined }])
})

it('resumes where a cut connection left off', async () => {
  const { endpoint, asked } = await hub(FILE, (_req, res, count) => count === 1 && cut(FILE, 100_000, res))
  const { fetchOptions, path } = options({ endpoint })
  const { fetchedBytes } = await ensureModel('toy', fetchOptions)
  expect(asked.map((a) => a.range)).toEqual([undefined, 'bytes=100000-'])
  expect(fetchedBytes).toBe(FILE.length)
  expect(readFileSync(path).equals(FILE)).toBe(true)
})

it('goes on with what an earlier process had fetched', async () => {
  const { endpoint, asked } = await hub(FILE)
  const { fetchOptions, path } = options({ endpoint })
  mkdirSync(join(fetchOptions.home, 'models'))
  writeFileSync(`${path}.part`, FILE.subarray(0, 250_000))
  expect((await ensureModel('toy', fetchOptions)).fetchedBytes).toBe(50_000)
  expect(asked[0]?.range).toBe('bytes=250000-')
})

it('starts over when what was there turns out to be bad', async () => {
  const { endpoint, asked } = await hub(FILE)
  const { fetchOptions, said, path } = options({ endpoint })
  mkdirSync(join(fetchOptions.home, 'models'))
  writeFileSync(`${path}.part`, content(250_000))
  await ensureModel('toy', fetchOptions)
  expect(readFileSync(path).equals(FILE)).toBe(true)
  expect(asked.map((a) => a.range)).toEqual(['bytes=250000-', undefined])
  expect(said.join('\n')).toContain('fetching it again from the beginning')
})

it('takes a server that ignores ranges', async () => {
  const { endpoint } = await hub(FILE, (_req, res) => {
    res.writeHead(200, { 'content-length': FILE.length }).end(FILE)
    return true
  })
  const { fetchOptions, path } = options({ endpoint })
  mkdirSync(join(fetchOptions.home, 'models'))
  writeFileSync(`${path}.part`, FILE.subarray(0, 1_000))
  await ensureModel('toy', fetchOptions)
  expect(readFileSync(path).equals(FILE)).toBe(true)
})

it('cuts a download that stands still, and resumes it', async () => {
  const { endpoint, asked } = await hub(FILE, (_req, res, count) => {
    if (count > 1) return false
    res.writeHead(200, { 'content-length': FILE.length })
    res.write(FILE.subarray(0, 100_000))
    return true
  })
  const { fetchOptions } = options({ endpoint, stallMs: 100 })
  await ensureModel('toy', fetchOptions)
  expect(asked.map((a) => a.range)).toEqual([undefined, 'bytes=100000-'])
})

it('refuses bytes with another checksum, and leaves nothing behind', async () => {
  const { endpoint } = await hub(content(FILE.length))
  const { fetchOptions, path } = options({ endpoint })
  await expect(ensureModel('toy', fetchOptions)).rejects.toMatchObject({
    code: 'network',
    message: expect.stringContaining(`expected ${TOY.sha256.slice(0, 12)}`),
  })
  expect([existsSync(path), existsSync(`${path}.part`)]).toEqual([false, false])
})

it.each([
  ['length', content(FILE.length + 1), {}, 'it is another file'],
  ['announced checksum', FILE, { 'x-linked-etag': 'f'.repeat(64) }, 'it is another file'],
])('does not fetch a file of another %s', async (_what, served, headers, message) => {
  const { endpoint } = await hub(served, (req, res) => {
    for (const [k, v] of Object.entries(headers)) res.setHeader(k, v)
    serveRange(served, req, res)
    return true
  })
  const { fetchOptions } = options({ endpoint })
  await expect(ensureModel('toy', fetchOptions)).rejects.toThrow(message)
})

it.each([
  [401, 'HF_TOKEN'],
  [403, 'HF_TOKEN'],
  [404, 'there is no such file'],
  [503, 'it answered 503'],
])('says what a %i means, and asks once only', async (status, message) => {
  const { endpoint, asked } = await hub(FILE, (_req, res) => {
    res.writeHead(status).end()
    return true
  })
  const { fetchOptions } = options({ endpoint })
  await expect(ensureModel('toy', fetchOptions)).rejects.toMatchObject({
    code: 'network',
    message: expect.stringContaining(message),
  })
  expect(asked).toHaveLength(1)
})

it('gives up on a hub that never answers, and does not ask it for the next file', async () => {
  const { endpoint, asked } = await hub(FILE, () => true)
  const { fetchOptions } = options({ endpoint, reachMs: 50 })
  for (let i = 0; i < 2; i++) await expect(ensureModel('toy', fetchOptions)).rejects.toThrow('cannot be reached')
  expect(asked).toHaveLength(1)
})

it('stops when told to, keeping what came', async () => {
  const stop = new AbortController()
  const { endpoint } = await hub(FILE, (_req, res) => {
    res.writeHead(200, { 'content-length': FILE.length })
    res.write(FILE.subarray(0, 100_000), () => setTimeout(() => stop.abort(new Error('enough')), 50))
    return true
  })
  const { fetchOptions, path } = options({ endpoint }, { signal: stop.signal })
  await expect(ensureModel('toy', fetchOptions)).rejects.toThrow('enough')
  expect(readFileSync(`${path}.part`).equals(FILE.subarray(0, 100_000))).toBe(true)
})
