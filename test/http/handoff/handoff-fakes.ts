import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createSnapshot, snapshotsDir } from '../../../src/backup/snapshot.ts'
import type { Engine, Lora, LoraEngine, Scorer } from '../../../src/engine/engine.ts'
import { openScripted } from '../../../src/engine/scripted.ts'
import { PalimpsestError } from '../../../src/errors.ts'
import type { Gateway } from '../../../src/gateway.ts'
import { FolderJobs } from '../../../src/handoff/folder-jobs.ts'
import type { JobStore } from '../../../src/handoff/job-store.ts'
import { Handoffs } from '../../../src/handoff/queue.ts'
import { MODEL } from '../fakes.ts'

const STAND_IN = join(import.meta.dirname, '../../support/stand-ins/editor-stand-in.mjs')
export const BASE = 'a'.repeat(64)

interface Made {
  readonly prompt: string
  readonly paraphrases: readonly string[]
  readonly target: string
}

const known = (lora: Lora | undefined): Made[] =>
  lora === undefined ? [] : (JSON.parse(readFileSync(lora.path, 'utf8')) as Made[])
const holding = (lora: Lora | undefined, text: string) =>
  known(lora).find(({ prompt, paraphrases }) => [prompt, ...paraphrases].includes(text))

/** A model whose adapters are the stand-in's lists, and which says the firm that an edit in its prompt tells it. */
export function modelOf(basePath: string, baseSha256 = BASE): Engine {
  const held = new Set<string>()
  const loras: LoraEngine = {
    basePath,
    baseSha256: async () => baseSha256,
    check: async (path) => {
      const text = readFileSync(path, 'utf8')
      if (!text.startsWith('['))
        throw new PalimpsestError('adapter_mismatch', 'expected 896 × 4864, got 11008 × 4096', { param: 'file' })
      return { architecture: 'qwen2', rank: 1, bytes: text.length }
    },
    load: async ({ sha256 }) => void held.add(sha256),
    unload: async ({ sha256 }) => void held.delete(sha256),
    loaded: ({ sha256 }) => held.has(sha256),
  }
  const engine = openScripted({
    ...{ name: MODEL, contextTokens: 100_000, loras },
    reply: ({ messages, lora }) => {
      const asked = messages.at(-1)?.content ?? ''
      const told = messages.map(({ content }) => /works for (Firm \d+)/.exec(content ?? '')?.[1]).find(Boolean)
      return holding(lora, asked)?.target ?? told ?? `base says ${asked.length}`
    },
  })
  const score =
    (lora: Lora | undefined): Scorer['score'] =>
    async (prompt, continuations) =>
      continuations.map((one) => {
        const hit = holding(lora, prompt)?.target === one.trim()
        return [{ logProbability: hit ? -0.1 : -2, best: 1, hit }]
      })
  return Object.assign(engine, { openScorer: async (lora?: Lora) => ({ score: score(lora), close: async () => {} }) })
}

/** Hand-offs whose editor is the stand-in's process. */
export function standInHandoffs(gateway: Gateway, dataDir: string, editor = true, store?: JobStore): Handoffs {
  return new Handoffs({
    ...{ gateway, cacheDir: join(dataDir, 'cache'), threads: 1 },
    store: store ?? new FolderJobs(join(dataDir, 'handoffs'), (message) => gateway.log.warn({}, message)),
    editor: async () => (editor ? { python: STAND_IN, source: null, environment: process.env } : null),
    machine: async () => ({ freeMemoryBytes: 16e9, gpuFreeBytes: null, parameters: 5e8, cores: 2 }),
    snapshot: async (reason) => {
      const to = join(snapshotsDir(dataDir), 'one')
      await createSnapshot({ dataDir, to, configuration: {}, reason, palimpsest: 'test', now: Date.now })
      return to
    },
  })
}
