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

/** Every bound on what a request may ask for or cost. `src/config.ts` may change any of them. */
export interface Limits {
  /** Bytes of a chat request's body after decompression. */
  readonly chatBodyBytes: number
  /** Bytes of a batch of edits after decompression. */
  readonly editsBodyBytes: number
  /** Levels of nesting in any JSON body. */
  readonly jsonDepthLevels: number
  readonly messages: number
  /** Texts in one request for embeddings. */
  readonly embeddingInputs: number
  /** Requests for embeddings under way at once; more are answered 429. */
  readonly embeddingRequests: number
  /** Memory for responses kept for `previous_response_id`; the longest unused go first. */
  readonly responseStoreBytes: number
  /** Answers to one request (`n`). */
  readonly choices: number
  readonly stops: number
  readonly stopChars: number
  /** Tools offered in one request, and calls in one message. */
  readonly tools: number
  /** Token ids in one `logit_bias`. */
  readonly biases: number
  /** Prompts of one text completion. */
  readonly prompts: number
  /** Edits named by id in one request's `palimpsest.edits`, and tags in its `palimpsest.tags`. */
  readonly selectors: number
  /** Ids in one `POST /v1/edits/withdraw`. */
  readonly withdrawIds: number
  readonly searchChars: number
  readonly listPage: number
  readonly listPageDefault: number
  /** Tokens set aside for the edits of each prompt, of a key with a budget. Where they take more, that is counted when it is known. */
  readonly editsReserveTokens: number
  /** Longest `x-request-id` taken over from a client. */
  readonly requestIdChars: number
  /** Edits listed in the `Palimpsest-Edits` header; the body lists all. */
  readonly headerEdits: number
  /** Batches of at most this many edits are answered once their vectors are in the index, … */
  readonly awaitIndexEdits: number
  /** … or after this long, whichever comes first. */
  readonly awaitIndexMs: number
  /** Answers of experiments kept in the ledger, and prompts and pairs of answers kept for each: see LedgerLimits. */
  readonly ledgerAnswers: number
  readonly answerFeedback: number
  readonly loggedPrompts: number
  readonly replayPairs: number
  /** Prompts that wait to be replayed. */
  readonly replayQueue: number
  /** Experiments of one tenant that may run at a time. */
  readonly runningExperiments: number
  /** Arms of one experiment, and prompts in one replay or compare request. */
  readonly experimentArms: number
  readonly replayPrompts: number
  /** Latest requests kept in memory for `GET /v1/requests`. */
  readonly recentRequests: number
  /** Adapters registered; of them one tenant's, where keys are asked for; and bytes of the file of one. */
  readonly adapters: number
  readonly tenantAdapters: number
  readonly adapterBytes: number
  /** Reports of evaluations in `GET /v1/evaluations`, the latest; and the size of one's file. */
  readonly reports: number
  readonly reportBytes: number
  /** Edits of one hand-off, hand-offs that wait, finished ones whose report is kept, and attempts after which a start of the gateway takes one up no more. */
  readonly handoffEdits: number
  readonly handoffQueueJobs: number
  readonly handoffJobsKept: number
  readonly handoffAttempts: number
  /** Time that the parameter editor has to end once told to, its longest silence, and the longest line it may write. */
  readonly handoffCancelMs: number
  readonly handoffSilenceMs: number
  readonly handoffEventBytes: number
  /** Snapshots taken before promotions that are kept. */
  readonly promotionSnapshots: number
  /** Between two progress lines of a streamed import. */
  readonly progressMs: number
  /** Silence on an event stream after which a comment is sent, so that proxies keep it open. */
  readonly heartbeatMs: number
  /** A client that reads nothing for this long is cut off. */
  readonly stalledMs: number
  /** Sampling temperature where a request names none. 0, unlike OpenAI's 1: the same question gets the same answer. */
  readonly defaultTemperature: number
}

export const DEFAULT_LIMITS: Limits = {
  chatBodyBytes: 4 * 1024 * 1024,
  editsBodyBytes: 128 * 1024 * 1024,
  jsonDepthLevels: 64,
  messages: 2_048,
  embeddingInputs: 2_048,
  embeddingRequests: 64,
  responseStoreBytes: 16 * 1024 * 1024,
  choices: 128,
  stops: 4,
  stopChars: 512,
  tools: 128,
  biases: 1_024,
  prompts: 256,
  selectors: 64,
  withdrawIds: 10_000,
  searchChars: 1_024,
  listPage: 1_000,
  listPageDefault: 50,
  editsReserveTokens: 512,
  requestIdChars: 128,
  headerEdits: 16,
  awaitIndexEdits: 64,
  awaitIndexMs: 5_000,
  ledgerAnswers: 2_000_000,
  answerFeedback: 32,
  loggedPrompts: 1_000,
  replayPairs: 10_000,
  replayQueue: 2_000,
  runningExperiments: 32,
  experimentArms: 8,
  replayPrompts: 1_000,
  recentRequests: 200,
  adapters: 64,
  tenantAdapters: 16,
  adapterBytes: 2 * 1024 ** 3,
  reports: 200,
  reportBytes: 16 * 1024 * 1024,
  handoffEdits: 10_000,
  handoffQueueJobs: 16,
  handoffJobsKept: 20,
  handoffAttempts: 3,
  handoffCancelMs: 20_000,
  handoffSilenceMs: 30 * 60_000,
  handoffEventBytes: 4 * 1024 * 1024,
  promotionSnapshots: 10,
  progressMs: 200,
  heartbeatMs: 15_000,
  stalledMs: 120_000,
  defaultTemperature: 0,
}

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
  /** Aborted when the server begins to stop: new work is then refused with `shutting_down`. */
  readonly closing?: AbortSignal
  /** Keys and budgets; absent: whoever reaches the gateway may do everything. */
  readonly access?: Access
  /** Names, besides IP addresses and localhost, under which a gateway bound to loopback may be addressed (a reverse proxy's, say). */
  readonly hosts?: readonly string[]
}

/** The engine of a model, held until released; loaded first, where it is one of those that are loaded when asked for. */
export async function holdEngine(model: string, gateway: Gateway, signal: AbortSignal): Promise<HeldEngine> {
  const { engine, otherEngines, models } = gateway
  const other = otherEngines?.get(model)
  if (other === undefined && models !== undefined) return await models.use(model, signal)
  return { engine: other ?? engine, release: () => {} }
}
