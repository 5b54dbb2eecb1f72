import { createHash, randomBytes } from 'node:crypto'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { deflateRawSync, gzipSync } from 'node:zlib'
import { onTestFinished } from 'vitest'
import type { Carrier, CatalogModel } from '../../../src/models/catalog.ts'

export const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

/** A folder that goes when the test ends. */
export function scratch(): string {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-models-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export const content = (bytes: number): Buffer => randomBytes(bytes)

/** A catalogue entry for a made-up file. */
export function model(bytes: Buffer, carriers: readonly Carrier[] = []): CatalogModel {
  const of = { bytes: bytes.length, sha256: sha256(bytes) }
  return {
    name: 'toy',
    file: 'toy.gguf',
    family: 'chatml',
    ...of,
    hub: { repository: 'someone/toy', revision: 'main' },
    ingredients: [{ path: 'toy.gguf', ...of }],
    convert: 'none',
    carriers,
  }
}

export interface Asked {
  readonly url: string
  readonly range: string | undefined
  readonly authorization: string | undefined
}

/** A hub on the loopback interface. `answer` may deal with a request itself and return true; otherwise `file` is served, by range. */
export async function hub(
  file: Buffer,
  answer: (req: IncomingMessage, res: ServerResponse, count: number) => boolean = () => false,
) {
  const asked: Asked[] = []
  const server: Server = createServer((req, res) => {
    asked.push({ url: req.url ?? '', range: req.headers.range, authorization: req.headers.authorization })
    if (!answer(req, res, asked.length)) serveRange(file, req, res)
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  onTestFinished(() => void server.close().closeAllConnections())
  return { endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked }
}

export function serveRange(file: Buffer, req: IncomingMessage, res: ServerResponse): void {
  const from = Number(/bytes=(\d+)-/.exec(req.headers.range ?? '')?.[1] ?? -1)
  if (from >= file.length) return void res.writeHead(416, { 'content-range': `bytes */${file.length}` }).end()
  if (from < 0) return void res.writeHead(200, { 'content-length': file.length }).end(file)
  res
    .writeHead(206, { 'content-length': file.length - from, 'content-range': `bytes ${from}-${file.length - 1}/${file.length}` })
    .end(file.subarray(from))
}

/** Announces the whole file, sends a part of it and breaks the connection. */
export function cut(file: Buffer, sent: number, res: ServerResponse): boolean {
  res.writeHead(200, { 'content-length': file.length })
  res.write(file.subarray(0, sent), () => setTimeout(() => res.destroy(), 20))
  return true
}

function u16(value: number): Buffer {
  const b = Buffer.alloc(2)
  b.writeUInt16LE(value)
  return b
}

function u32(value: number): Buffer {
  const b = Buffer.alloc(4)
  b.writeUInt32LE(value >>> 0)
  return b
}

/** A zip archive with deflated entries, as a wheel is. */
export function zip(files: Readonly<Record<string, Buffer>>): Buffer {
  const locals: Buffer[] = []
  const central: Buffer[] = []
  let offset = 0
  for (const [path, bytes] of Object.entries(files)) {
    const name = Buffer.from(path)
    const packed = deflateRawSync(bytes)
    const gz = gzipSync(bytes)
    const shared = [
      u16(20),
      u16(0),
      u16(8),
      u32(0),
      gz.subarray(gz.length - 8, gz.length - 4),
      u32(packed.length),
      u32(bytes.length),
      u16(name.length),
      u16(0),
    ]
    const local = Buffer.concat([u32(0x04034b50), ...shared, name, packed])
    central.push(Buffer.concat([u32(0x02014b50), u16(20), ...shared, u16(0), u16(0), u16(0), u32(0), u32(offset), name]))
    locals.push(local)
    offset += local.length
  }
  const table = Buffer.concat(central)
  const end = Buffer.concat([
    u32(0x06054b50),
    u16(0),
    u16(0),
    u16(central.length),
    u16(central.length),
    u32(table.length),
    u32(offset),
    u16(0),
  ])
  return Buffer.concat([...locals, table, end])
}

/**
 * A `python3` that knows `-m pip download` alone: it copies the wheel from a folder of wheels, and writes down what it was asked for.
 * `FAIL_ONCE` names a package whose first download breaks; `SAYS` is printed instead of doing anything.
 */
const FAKE_PYTHON = `#!${process.execPath}
const fs = require('node:fs'), path = require('node:path')
const args = process.argv.slice(2)
const spec = args.at(-1), [name] = spec.split('==')
fs.appendFileSync(process.env.CALLS, JSON.stringify({ args, tmpdir: process.env.TMPDIR }) + '\\n')
if (process.env.SAYS) { console.error(process.env.SAYS); process.exit(1) }
const once = process.env.CALLS + '.failed'
if (process.env.FAIL_ONCE === name && !fs.existsSync(once)) { fs.writeFileSync(once, ''); console.error('ERROR: the connection broke'); process.exit(1) }
const wheel = spec.replaceAll('-', '_').replace('==', '-') + '-py3-none-any.whl'
fs.copyFileSync(path.join(process.env.WHEELS, wheel), path.join(args[args.indexOf('--dest') + 1], wheel))
`

export function fakePython(wheels: Readonly<Record<string, Buffer>>, environment: Record<string, string> = {}) {
  const folder = scratch()
  const python = join(folder, 'python3')
  const calls = join(folder, 'calls')
  writeFileSync(python, FAKE_PYTHON)
  chmodSync(python, 0o755)
  mkdirSync(join(folder, 'wheels'))
  writeFileSync(calls, '')
  for (const [name, bytes] of Object.entries(wheels)) writeFileSync(join(folder, 'wheels', name), bytes)
  return { python, calls, retryMs: 1, environment: { ...environment, CALLS: calls, WHEELS: join(folder, 'wheels') } }
}
