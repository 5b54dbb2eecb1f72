import type { Dispatcher } from 'undici'
import { UpstreamFault, UpstreamSilence, unreachable } from './wire.ts'

/** How long a server may keep us waiting, in milliseconds. */
export interface Patience {
  readonly connectMs: number
  /** From the request to the first byte of the answer: the prompt is read in this time. */
  readonly firstByteMs: number
  readonly betweenBytesMs: number
  /** From the first byte to the last. */
  readonly answerMs: number
}

/** Of one answer as it is sent: every token is wrapped in some hundred bytes, and log probabilities in thousands. */
const ANSWER_BYTES = 512 * 1024 * 1024
/** Read ahead of whoever takes the answer; beyond that the server waits. */
const AHEAD_BYTES = 64 * 1024
/** What may come after the part that says that the answer is complete, so that the connection can be kept; and for how long. */
const AFTERWARDS_BYTES = 16 * 1024
const AFTERWARDS_MS = 1_000

const WAITED_FOR: Readonly<Record<keyof Patience, string>> = {
  connectMs: 'could not be connected to within',
  firstByteMs: 'was silent for',
  betweenBytesMs: 'was silent in mid-answer for',
  answerMs: 'did not end its answer within',
}

/** Errors of a connection that ended before anything came. */
const BROKEN = new Set(['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET'])

/**
 * One request and its answer: first the head, then the body as it comes. It is ended by whoever asked, or by the server's silence, whichever
 * is first. One that ends by itself leaves its connection to the next.
 */
export class Exchange implements Dispatcher.DispatchHandlers {
  readonly #dispatcher: Dispatcher
  readonly #request: Dispatcher.DispatchOptions
  readonly #base: string
  readonly #patience: Patience
  readonly #asker: AbortSignal
  readonly #ahead: Buffer[] = []
  #aheadBytes = 0
  #leftBytes = ANSWER_BYTES
  #status = 0
  #headers: readonly Buffer[] = []
  #state: 'under way' | 'afterwards' | 'over' = 'under way'
  #fault: { readonly thrown: unknown } | null = null
  #complete = false
  #reused = false
  #isPaused = false
  #wake: () => void = () => {}
  #resume: () => void = () => {}
  #hangUp: (() => void) | null = null
  // One timer at most, set anew only where it would ring too late: every piece of an answer moves the deadline.
  #timer: NodeJS.Timeout | undefined
  #ringsMs = Number.POSITIVE_INFINITY
  #deadlineMs = Number.POSITIVE_INFINITY
  #answerByMs = Number.POSITIVE_INFINITY
  #bound: keyof Patience = 'connectMs'

