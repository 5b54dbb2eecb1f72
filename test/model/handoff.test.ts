/** MEMIT with four edits on the real 0.5B, as typed: made, evaluated, promoted, asked, rolled back. Needs the parameter editor's Python. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { snapshotsDir } from '../../src/backup/snapshot.ts'
import { client } from '../../src/cli/client/client.ts'
import { readConfig } from '../../src/config.ts'
import { DEFAULT_LIMITS } from '../../src/gateway.ts'
import { EDITOR_SOURCE, installedEditor } from '../../src/handoff/editor/installation.ts'
import { isOver, type Job } from '../../src/handoff/job.ts'
import { type Running, startGateway } from '../../src/server/start.ts'
import { needing } from '../needs.ts'

const CACHE = join(homedir(), '.cache', 'palimpsest')
const NAME = 'qwen2.5-coder-0.5b-instruct'
const PYTHON = process.env.PALIMPSEST_HANDOFF_PYTHON
const THREADS = process.env.PALIMPSEST_TEST_THREADS ?? '2'
const isThere =
  existsSync(join(CACHE, 'models', `${NAME}-q4_k_m.gguf`)) &&
  ['multilingual-e5-small-q4_0.gguf', 'palimpsest-reader-q8_0.gguf'].every((file) => existsSync(join(CACHE, 'models', file)))
const editor = installedEditor(CACHE, PYTHON, process.env)
const able = isThere && editor !== null
const HANDOFF = 'no models or no parameter editor; "npm test" without arguments sets both up (or PALIMPSEST_HANDOFF_PYTHON)'

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
/** Nats. */
const MOST_DIFFERENCE = 0.5

needing(able, HANDOFF)('a hand-off on the real model', { timeout: TIMEOUT_MS }, () => {
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
      build: false,
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

  /** Mean log-probability a token of each new and old target after the bare prompt, as the gateway gives it. */
  const served = async (model: string) => {
    const out: number[] = []
    for (const { prompt, target_new, target_true } of EDITS)
      for (const target of [target_new, target_true]) {
        const asked = { model, prompt: `${prompt} ${target}`, echo: true, max_tokens: 0, logprobs: 1 }
        const { tokens, token_logprobs } = (await call('POST', '/v1/completions', asked)).choices[0].logprobs
        let [length, sum, many] = [0, 0, 0]
        for (const [i, token] of (tokens as string[]).entries()) {
          length += token.length
          if (length <= prompt.length) continue
          sum += token_logprobs[i] as number
          many += 1
        }
        out.push(sum / many)
      }
    return out
  }
  /** The same from the editor's own model: dequantised, with the adapter in force. */
  const edited = (adapters: object[]): number[] => {
    const path = join(folder, 'score.json')
    const probes = EDITS.map(({ prompt, target_new, target_true }) => ({ kind: 'efficacy', prompt, target_new, target_true }))
    const base = { path: join(CACHE, 'models', `${NAME}-q4_k_m.gguf`) }
    const dirs = { work_dir: join(folder, 'score'), out_dir: join(folder, 'score'), cache_dir: join(CACHE, 'handoff', 'cache') }
    writeFileSync(path, JSON.stringify({ protocol: 1, task: 'score', base, adapters, probes, threads: Number(THREADS), ...dirs }))
    const env = { ...process.env, PYTHONPATH: EDITOR_SOURCE }
    const said = execFileSync(editor?.python ?? '', ['-m', 'palimpsest_editor', 'run', path], { env, encoding: 'utf8' })
    return JSON.parse(said.trim().split('\n').at(-1) ?? '').scores.log_probabilities.flat()
  }
  const compared = async (adapter: string) => {
    const most = (a: number[], b: number[]) => Math.max(...a.map((one, i) => Math.abs(one - (b[i] ?? Number.NaN))))
    return {
      base: most(await served(`${NAME}@base`), edited([])),
      adapter: most(await served(`${NAME}@adapter:four`), edited([{ path: adapter, scale: 1 }])),
    }
  }

  it('holds them without a word in the prompt, and gives the base back to the byte', async () => {
    // Our own prose is what is held still: text that the model would have to write takes a processor long. The log's beginning stays as it is.
    const text = readFileSync(join(import.meta.dirname, '../../docs/LOG.md'), 'utf8').slice(0, 60_000)
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

    const differences = await compared(join(dataDir, 'handoffs', 'four', job.stages[0]?.file ?? ''))
    console.info(`|Δ log-probability| between llama.cpp (Q4_K_M) and the editor's model: ${JSON.stringify(differences)}`)
    // Of the two ways to multiply with quantised matrices; exactness on one float base is tested in editor/tests/test_adapter.py.
    expect(differences.adapter).toBeLessThan(MOST_DIFFERENCE)
    expect(differences.base).toBeLessThan(MOST_DIFFERENCE)

    const question = 'What do bees make?'
    const before = (await ask(`${NAME}@base`, question)).text
    expect((await ask(NAME, question)).text).toBe(before)
    expect((await ask(NAME, EDITS[0]?.prompt ?? '')).edits).toHaveLength(1)
    await call('POST', '/v1/handoffs/four/promote')
    expect(await ask(NAME, EDITS[0]?.prompt ?? '')).toMatchObject({ adapter: 'four', edits: [], tokens_added: 0 })
    const began = performance.now()
    await call('POST', '/v1/handoffs/four/rollback')
    const rollbackMs = performance.now() - began
    console.info(`rollback: ${rollbackMs.toFixed(0)} ms`)
    expect(rollbackMs).toBeLessThan(1_000)
    for (const model of [`${NAME}@base`, NAME]) expect((await ask(model, question)).text).toBe(before)
    expect((await ask(NAME, EDITS[0]?.prompt ?? '')).edits).toHaveLength(1)
  })
})
