import type { Meter, TextMapPropagator, Tracer } from '@opentelemetry/api'
import type { Access } from './access/access.ts'
import type { Adapters } from './adapters/registry.ts'
import type { Bridges } from './engine/bridge.ts'
import type { Embedder, Engine } from './engine/engine.ts'
import type { HeldEngine, ModelPool } from './engine/model-pool.ts'
import type { Problem } from './errors.ts'
import type { Allocator } from './experiment/allocate.ts'
import type { Experiments } from './experiment/experiments.ts'
import type { Replays } from './experiment/replay/replay.ts'
import type { Rollouts } from './experiment/rollout/rollouts.ts'
import type { Logger } from './logger.ts'
import type { MemoryStore } from './memory/memory-store.ts'
import type { Templates } from './prompt/templates.ts'
import type { MultiHop } from './request.ts'
import type { Calibration } from './selection/gate.ts'
import type { Retriever } from './selection/retriever.ts'
import type { SqlDatabase } from './storage/sql.ts'

const MIB = 1024 * 1024

/** Every bound on what a request may ask for or cost, with its default; a name ends in its unit. `src/config.ts` may change any of them. */
export const LIMITS = {
  chatBodyBytes: { value: 4 * MIB, help: 'body of every request but a batch of edits, after decompression' },
  editsBodyBytes: { value: 128 * MIB, help: 'body of a batch of edits or a hand-off, after decompression' },
  jsonDepthLevels: { value: 64, help: 'levels of nesting in a JSON body' },
  messages: { value: 2_048, help: 'messages of one conversation' },
  embeddingInputs: { value: 2_048, help: 'texts in one request for embeddings' },
  embeddingRequests: { value: 64, help: 'requests for embeddings under way at once; more are answered 429' },
  keyPlacesPercent: {
    value: 50,
    help: "of the model's slots and places in its queue, as many as requests of one key may take; more are answered 429",
  },
  responseStoreBytes: {
    value: 16 * MIB,
    help: 'responses kept for `previous_response_id`; the oldest go first',
  },
  choices: { value: 128, help: 'answers to one request (`n`)' },
  stops: { value: 4, help: 'stop texts of one request' },
  stopChars: { value: 512, help: 'length of a stop text' },
  tools: { value: 128, help: 'tools offered in one request, and calls in one message' },
  biases: { value: 1_024, help: 'token ids in one `logit_bias`' },
  prompts: { value: 256, help: 'prompts of one text completion' },
  selectors: { value: 64, help: 'edits named in one `palimpsest.edits`, and tags in one `palimpsest.tags`' },
  withdrawIds: { value: 10_000, help: 'ids in one `POST /v1/edits/withdraw`, and edits that one adapter holds' },
  searchChars: { value: 1_024, help: 'length of a filter of a list' },
  listPage: { value: 1_000, help: 'longest page of a list' },
  listPageDefault: { value: 50, help: 'page of a list that names no `limit`' },
  editsReserveTokens: {
    value: 512,
    help: 'tokens set aside for the edits of each prompt, of a key with a budget; where they take more, that is counted when it is known',
  },
  requestIdChars: { value: 128, help: 'longest `x-request-id` taken over from a client' },
  headerEdits: { value: 16, help: 'edits listed in the header `Palimpsest-Edits`; the body lists all' },
  awaitIndexEdits: { value: 64, help: 'edits up to which a batch is answered once its vectors are in the index' },
  awaitIndexMs: { value: 5_000, help: 'longest wait for that' },
  atLeastMs: { value: 2_000, help: 'longest wait for the version of the memory that `Palimpsest-At-Least` names' },
  ledgerAnswers: { value: 2_000_000, help: 'answers of experiments kept in the ledger' },
  answerFeedback: { value: 32, help: 'feedback kept for one answer' },
  loggedPrompts: { value: 1_000, help: 'prompts kept for one experiment with `log_prompts`' },
  replayPairs: { value: 10_000, help: 'pairs of answers kept for one experiment' },
  replayQueue: { value: 2_000, help: 'prompts that wait to be replayed' },
  runningExperiments: { value: 32, help: 'experiments of one tenant that may run at a time' },
  experimentArms: { value: 8, help: 'arms of one experiment' },
  replayPrompts: { value: 1_000, help: 'prompts in one request for a replay' },
  recentRequests: { value: 200, help: 'latest requests kept in memory for `GET /v1/requests`' },
  adapters: { value: 64, help: 'adapters registered' },
  tenantAdapters: { value: 16, help: 'adapters of one tenant, where keys are asked for' },
  adapterBytes: { value: 2 * 1024 ** 3, help: 'file of one adapter' },
  adapterWaitMs: { value: 10_000, help: 'longest wait of a request for an adapter whose file comes from the shared database' },
  reports: { value: 200, help: 'reports of evaluations that are listed, the latest' },
  reportBytes: { value: 16 * MIB, help: 'file of one report' },
  handoffEdits: { value: 10_000, help: 'edits of one hand-off' },
  handoffQueueJobs: { value: 16, help: 'hand-offs that wait' },
  handoffJobsKept: { value: 20, help: 'finished hand-offs whose report is kept' },
  handoffAttempts: { value: 3, help: 'attempts after which a start of the gateway takes a hand-off up no more' },
  handoffCancelMs: { value: 20_000, help: 'time that the parameter editor has to end once told to' },
  handoffSilenceMs: { value: 30 * 60_000, help: 'longest silence of the parameter editor' },
  handoffEventBytes: { value: 4 * MIB, help: 'longest line that the parameter editor may write' },
  promotionSnapshots: { value: 10, help: 'snapshots taken before promotions that are kept' },
  progressMs: { value: 200, help: 'time between two progress lines of a streamed import' },
  heartbeatMs: { value: 15_000, help: 'silence on an event stream after which a comment is sent, so that proxies keep it open' },
  stalledMs: { value: 120_000, help: 'a client that reads nothing for this long is cut off' },
  defaultTemperature: {
    value: 0,
    help: "sampling temperature where a request names none; 0, unlike OpenAI's 1: the same question gets the same answer",
  },
} as const satisfies Readonly<Record<string, { readonly value: number; readonly help: string }>>

