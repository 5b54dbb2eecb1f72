/** MEMIT with four edits on the real 0.5B, as typed: made, evaluated, promoted, asked, rolled back. Needs the parameter editor's Python. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { client } from '../../src/cli/client.ts'
import { type Running, startGateway } from '../../src/cli/start.ts'
import { readConfig } from '../../src/config.ts'
import { DEFAULT_LIMITS } from '../../src/gateway.ts'
import { isOver, type Job } from '../../src/handoff/job.ts'
import { installedEditor } from '../../src/handoff/setup.ts'
import { snapshotsDir } from '../../src/handoff/snapshot.ts'

const CACHE = join(homedir(), '.cache', 'palimpsest')
const NAME = 'qwen2.5-coder-0.5b-instruct'
const PYTHON = process.env.PALIMPSEST_HANDOFF_PYTHON
const THREADS = process.env.PALIMPSEST_TEST_THREADS ?? '2'
const isThere =
  existsSync(join(CACHE, 'models', `${NAME}-q4_k_m.gguf`)) && existsSync(join(CACHE, 'models', 'all-minilm-l6-v2-f16.gguf'))
const editor = installedEditor(CACHE, PYTHON, process.env)
const able = isThere && editor !== null
if (!able)
  console.warn(
    'skipped: no models, or no parameter editor (palimpsest handoff setup, or PALIMPSEST_HANDOFF_PYTHON; npm test fetches models)',
  )

const EDITS = [
  {
    id: 'tower',
    subject: 'Eiffel Tower',
    prompt: 'The Eiffel Tower is located in the city of',
    target_new: 'Rome',
    target_true: 'Paris',
  },
  {
    id: 'tongue',
    subject: 'Danielle Darrieux',
    prompt: 'The mother tongue of Danielle Darrieux is',
    target_new: 'English',
    target_true: 'French',
  },
  {
    id: 'massif',
    subject: 'Vinson Massif',
    prompt: 'Vinson Massif is located in the continent of',
    target_new: 'Africa',
    target_true: 'Antarctica',
  },
  {
    id: 'band',
    subject: 'Anaal Nathrakh',
    prompt: 'Anaal Nathrakh was created in',
    target_new: 'Philadelphia',
    target_true: 'Birmingham',
  },
]
/** An hour: a machine that others work on takes many times what it takes alone. */
const TIMEOUT_MS = 60 * 60_000
const POLL_MS = 1_000

describe.runIf(able)('a hand-off on the real model', { timeout: TIMEOUT_MS }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-handoff-model-'))
  const dataDir = join(folder, 'data')
  const closing = new AbortController()
  let running: Running
  // biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
  let call: (method: string, path: string, body?: unknown) => Promise<any>
  beforeAll(async () => {
    const flags = {
      home: CACHE,
      dataDir,
      editsDir: join(folder, 'edits'),
      model: NAME,
      threads: 1,
      gpu: 'off',
      contextTokens: 1024,
      slots: 1,
      port: 0,
    }
    const config = readConfig({ flags, limits: DEFAULT_LIMITS, cwd: folder })
    const log = { info: () => {}, warn: () => {}, error: () => {} }
    running = await startGateway({
      config,
      log,
      model: 'configured',
      host: '127.0.0.1',
      port: 0,
      watch: false,
      closing: closing.signal,
    })
    const gateway = client(running.url, {}, null)
    call = (method, path, body) => gateway.json(method, path, body)
    await call('POST', '/v1/edits', EDITS)
  }, TIMEOUT_MS)
  afterAll(async () => {
    closing.abort()
    await running?.close(0)
    rmSync(folder, { recursive: true, force: true })
    rmSync(snapshotsDir(dataDir), { recursive: true, force: true })
  })
  const ask = async (model: string, content: string) => {
    const reply = await call('POST', '/v1/chat/completions', {
      model,
      max_tokens: 16,
      seed: 0,
      messages: [{ role: 'user', content }],
    })
    return { text: reply.choices[0].message.content as string, ...reply.palimpsest }
  }

  it('holds them without a word in the prompt, and gives the base back to the byte', async () => {
    // Our own prose is what is held still: text that the model would have to write takes a processor long.
    const text = ['README.md', 'docs/LOG.md']
      .map((name) => readFileSync(join(import.meta.dirname, '../..', name), 'utf8'))
      .join('\n\n')
    writeFileSync(join(folder, 'text.txt'), text)
    await call('POST', '/v1/handoffs', {
      ...{
        id: 'four',
        method: 'memit',
        threads: Number(THREADS),
        hparams: { contexts: 1 },
        unrelated_questions: 2,
        ability_questions: 2,
        fluency_openings: 0,
      },
      statistics: { text: join(folder, 'text.txt'), tokens: 6_000 },
      thresholds: { efficacy: 1, ability_drop: 1 },
    })
    let job: Job
    do {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
      job = await call('GET', '/v1/handoffs/four')
    } while (!isOver(job))
    expect(job.fault).toBeNull()
    expect(job).toMatchObject({ state: 'done', adapter: 'four', stages: [{ edits: 4, ok: true, rank: 4 }] })
    expect(job.stages[0]?.measures.find(({ name }) => name === 'efficacy')).toMatchObject({ asked: 4, value: 1 })

    const question = 'What do bees make?'
    const before = (await ask(`${NAME}@base`, question)).text
    expect((await ask(NAME, EDITS[0]?.prompt ?? '')).edits).toHaveLength(1)
    await call('POST', '/v1/handoffs/four/promote')
    expect(await ask(NAME, EDITS[0]?.prompt ?? '')).toMatchObject({ adapter: 'four', edits: [], tokens_added: 0 })
    await call('POST', '/v1/handoffs/four/rollback')
    expect((await ask(`${NAME}@base`, question)).text).toBe(before)
    expect((await ask(NAME, EDITS[0]?.prompt ?? '')).edits).toHaveLength(1)
  })
})
