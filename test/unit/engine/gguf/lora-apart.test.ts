/** An adapter's file is read in a process of its own: whatever becomes of that, the gateway goes on and says so. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { readLoraApart } from '../../../../src/engine/gguf/lora-apart.ts'
import { type GgufTensor, ggufPieces } from '../../../../src/models/packages/gguf-writer.ts'
import { buildChild } from '../../../support/built-child.ts'

/** For a machine that does other things too. */
vi.setConfig({ testTimeout: 300_000, hookTimeout: 900_000 })

const WEIGHT = 'blk.0.ffn_down.weight'
const base = {
  metadata: { general: { architecture: 'qwen2' }, tokenizer: { ggml: { tokens: ['a', 'b'] } } },
  fullTensorInfo: [{ name: WEIGHT, dimensions: [8, 6n] }],
}
const part = (suffix: string, shape: readonly number[], value: number): GgufTensor => ({
  ...{ name: `${WEIGHT}.${suffix}`, shape, type: 'f32' },
  data: new Uint8Array(new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value).buffer),
})
const adapter = (value: number) =>
  Buffer.concat(
    ggufPieces(
      [
        ['general.type', { type: 'string', value: 'adapter' }],
        ['general.architecture', { type: 'string', value: 'qwen2' }],
        ['adapter.type', { type: 'string', value: 'lora' }],
        ['adapter.lora.alpha', { type: 'f32', value: 2 }],
      ],
      [part('lora_a', [8, 2], value), part('lora_b', [2, 6], value)],
    ),
  )

// A process runs no TypeScript, so it is built.
let built = ''
let child = ''
beforeAll(() => {
  ;({ built, child } = buildChild('src/engine/gguf/lora-child'))
})
afterAll(() => rmSync(built, { recursive: true, force: true }))

const read = (bytes: Buffer, script?: string, longestMs = 120_000) => {
  const path = join(built, 'adapter.gguf')
  writeFileSync(path, bytes)
  const stub = join(built, 'stub.mjs')
  if (script !== undefined) writeFileSync(stub, script)
  return readLoraApart(path, base, { entry: pathToFileURL(script === undefined ? child : stub), longestMs })
}

describe('a file that is read in a process of its own', () => {
  it('is known by what its header says', async () => {
    const bytes = adapter(0.5)
    expect(await read(bytes)).toEqual({ architecture: 'qwen2', rank: 2, bytes: bytes.length, weights: [WEIGHT] })
  })

  it.each([
    ['is none', Buffer.from('GGUF'), /header can't be read \(its header breaks off/],
    ['has weights that are no numbers', adapter(Number.NaN), /expected finite weights, got NaN or infinity in `blk.0/],
  ])('is refused where it %s', async (_, bytes, message) => {
    await expect(read(bytes)).rejects.toMatchObject({
      code: 'adapter_mismatch',
      param: 'file',
      message: expect.stringMatching(message),
    })
  })

  it.each([
    ['says nothing', 'setInterval(() => {}, 1_000)', 500, /whose reading takes more than 0.5 s/],
    [
      'never lets go of its processor',
      "process.once('message', () => { for (;;); })",
      500,
      /whose reading takes more than 0.5 s/,
    ],
    [
      'is killed',
      "process.once('message', () => process.kill(process.pid, 'SIGKILL'))",
      120_000,
      /ended its process \(SIGKILL\)/,
    ],
    ['ends', 'process.exit(3)', 120_000, /ended its process \(exit code 3\)/],
    [
      'takes more memory than it may',
      "process.once('message', () => { const all = []; for (;;) all.push(Array.from({ length: 1e5 }, (_, i) => ({ i }))) })",
      120_000,
      /ended its process \(SIGABRT\)/,
    ],
  ])('is refused by name where that process %s, and the next file is read', async (_, script, longestMs, message) => {
    const refused = { code: 'adapter_mismatch', status: 400, param: 'file', message: expect.stringMatching(message) }
    await expect(read(adapter(0.5), script, longestMs)).rejects.toMatchObject(refused)
    expect(await read(adapter(0.5))).toMatchObject({ rank: 2 })
  })

  it('is told nothing of the environment of the gateway', async () => {
    const script = "process.once('message', () => process.send({ thrown: JSON.stringify(process.env) }))"
    vi.stubEnv('A_KEY', 'secret')
    const said = await read(adapter(0.5), script).catch(String)
    expect(said).toMatch(/could not be read: \{.*\}/)
    expect(said).not.toMatch('secret')
  })

  it('waits where two others are read', async () => {
    const script = `import { appendFileSync } from 'node:fs'
const say = (what) => appendFileSync(new URL('./said', import.meta.url), what)
process.once('message', () => { say('+'); setTimeout(() => { say('-'); process.send({ header: { rank: 1 } }) }, 300) })`
    await Promise.all([1, 2, 3, 4, 5].map(() => read(adapter(0.5), script)))
    let most = 0
    let open = 0
    for (const sign of readFileSync(join(built, 'said'), 'utf8')) {
      open += sign === '+' ? 1 : -1
      most = Math.max(most, open)
    }
    expect([most, open]).toEqual([2, 0])
  })
})
