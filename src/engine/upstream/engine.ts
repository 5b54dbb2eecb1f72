import type { Sampling } from '../../request.ts'
import type { Trace } from '../../trace.ts'
import type { Backend, Engine, Finish, Inspection, Load, ModelInfo, Piece, Prompt } from '../engine.ts'
import { pieceOf } from '../output/answer-stream.ts'
import { TextStream } from '../output/text-stream.ts'
import { SlotQueue, shuttingDown } from '../scheduling/slot-queue.ts'
import { Fleet } from './balancer.ts'
import type { BreakerLimits } from './circuit-breaker.ts'
import type { Patience } from './exchange.ts'
import { chatText, type Manner } from './request.ts'
import { PATIENCE, UpstreamServer, type UpstreamServerOptions } from './server.ts'
import { CallPlaces, type Chunk, UpstreamFault } from './wire.ts'

export interface UpstreamOptions {
  readonly servers: readonly UpstreamServerOptions[]
  readonly patience?: Partial<Patience>
  readonly breaker?: BreakerLimits
  readonly healthMs?: number
  /** Servers asked for one answer at most. */
  readonly tries?: number
  /** Requests under way at once, of all servers together. */
  readonly slots?: number
  readonly queueLimit?: number
  /** Absent: the least that `/models` says (vLLM's `max_model_len`), else DEFAULT_CONTEXT_TOKENS. */
  readonly contextTokens?: number
  /** Milliseconds. */
  readonly now?: () => number
}

const DEFAULTS = { slots: 64, queueLimit: 256, healthMs: 10_000, tries: 3 }
const DEFAULT_CONTEXT_TOKENS = 8192
/** Longest answer that is asked for in one part. */
const WHOLE_TOKENS = 256

/** Tokens are only guessed where the server's vocabulary is not known: English text has about four characters to a token. */
const CHARS_PER_TOKEN = 4

/** An engine whose servers can be changed while it answers. */
export interface ServersEngine extends Engine {
  /** Conversations go to these from now on; answers that have begun end where they began. Throws where none of them says what it serves. */
  replace(servers: readonly UpstreamServerOptions[], patience?: Partial<Patience>): Promise<void>
}

/**
 * Sends conversations to other servers, which format them and count their tokens; the context limit is theirs as well. Of servers whose
 * model is not given, one at least must say what it serves.
 */
export async function openUpstream(options: UpstreamOptions): Promise<ServersEngine> {
  const { servers, known, first } = await identified(options.servers, options.patience)
  const said = known.flatMap(({ contextTokens }) => contextTokens ?? [])
  return new UpstreamEngine(servers, options, {
    name: first.id,
    family: 'upstream',
    contextTokens: options.contextTokens ?? (said.length === 0 ? DEFAULT_CONTEXT_TOKENS : Math.min(...said)),
    device: 'remote',
    threads: 0,
    sha256: null,
  })
}

async function identified(asked: readonly UpstreamServerOptions[], patience: Partial<Patience> = {}) {
  const servers = asked.map((server) => new UpstreamServer(server, { ...PATIENCE, ...patience }))
  const found = await Promise.allSettled(
    servers.map(async (server) => {
      if (server.model === null) return server.identify(NEVER)
      return { id: server.model, contextTokens: null }
    }),
  )
  const known = found.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
  const first = known[0]
  if (first === undefined) {
    for (const server of servers) server.close()
    throw found.find((result) => result.status === 'rejected')?.reason
  }
  return { servers, known, first }
}

const NEVER = new AbortController().signal

class UpstreamEngine implements ServersEngine {
  readonly model: ModelInfo
  readonly #fleetOf: (servers: readonly UpstreamServer[]) => Fleet
  #fleet: Fleet
  /** Those that were replaced, of which some may still answer. */
  #retired: readonly Fleet[] = []
  readonly #slots: SlotQueue<number>

  constructor(servers: readonly UpstreamServer[], options: UpstreamOptions, model: ModelInfo) {
    const { slots, queueLimit, healthMs, tries, breaker, now = () => performance.now() } = { ...DEFAULTS, ...options }
    this.model = model
    this.#fleetOf = (members) => new Fleet(members, { now, healthMs, tries, ...(breaker !== undefined && { breaker }) })
    this.#fleet = this.#fleetOf(servers)
    this.#slots = new SlotQueue([...Array(slots).keys()], queueLimit, now)
  }

