import type { Response } from 'express'
import type { PalimpsestError } from '../../errors.ts'
import { wireError } from '../../wire/openai/error.ts'

export interface StreamOptions {
  readonly heartbeatMs: number
  readonly stalledMs: number
  /** Asked for once, when the stream opens. */
  readonly headers: () => Readonly<Record<string, string>>
  /** Asked for once, when it ends; sent as trailers (RFC 9110, 6.5), which most clients pass over. */
  readonly trailers: () => Readonly<Record<string, string>>
}

/**
 * A server-sent event stream (WHATWG HTML, 9.2) that opens with its first event, so that until then an error can still be an ordinary
 * HTTP response. Where nothing was sent for `heartbeatMs` it opens anyway and sends a comment: proxies close silent connections.
 */
export class EventStream {
  readonly #res: Response
  readonly #options: StreamOptions
  readonly #timer: NodeJS.Timeout
  #silent = true

  constructor(res: Response, options: StreamOptions) {
    this.#res = res
    this.#options = options
    this.#timer = setInterval(() => this.#beat(), options.heartbeatMs)
    this.#timer.unref()
    res.once('close', () => this.stop())
  }

  get opened(): boolean {
    return this.#res.headersSent
  }

  /** Sends one event; resolves when the client is ready for the next. A client that reads nothing for `stalledMs` is cut off. */
  async send(value: unknown, event?: string): Promise<void> {
    this.#silent = false
    await this.#write(`${event === undefined ? '' : `event: ${event}\n`}data: ${JSON.stringify(value)}\n\n`)
  }

  /** The end that OpenAI's clients wait for in a chat. */
  async done(): Promise<void> {
    await this.#write('data: [DONE]\n\n')
    this.end()
  }

  /** An error after the stream has opened: one event in OpenAI's error shape, and no `[DONE]`. */
  async fail(error: PalimpsestError): Promise<void> {
    await this.send(wireError(error))
    this.end()
  }

  end(): void {
    this.stop()
    if (!this.#res.destroyed) this.#res.addTrailers(this.#options.trailers())
    this.#res.end()
  }

  /** Ends the heartbeat. */
  stop(): void {
    clearInterval(this.#timer)
  }

  #beat(): void {
    if (this.#silent && !this.#res.writableNeedDrain) this.#write(': waiting\n\n').catch(() => this.#res.destroy())
    this.#silent = true
  }

  async #write(text: string): Promise<void> {
    if (this.#res.destroyed) return
    if (!this.#res.headersSent) this.#open()
    if (!this.#res.write(text)) await drained(this.#res, this.#options.stalledMs)
  }

  #open(): void {
    this.#res.writeHead(200, {
      'Content-Type': 'text/event-stream; charset=utf-8',
      'Cache-Control': 'no-cache, no-transform',
      'X-Accel-Buffering': 'no',
      Trailer: Object.keys(this.#options.trailers()).join(', '),
      ...this.#options.headers(),
    })
    this.#res.socket?.setNoDelay(true)
  }
}

/** Resolves when the client has read what was written, or is gone; destroys the connection when it reads nothing for `stalledMs`. */
export function drained(res: Response, stalledMs: number): Promise<void> {
  return new Promise((resolve) => {
    const stalled = setTimeout(() => res.destroy(), stalledMs)
    const settle = () => {
      clearTimeout(stalled)
      res.off('drain', settle)
      res.off('close', settle)
      resolve()
    }
    res.on('drain', settle)
    res.on('close', settle)
  })
}
