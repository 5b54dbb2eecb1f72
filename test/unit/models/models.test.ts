import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { PalimpsestError } from '../../../src/errors.ts'
import { defaultHome } from '../../../src/models/cache-folder.ts'
import { CATALOG, CPU_MODEL, GPU_MODEL, SMALL_MODEL } from '../../../src/models/catalog.ts'
import { chooseModel } from '../../../src/models/default-model.ts'
import { parseNvidia } from '../../../src/models/hardware.ts'
import { Meter, type Progress } from '../../../src/models/meter.ts'
import { ggufPieces, toHalf } from '../../../src/models/packages/gguf-writer.ts'
import { convertMinilm } from '../../../src/models/packages/minilm.ts'
import { Bar, progressLine } from '../../../src/terminal/progress-bar.ts'
import { scratch, sha256 } from '../../support/stand-ins/models-stand-ins.ts'

const nothing = () => false
const gpu = (gigabytes: number) => ({ name: 'RTX', freeVramBytes: gigabytes * 1e9 })

it('chooses by what the machine has', () => {
  const names = [
    chooseModel({ gpu: gpu(8), freeMemoryBytes: 1e9 }, nothing),
    chooseModel({ gpu: gpu(6), freeMemoryBytes: 4e9 }, nothing),
    chooseModel({ gpu: null, freeMemoryBytes: 4e9 }, nothing),
    chooseModel({ gpu: null, freeMemoryBytes: 2e9, wanted: '' }, nothing),
  ]
  expect(names.map((c) => (c.kind === 'catalog' ? c.name : c.kind))).toEqual([GPU_MODEL, CPU_MODEL, CPU_MODEL, SMALL_MODEL])
  expect(names[1]?.why).toBe(`RTX has only 6.0 GB free; ${CPU_MODEL} runs well on the processor.`)
})

it('takes what the user names', () => {
  const wanted = (name: string) => chooseModel({ gpu: null, freeMemoryBytes: 4e9, wanted: name }, (path) => path === './weights')
  expect(wanted('./weights')).toMatchObject({ kind: 'file', path: './weights' })
  expect(wanted('/x/Y.GGUF')).toMatchObject({ kind: 'file', path: '/x/Y.GGUF' })
  expect(wanted('http://127.0.0.1:8000/v1')).toMatchObject({ kind: 'upstream', url: 'http://127.0.0.1:8000/v1' })
  expect(wanted('Llama-2-7B-Chat')).toMatchObject({ kind: 'catalog', name: 'llama-2-7b-chat' })
  expect(() => wanted('gpt-9')).toThrow('There is no model "gpt-9". Expected a GGUF file')
  expect(() => wanted('all-minilm-l6-v2')).toThrow(PalimpsestError)
})

it('finds the cache folder', () => {
  expect(defaultHome({ PALIMPSEST_HOME: '/p', XDG_CACHE_HOME: '/x' }, 'linux', '/u')).toBe('/p')
  expect(defaultHome({ XDG_CACHE_HOME: '/x' }, 'linux', '/u')).toBe('/x/palimpsest')
  expect(defaultHome({ XDG_CACHE_HOME: '' }, 'linux', '/u')).toBe('/u/.cache/palimpsest')
  expect(defaultHome({}, 'darwin', '/u')).toBe('/u/Library/Caches/palimpsest')
})

it('reads what nvidia-smi prints', () => {
  expect(parseNvidia('NVIDIA H100 80GB HBM3, 80995\nOther, 1\n')).toEqual({
    name: 'NVIDIA H100 80GB HBM3',
    freeVramBytes: 80995 * 1024 * 1024,
  })
  expect(parseNvidia('')).toBeNull()
})

it('has names, files and checksums without doubles', () => {
  for (const key of ['name', 'file', 'sha256'] as const) expect(new Set(CATALOG.map((m) => m[key])).size).toBe(CATALOG.length)
  for (const m of CATALOG) for (const { sha256: sum } of [m, ...m.ingredients]) expect(sum).toMatch(/^[0-9a-f]{64}$/)
})

const STEP = { label: 'model.gguf', done: 46_000_000, total: 100_000_000, unit: 'bytes', perSecond: 12_345_678, secondsLeft: 4.4 }

it('draws progress in as much room as there is', () => {
  expect(progressLine(STEP, 100)).toBe('model.gguf [###########-------------]  46%  46/100 MB  12.3 MB/s  0:04 left')
  expect(progressLine(STEP, 60)).toBe('model.gguf   46%  46/100 MB  12.3 MB/s  0:04 left')
  expect(progressLine(STEP, 46)).toBe('model.…   46%  46/100 MB  12.3 MB/s  0:04 left')
  for (let columns = 5; columns < 120; columns++) expect(progressLine(STEP, columns).length).toBeLessThanOrEqual(columns)
  const edits = { label: 'landing', done: 1_500, total: null, unit: 'edits', perSecond: 0, secondsLeft: 3_725 }
  expect(progressLine(edits, 80)).toBe('landing  1,500 edits  1:02:05 left')
  expect(progressLine({ ...STEP, done: 0, total: 0, perSecond: 0, secondsLeft: null }, 80)).toBe('model.gguf  0/0 MB')
})

function bar(isTTY: boolean) {
  const written: string[] = []
  const clock = { ms: 0 }
  return { written, clock, bar: new Bar({ write: (t) => written.push(t), isTTY, columns: 200 }, () => clock.ms) }
}

it('redraws one line on a terminal, ten times a second at most', () => {
  const t = bar(true)
  for (t.clock.ms = 0; t.clock.ms < 1_000; t.clock.ms += 10) t.bar.update(STEP)
  expect(t.written).toHaveLength(10)
  expect(t.written.every((w) => w.startsWith('\r\u001b[K') && !w.includes('\n'))).toBe(true)
  t.bar.log('a word')
  expect(t.written.slice(-2)).toEqual(['\r\u001b[K', 'a word\n'])
})