  async *generate(prompt: Prompt, sampling: Sampling, trace: Trace, signal: AbortSignal): AsyncGenerator<Piece, Finish> {
    const lease = await trace.time('queue', () => this.#slots.acquire((free) => free[0], signal))
    trace.promptTokens = this.countTokens(prompt)
    const manner = mannerOf(prompt, sampling)
    const chunks = this.#fleet.chunks(
      beginning(prompt),
      (server) => chatText(server.model ?? this.model.name, prompt, sampling, manner),
      manner,
      signal,
      (step) => {
        trace.route = [...trace.route, step]
      },
    )
    try {
      return yield* this.#relay(chunks, manner, sampling, trace)
    } finally {
      await chunks.return()
      lease.release()
    }
  }

  async *#relay(
    chunks: AsyncGenerator<Chunk, void>,
    manner: Manner,
    sampling: Sampling,
    trace: Trace,
  ): AsyncGenerator<Piece, Finish> {
    const text = new TextStream(sampling.stop)
    const places = new CallPlaces('The server')
    let shownChars = 0
    let parts = 0
    let reason: Finish['reason'] | null = null
    let usage: { readonly prompt: number; readonly completion: number; readonly cached: number } | null = null
    for (;;) {
      const askedMs = trace.now()
      const { value: chunk, done } = await chunks.next()
      trace.add(parts === 0 && manner === 'streamed' ? 'prefill' : 'decode', trace.now() - askedMs)
      if (done) break
      const shown = text.pushText(chunk.text)
      shownChars += shown.length
      if (shown !== '' || chunk.calls.length > 0) parts++
      const piece = pieceOf(
        shown,
        chunk.calls.map((call) => places.place(call)),
        chunk.tokens,
      )
      if (piece !== null) yield piece
      reason = chunk.reason ?? reason
      usage = chunk.usage ?? usage
    }
    if (reason === null) throw new UpstreamFault('The server', 'ended its answer without saying why; try again')
    const rest = text.end()
    if (rest !== '') yield { text: rest }
    trace.promptTokens = usage?.prompt ?? trace.promptTokens
    trace.tokensCached = usage?.cached ?? 0
    return {
      reason: text.stopped ? 'stop' : reason,
      promptTokens: trace.promptTokens,
      completionTokens: usage?.completion ?? estimate(shownChars),
      cachedTokens: trace.tokensCached,
    }
  }

  /** The messages as text; the server's own format and token ids are not known here. */
  inspect(prompt: Prompt): Inspection {
    return { text: prompt.messages.map(({ role, content }) => `${role}: ${content}\n`).join(''), tokens: [] }
  }

  /** An estimate: a quarter of the characters. */
  countTokens(prompt: Prompt): number {
    return prompt.messages.reduce((sum, { content }) => sum + estimate(content.length), 0)
  }

  load(): Load {
    return this.#slots.load()
  }

  async replace(asked: readonly UpstreamServerOptions[], patience?: Partial<Patience>): Promise<void> {
    const { servers } = await identified(asked, patience)
    this.#retired = [...this.#retired.filter(({ isIdle }) => !isIdle), this.#fleet]
    this.#fleet.retire()
    this.#fleet = this.#fleetOf(servers)
  }

  backends(): readonly Backend[] {
    return this.#fleet.backends()
  }

  async close(graceMs: number): Promise<void> {
    this.#slots.close()
    const isDrained = await this.#slots.drained(graceMs)
    for (const fleet of [this.#fleet, ...this.#retired]) {
      if (!isDrained) fleet.stop(shuttingDown())
      fleet.close()
    }
  }
}

/**
 * In one part only where nobody reads it as it comes and it is over in seconds. A longer one is streamed all the same: a connection that is
 * silent for long may be cut by proxies, and would hide a server that hangs.
 */
function mannerOf({ whole = false }: Prompt, { maxTokens }: Sampling): Manner {
  return whole && maxTokens !== undefined && maxTokens <= WHOLE_TOKENS ? 'whole' : 'streamed'
}

function estimate(chars: number): number {
  return Math.ceil(chars / CHARS_PER_TOKEN)
}

/** What a conversation is told by: all up to its first user message, which stays as it grows. */
function beginning({ messages }: Prompt): string {
  const first = messages.findIndex(({ role }) => role === 'user')
  return messages
    .slice(0, first + 1)
    .map(({ role, content }) => `${role}:${content}`)
    .join('\n')
}