export type Limits = { readonly [Name in keyof typeof LIMITS]: number }

export const DEFAULT_LIMITS = Object.fromEntries(Object.entries(LIMITS).map(([name, { value }]) => [name, value])) as Limits

/** Where spans and metrics go, by OpenTelemetry's interfaces. */
export interface Telemetry {
  readonly tracer: Tracer
  readonly meter: Meter
  /** Reads the caller's trace from the headers of its request. */
  readonly propagator: TextMapPropagator
}

/** All that a request may touch; made once at start. */
export interface Gateway {
  readonly engine: Engine
  /** Further models by name, for arms of experiments and as judges. */
  readonly otherEngines?: ReadonlyMap<string, Engine>
  /** Absent: none can be declared. */
  readonly experiments?: {
    readonly registry: Experiments
    readonly allocator: Allocator
    readonly replays: Replays
    readonly rollouts: Rollouts
  }
  /** Further models that are loaded when a request names them. */
  readonly models?: ModelPool
  readonly memory: MemoryStore
  /** Shared with other gateways; absent: what is kept for a while is kept in this process's memory. */
  readonly database?: SqlDatabase
  /** Absent: the engine takes none. */
  readonly adapters?: Adapters
  /** What `POST /v1/embeddings` asks, and `countTokens` with it; absent: that is not served. */
  readonly embedder?: Required<Embedder>
  readonly retriever: Retriever
  readonly calibration: Calibration
  readonly templates: Templates
  /** How multi-hop questions are followed where a request does not say; absent: from edit to edit, and `model` means that too. */
  readonly multiHop?: { readonly mode: MultiHop; readonly bridges: Bridges }
  /** Faults of files in `edits/`, whose edits stay as they last were; absent where no folder is followed. */
  readonly editFiles?: { problems(): readonly Problem[] }
  readonly limits: Limits
  /** Milliseconds since the epoch, with fractions: `performance.timeOrigin + performance.now()`. (The memory's own clock has none.) */
  readonly now: () => number
  readonly log: Logger
  /** Conversations and answers may be written to the log and to spans. */
  readonly logPrompts?: boolean
  /** Absent: spans and metrics are not exported. */
  readonly telemetry?: Telemetry
  readonly version: string
  /** Milliseconds since the epoch. */
  readonly startedAt: number
  /** Folder of reports of evaluations; absent: none are shown. */
  readonly reportsDir?: string
  /** Aborted when the server is about to stop: `/readyz` says so, and requests are still taken. */
  readonly draining?: AbortSignal
  /** Aborted when the server begins to stop: new work is then refused with `shutting_down`. */
  readonly closing?: AbortSignal
  /** Keys and budgets; absent: whoever reaches the gateway may do everything. */
  readonly access?: Access
  /** Names, besides IP addresses and localhost, under which a gateway bound to loopback may be addressed (a reverse proxy's, say). */
  readonly hosts?: readonly string[]
  /** Origins of web pages that may use the gateway beside its own; `*`: any, while keys are asked for. */
  readonly origins?: readonly string[]
}

/** The engine of a model, held until released; loaded first, where it is one of those that are loaded when asked for. */
export async function holdEngine(model: string, gateway: Gateway, signal: AbortSignal): Promise<HeldEngine> {
  const { engine, otherEngines, models } = gateway
  const other = otherEngines?.get(model)
  if (other === undefined && models !== undefined) return await models.use(model, signal)
  return { engine: other ?? engine, release: () => {} }
}
