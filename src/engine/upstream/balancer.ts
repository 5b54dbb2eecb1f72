import { createHash } from 'node:crypto'
import { PalimpsestError } from '../../errors.ts'
import type { RouteStep } from '../../trace.ts'
import type { Backend } from '../engine.ts'
import { BREAKER_LIMITS, Breaker, type BreakerLimits } from './circuit-breaker.ts'
import type { Manner } from './request.ts'
import type { UpstreamServer } from './server.ts'
import { type Chunk, UpstreamFault, UpstreamSilence } from './wire.ts'

export interface FleetOptions {
  readonly now: () => number
  readonly breaker?: BreakerLimits
  /** Between two looks at whether a server lives; 0: none is taken. */
  readonly healthMs: number
  /** Servers asked for one answer at most. */
  readonly tries: number
}

interface Member {
  readonly server: UpstreamServer
  readonly breaker: Breaker
  busy: number
  lastFault: string | null
}

/** A server may be this much busier than its share before its conversations go to the next one. */
const OVERLOAD = 1.25

/**
 * Several servers as one. A conversation goes to the same server while that lives and is not overloaded, since that one has its
 * beginning cached (weighted rendezvous hashing, Thaler and Ravishankar 1998, with the bounded loads of Mirrokni et al. 2018). One that
 * fails before the first piece of an answer is replaced by the next; after that a failure is the client's to know.
 */
export class Fleet {
  readonly #members: readonly Member[]
  readonly #options: FleetOptions
  readonly #timer: NodeJS.Timeout | undefined
  readonly #closing = new AbortController()
  #isRetired = false

