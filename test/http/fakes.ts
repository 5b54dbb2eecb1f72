import { mkdtempSync, rmSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createApp } from '../../src/app.ts'
import { answererOf } from '../../src/compare.ts'
import { Bridges } from '../../src/engine/bridge.ts'
import type { Embedder, Engine, PairReader, Prompt } from '../../src/engine/engine.ts'
import { openScripted, type ScriptedOptions } from '../../src/engine/scripted.ts'
import { DEFAULT_LIMITS, type Gateway, type Limits } from '../../src/gateway.ts'
import type { Handoffs } from '../../src/handoff/queue.ts'
import { openMemory } from '../../src/memory/store.ts'
import { PACKAGE_ROOT } from '../../src/package-root.ts'
import { openTemplates } from '../../src/prompt/templates.ts'
import { Retriever } from '../../src/selection/retriever.ts'
import { openAdapters } from '../../src/server/adapters.ts'
import { openLedgerFile, openTrials } from '../../src/server/experiments.ts'
import type { SqlDatabase } from '../../src/storage/sql.ts'
import { fakeEmbedder, indifferentReader, NAMED_CALIBRATION } from '../support/memory-data.ts'

export const MODEL = 'scripted'

/** Answers with the last message, so that a test sees what the model saw. */
export function echo(prompt: Prompt): string {
  return `You said: ${prompt.messages.at(-1)?.content}`
}

export interface Served {
  readonly base: string
  readonly gateway: Gateway
  readonly logged: object[]
  readonly dataDir: string
  close(): Promise<void>
}

export interface ServeOptions {
  readonly engine?: Engine
  readonly embedder?: Embedder
  readonly reader?: PairReader
  readonly script?: Partial<ScriptedOptions>
  readonly limits?: Partial<Limits>
  readonly closing?: AbortSignal
  readonly otherEngines?: ReadonlyMap<string, Engine>
  readonly gateway?: Partial<Gateway>
  readonly handoffs?: (gateway: Gateway, dataDir: string) => Handoffs
  /** Shared with other gateways, and closed by whoever opened it. */
  readonly database?: SqlDatabase
  /** Between two looks at adapters that other gateways changed. */
  readonly pollMs?: number
  /** An existing folder; deleted on close all the same, unless it is to be kept. */
  readonly dataDir?: string
  readonly keepFolder?: boolean
}

/**
 * The real application, memory, retrieval and templates, on a port of the system's choice. Made up: the model, which is scripted; the
 * embedder, whose vectors mean nothing; the reader, which says nothing; and the gate's weights, which take every edit whose subject is named.
 */
export async function serve({
  engine,
  embedder = fakeEmbedder(),
  reader = indifferentReader(),
  script,
  limits,
  closing,
  otherEngines,
  gateway: more,
  handoffs,
  database: shared,
  pollMs,
  dataDir = mkdtempSync(join(tmpdir(), 'palimpsest-http-')),
  keepFolder = false,
}: ServeOptions = {}): Promise<Served> {
  const logged: object[] = []
  const note = (fields: object) => void logged.push(fields)
  const quiet = { info: () => {}, warn: () => {}, error: () => {} }
  const now = () => performance.timeOrigin + performance.now()
  const memory = await openMemory({ dataDir, embedder, now: Date.now, log: quiet, ...(shared && { database: shared }) })
  const served = engine ?? openScripted({ name: MODEL, reply: echo, contextTokens: 2_000_000, ...script })
  const allLimits = { ...DEFAULT_LIMITS, ...limits }
  const database = shared ?? openLedgerFile(dataDir)
  const log = { info: note, warn: note, error: note }
  const trials = await openTrials({ database, memory, limits: allLimits, now, log, tickMs: 50 })
  const adapters = await openAdapters({
    dataDir,
    engine: served,
    memory,
    limits: allLimits,
    now,
    log,
    database: shared,
    pollMs,
    access: more?.access,
  })
  const gateway: Gateway = {
    engine: served,
    ...(otherEngines && { otherEngines }),
    multiHop: { mode: 'chain', bridges: new Bridges(served) },
    memory,
    ...(embedder.countTokens && { embedder: embedder as Required<Embedder> }),
    retriever: new Retriever(memory, embedder, reader, { now: () => memory.moment(), cacheBytes: 1_000_000 }),
    calibration: NAMED_CALIBRATION,
    templates: openTemplates({ dir: join(PACKAGE_ROOT, 'templates'), watch: false, log: quiet }),
    experiments: trials.experiments,
    limits: allLimits,
    now,
    log,
    version: '0.0.0-test',
    startedAt: Date.now(),
    ...(shared && { database: shared }),
    ...(closing && { closing }),
    ...(adapters && { adapters }),
    ...more,
  }
  trials.experiments.replays.start(answererOf(gateway))
  const server = createApp(gateway, handoffs?.(gateway, dataDir)).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  return {
    base: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    gateway,
    logged,
    dataDir,
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      await adapters?.close()
      await trials.close()
      if (database !== shared) await database.close()
      await memory.close()
      if (!keepFolder) rmSync(dataDir, { recursive: true, force: true })
    },
  }
}

export function post(
  { base }: Pick<Served, 'base'>,
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<Response> {
  return fetch(base + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  })
}