  constructor(
    dispatcher: Dispatcher,
    request: Dispatcher.DispatchOptions,
    { base, patience, asker }: { readonly base: string; readonly patience: Patience; readonly asker: AbortSignal },
  ) {
    this.#dispatcher = dispatcher
    this.#request = request
    this.#base = base
    this.#patience = patience
    this.#asker = asker
    if (asker.aborted) this.end(asker.reason)
    else {
      asker.addEventListener('abort', this.#left, { once: true })
      this.#send()
    }
  }

  readonly #left = () => {
    this.#ahead.length = 0
    this.end(this.#asker.reason)
  }

  /** The status, once the head of the answer is there. Throws what ended the exchange. */
  async head(): Promise<number> {
    while (this.#status === 0) await this.#news()
    return this.#status
  }

  /** The next bytes of the body; null after the last. Throws what ended the exchange. */
  async read(): Promise<Buffer | null> {
    for (;;) {
      const bytes = this.#ahead.shift()
      if (bytes !== undefined) {
        this.#aheadBytes -= bytes.length
        if (this.#isPaused && this.#aheadBytes <= AHEAD_BYTES) this.#goOn()
        return bytes
      }
      if (this.#complete) return null
      await this.#news()
    }
  }

  /** A header of the answer's head, once that is there. */
  header(name: string): string | null {
    for (let at = 0; at + 1 < this.#headers.length; at += 2)
      if (this.#headers[at]?.toString('latin1').toLowerCase() === name) return this.#headers[at + 1]?.toString('latin1') ?? null
    return null
  }

  /** Nothing more is wanted. What little is left of an answer that said it was complete is taken in, and the connection kept; any other is cut. */
  leave(isComplete: boolean): void {
    if (this.#state !== 'under way') return
    this.#asker.removeEventListener('abort', this.#left)
    if (!isComplete || this.#complete || this.#fault !== null) {
      this.#cut()
      return
    }
    this.#state = 'afterwards'
    this.#leftBytes = AFTERWARDS_BYTES
    if (this.#isPaused) this.#resume()
    this.#deadlineMs = performance.now() + AFTERWARDS_MS
    this.#arm()
  }

  /** Ends it from outside; whoever waits for it gets `reason`. */
  end(reason: unknown): void {
    this.#fault ??= { thrown: reason }
    this.#wake()
    this.#cut()
  }

  onConnect(abort: () => void): void {
    this.#hangUp = abort
    if (this.#state === 'over') abort()
    else this.#watch('firstByteMs')
  }

  onHeaders(status: number, headers: Buffer[], resume: () => void): boolean {
    // An interim answer, as 103 Early Hints.
    if (status < 200) return true
    this.#status = status
    this.#headers = headers
    this.#resume = resume
    this.#wake()
    return true
  }

  onData(bytes: Buffer): boolean {
    this.#leftBytes -= bytes.length
    if (this.#state !== 'under way') {
      if (this.#leftBytes < 0) this.#cut()
      return true
    }
    if (this.#leftBytes < 0) {
      this.end(new UpstreamFault(this.#base, `sent an answer of more than ${ANSWER_BYTES} bytes`))
      return true
    }
    this.#watch('betweenBytesMs')
    this.#ahead.push(bytes)
    this.#aheadBytes += bytes.length
    this.#wake()
    if (this.#aheadBytes <= AHEAD_BYTES) return true
    // It is we who keep the server waiting.
    this.#isPaused = true
    this.#deadlineMs = this.#answerByMs
    return false
  }

  onComplete(): void {
    this.#complete = true
    this.#wake()
    if (this.#state === 'afterwards') this.#stop()
    else this.#rest()
  }

  onError(cause: NodeJS.ErrnoException): void {
    this.#hangUp = null
    if (this.#state !== 'under way' || this.#fault !== null) this.#stop()
    // A kept connection that the server had closed in the meantime: nothing was asked yet.
    else if (this.#reused && this.#status === 0 && BROKEN.has(cause.code ?? '')) this.#send()
    else this.end(cause.code === 'UND_ERR_CONNECT_TIMEOUT' ? this.#late('connectMs') : unreachable(this.#base, cause))
  }

  #send(): void {
    this.#watch('connectMs')
    this.#dispatcher.dispatch(this.#request, this)
    // On a new connection it is sent later.
    this.#reused = this.#hangUp !== null
  }

  async #news(): Promise<void> {
    if (this.#fault !== null) throw this.#fault.thrown
    await new Promise<void>((resolve) => {
      this.#wake = resolve
    })
  }

  #goOn(): void {
    this.#isPaused = false
    this.#watch('betweenBytesMs')
    this.#resume()
  }

  /** (Re)starts the clock. */
  #watch(bound: keyof Patience): void {
    const now = performance.now()
    if (bound === 'betweenBytesMs' && this.#answerByMs === Number.POSITIVE_INFINITY)
      this.#answerByMs = now + this.#patience.answerMs
    const byMs = now + this.#patience[bound]
    this.#bound = byMs < this.#answerByMs ? bound : 'answerMs'
    this.#deadlineMs = Math.min(byMs, this.#answerByMs)
    if (this.#deadlineMs < this.#ringsMs) this.#arm()
  }

  #arm(): void {
    clearTimeout(this.#timer)
    this.#ringsMs = this.#deadlineMs
    this.#timer = setTimeout(() => this.#ring(), this.#deadlineMs - performance.now())
  }

  #ring(): void {
    this.#ringsMs = Number.POSITIVE_INFINITY
    if (this.#state === 'afterwards') this.#cut()
    else if (performance.now() < this.#deadlineMs) this.#arm()
    else this.end(this.#late(this.#bound))
  }

  #late(bound: keyof Patience): UpstreamSilence {
    const state = `${WAITED_FOR[bound]} ${this.#patience[bound] / 1000} s; try again, or allow it more time`
    return new UpstreamSilence(this.#base, state)
  }

  #rest(): void {
    clearTimeout(this.#timer)
    this.#ringsMs = Number.NEGATIVE_INFINITY
  }

  #stop(): void {
    this.#state = 'over'
    this.#asker.removeEventListener('abort', this.#left)
    this.#rest()
  }

  #cut(): void {
    this.#stop()
    if (!this.#complete) this.#hangUp?.()
  }
}