it('prints a line every five seconds elsewhere, and none for what is over sooner', () => {
  const t = bar(false)
  for (t.clock.ms = 0; t.clock.ms < 12_000; t.clock.ms += 100) t.bar.update(STEP)
  expect(t.written).toEqual([`${progressLine(STEP, 120)}\n`, `${progressLine(STEP, 120)}\n`])
  t.bar.update({ ...STEP, label: 'another' })
  expect(t.written).toHaveLength(2)
})

it('measures the rate over the last seconds', () => {
  const seen: Progress[] = []
  let ms = 0
  const meter = new Meter(
    'f',
    () => ms,
    (p) => seen.push(p),
  )
  meter.begin('hub', 500, 10_000)
  for (ms = 1_000; ms <= 5_000; ms += 1_000) meter.at(500 + ms)
  expect(seen.at(-1)).toEqual({
    file: 'f',
    source: 'hub',
    bytesDone: 5_500,
    bytesTotal: 10_000,
    bytesPerSecond: 1_000,
    secondsLeft: 4.5,
  })
  ms = 5_010
  meter.at(5_600)
  expect(seen.at(-1)?.bytesDone).toBe(5_500)
  meter.at(10_000)
  expect(seen.at(-1)?.bytesDone).toBe(10_000)
})

it('rounds to half precision as IEEE 754 asks', () => {
  const cases: [number, number][] = [
    [0, 0x0000],
    [-0, 0x8000],
    [1, 0x3c00],
    [-2, 0xc000],
    [65504, 0x7bff],
    [65519.99, 0x7bff],
    [65520, 0x7c00],
    [1e9, 0x7c00],
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
    [2 ** -14, 0x0400],
    [2 ** -24, 0x0001],
    [2 ** -25, 0x0000],
    [1.5 * 2 ** -25, 0x0001],
    [2 ** -14 - 2 ** -26, 0x0400],
    [Number.POSITIVE_INFINITY, 0x7c00],
  ]
  expect([...toHalf(Float32Array.from(cases.map(([x]) => x)))]).toEqual(cases.map(([, h]) => h))
  expect((toHalf(Float32Array.of(Number.NaN))[0] ?? 0) & 0x7fff).toBeGreaterThan(0x7c00)
})

it('lays a GGUF file out as the format says', () => {
  const file = Buffer.concat(
    ggufPieces(
      [['k', { type: 'string', value: 'é' }]],
      [
        { name: 't', shape: [2, 1], type: 'f32', data: new Uint8Array(8).fill(7) },
        { name: 'u', shape: [1], type: 'f16', data: new Uint8Array(2) },
      ],
    ),
  )
  expect(file.toString('latin1', 0, 4)).toBe('GGUF')
  expect([file.readUInt32LE(4), Number(file.readBigUInt64LE(8)), Number(file.readBigUInt64LE(16))]).toEqual([3, 2, 1])
  // Key, type 8 (string), value of two bytes; then the table: name, dimensions, type, offset.
  expect(file.subarray(24, 47)).toEqual(
    Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, 0x6b, 8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0xc3, 0xa9]),
  )
  expect(file.length % 32).toBe(0)
  expect([...file.subarray(file.length - 64, file.length - 54)]).toEqual([7, 7, 7, 7, 7, 7, 7, 7, 0, 0])
})

/** The embedder's weights with every number 0.5, and a small vocabulary. */
function toyWeights(): Buffer {
  const shapes: Record<string, number[]> = {
    'embeddings.word_embeddings.weight': [4, 2],
    'embeddings.position_embeddings.weight': [3, 2],
    'embeddings.token_type_embeddings.weight': [2, 2],
    'embeddings.LayerNorm.weight': [2],
    'embeddings.LayerNorm.bias': [2],
  }
  const parts = [
    'attention.self.query',
    'attention.self.key',
    'attention.self.value',
    'attention.output.dense',
    'attention.output.LayerNorm',
    'intermediate.dense',
    'output.dense',
    'output.LayerNorm',
  ]
  for (let i = 0; i < 6; i++)
    for (const p of parts)
      Object.assign(shapes, { [`encoder.layer.${i}.${p}.weight`]: [2, 2], [`encoder.layer.${i}.${p}.bias`]: [2] })
  const header: Record<string, object> = {}
  let at = 0
  for (const [name, shape] of Object.entries(shapes)) {
    const end = at + 4 * shape.reduce((a, b) => a * b)
    header[name] = { dtype: 'F32', shape, data_offsets: [at, end] }
    at = end
  }
  const json = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  return Buffer.concat([length, json, Buffer.from(new Float32Array(at / 4).fill(0.5).buffer)])
}

it('converts the embedder the same way every time', async () => {
  const folder = scratch()
  const [weights, vocabulary] = [join(folder, 'w'), join(folder, 'v')]
  writeFileSync(weights, toyWeights())
  writeFileSync(vocabulary, '[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhell\n##o\n')
  await convertMinilm(weights, vocabulary, join(folder, 'a'))
  await convertMinilm(weights, vocabulary, join(folder, 'b'))
  const file = readFileSync(join(folder, 'a'))
  expect(sha256(file)).toBe(sha256(readFileSync(join(folder, 'b'))))
  expect(file.includes(Buffer.from('\u2581hell'))).toBe(true)
  expect(file.includes(Buffer.from('##o'))).toBe(false)
  expect(file.includes(Buffer.from('blk.5.layer_output_norm.bias'))).toBe(true)
})
