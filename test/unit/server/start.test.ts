import { mkdirSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { readConfig } from '../../../src/config.ts'
import { DEFAULT_LIMITS, type Limits } from '../../../src/gateway.ts'
import { openWeights } from '../../../src/server/models.ts'
import { startGateway } from '../../../src/server/start.ts'
import { lexicalReader } from '../../support/memory-data.ts'
import { fact, fakeEmbedder, POST, scratch } from '../../support/memory-fixture.ts'

test('the models of selection are loaded at the start where there are edits, and only there', async () => {
  const upstream = createServer((_, res) => res.end(JSON.stringify({ object: 'list', data: [{ id: 'm', object: 'model' }] })))
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void upstream.close())
  const home = scratch()
  mkdirSync(join(home, 'edits'))
  const model = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}/v1`
  const flags = { dataDir: join(home, 'data'), editsDir: join(home, 'edits'), home, upstreamModel: 'm', model }
  const config = readConfig<Limits>({ flags, limits: DEFAULT_LIMITS, env: {}, cwd: home })
  const warm = vi.fn()
  const embedder = { ...fakeEmbedder(), countTokens: async () => 1 }
  const weightsOf: typeof openWeights = (...given) => ({
    ...openWeights(...given),
    ...{ embedder: async () => embedder, reader: () => lexicalReader(), warm },
  })
  const log = { info: () => {}, warn: () => {}, error: () => {} }
  const start = () =>
    startGateway({
      ...{ config, log, model: 'configured', host: '127.0.0.1', port: 0, watch: false, weightsOf },
      closing: new AbortController().signal,
    })
  const first = await start()
  expect(warm).not.toHaveBeenCalled()
  await first.memory.land([fact(1)], POST)
  await first.close(0)
  const second = await start()
  expect(warm).toHaveBeenCalledOnce()
  await second.close(0)
})