  constructor(servers: readonly UpstreamServer[], options: FleetOptions) {
    this.#options = options
    this.#members = servers.map((server) => ({
      server,
      breaker: new Breaker(options.now, options.breaker ?? BREAKER_LIMITS),
      busy: 0,
      lastFault: null,
    }))
    if (options.healthMs > 0) this.#timer = setInterval(() => this.#look(), options.healthMs).unref()
  }

  /**
   * The pieces of an answer to the conversation that begins with `key`. Each server asked, and how it went, goes to `note`. Throws what
   * the last server threw; `engine_unavailable` with the time to come back where none may be asked.
   */
  async *chunks(
    key: string,
    body: (server: UpstreamServer) => string,
    manner: Manner,
    signal: AbortSignal,
    note: (step: RouteStep) => void,
  ): AsyncGenerator<Chunk, void> {
    const asked = new Set<Member>()
    for (;;) {
      const member = this.#choose(key, asked)
      asked.add(member)
      let begun = false
      let settled = false
      member.busy++
      try {
        for await (const chunk of member.server.chunks(body(member.server), manner, signal)) {
          if (!begun) note({ to: member.server.name, outcome: 'answers' })
          begun = true
          yield chunk
        }
        member.breaker.succeeded()
        settled = true
        return
      } catch (error) {
        settled = true
        const again = this.#learn(member, error, signal)
        const outcome = error instanceof Error ? error.message : String(error)
        note({ to: member.server.name, outcome })
        if (!again || begun || asked.size >= Math.min(this.#options.tries, this.#members.length)) throw error
      } finally {
        // The reader left, or stopped at a stop string: no fault of the server's.
        if (!settled) member.breaker.undecided()
        member.busy--
        if (this.#isRetired) this.#closeWhenIdle()
      }
    }
  }

  backends(): Backend[] {
    return this.#members.map(({ server, breaker, busy, lastFault }) => ({
      name: server.name,
      state: breaker.state === 'closed' && breaker.waitMs > 0 ? 'paused' : breaker.state,
      weight: server.weight,
      busy,
      faults: breaker.faults,
      lastFault,
    }))
  }

  /** Gets no more conversations: closes once those under way have ended. */
  retire(): void {
    this.#isRetired = true
    clearInterval(this.#timer)
    this.#closeWhenIdle()
  }

  get isIdle(): boolean {
    return this.#members.every(({ busy }) => busy === 0)
  }

  #closeWhenIdle(): void {
    if (this.isIdle) this.close()
  }

  /** Ends the answers under way; whoever waits for one gets `reason`. */
  stop(reason: unknown): void {
    for (const { server } of this.#members) server.stop(reason)
  }

  close(): void {
    clearInterval(this.#timer)
    this.#closing.abort()
    for (const { server } of this.#members) server.close()
  }

  /** Whether another server may be asked instead. */
  #learn(member: Member, error: unknown, signal: AbortSignal): boolean {
    if (signal.aborted) {
      member.breaker.undecided()
      return false
    }
    if (!(error instanceof PalimpsestError)) {
      member.breaker.undecided()
      return false
    }
    switch (error.code) {
      case 'queue_full':
        member.breaker.paused((error.retryAfterSeconds ?? 1) * 1000)
        return true
      case 'upstream_failed':
        // Everybody may see it: nothing that the server said.
        member.lastFault = error instanceof UpstreamFault ? error.state : error.code
        member.breaker.failed(error instanceof UpstreamSilence ? 'silent' : 'answered')
        if (error.retryAfterSeconds !== undefined) member.breaker.paused(error.retryAfterSeconds * 1000)
        return true
      default:
        // It answered that the request is wrong: any other would, too.
        member.breaker.succeeded()
        return false
    }
  }

  #choose(key: string, asked: ReadonlySet<Member>): Member {
    const left = this.#members.filter((member) => !asked.has(member))
    const ranked = this.#ranked(key, left)
    const calm = ranked.filter((member) => !this.#overloaded(member))
    const busy = ranked
      .filter((member) => !calm.includes(member))
      .sort((a, b) => a.busy / a.server.weight - b.busy / b.server.weight)
    const order = [...calm, ...busy]
    const found = order.find(({ breaker }) => breaker.admit()) ?? order.find(({ breaker }) => breaker.admitLast())
    if (found !== undefined) return found
    const seconds = Math.max(1, Math.ceil(Math.min(...this.#members.map(({ breaker }) => breaker.waitMs)) / 1000))
    throw new PalimpsestError(
      'engine_unavailable',
      `None of the ${this.#members.length} servers behind this gateway can be asked now (${this.#faults()}); try again in about ${seconds} s.`,
      { retryAfterSeconds: seconds },
    )
  }

  #ranked(key: string, members: readonly Member[]): readonly Member[] {
    if (members.length < 2) return members
    return members
      .map((member) => ({ member, score: -member.server.weight / Math.log(fraction(key, member.server.base)) }))
      .sort((a, b) => b.score - a.score)
      .map(({ member }) => member)
  }

  #overloaded({ busy, server }: Member): boolean {
    const total = this.#members.reduce((sum, member) => sum + member.busy, 0)
    const weights = this.#members.reduce((sum, member) => sum + member.server.weight, 0)
    return busy + 1 > Math.ceil(((total + 1) * OVERLOAD * server.weight) / weights)
  }

  #faults(): string {
    return this.backends()
      .map(({ name, state }) => `${name}: ${state}`)
      .join('; ')
  }

  /** A server that answers nobody at the moment is looked at, so that its end is known before a client meets it. */
  #look(): void {
    for (const member of this.#members) {
      if (member.busy > 0 || !member.breaker.admit()) continue
      member.server.look(this.#closing.signal).then(
        // That it lives does not show that it answers: a request closes the breaker.
        () => member.breaker.undecided(),
        (error: unknown) => void this.#learn(member, error, this.#closing.signal),
      )
    }
  }
}

/** In (0, 1), the same for the same texts. */
function fraction(...texts: readonly string[]): number {
  const hash = createHash('sha256').update(texts.join('\n')).digest()
  return (hash.readUInt32BE(0) + 0.5) / 2 ** 32
}
