import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/**
 * A TCP proxy between a gateway and its database. What a stall holds back arrives later, as over a network that lost packets: a COMMIT can
 * arrive after whoever sent it has given up. Toxiproxy drops it instead, and closes the connection (its pull request 168).
 */
export class NetworkProxy {
  /** Where new connections lead. */
  target: number
  /** Added to each piece that passes, in either direction. */
  delayMs = 0
  /** New connections are closed at once. */
  refuses = false
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  #stalled: { readonly until: Promise<void>; readonly end: () => void } | undefined

  private constructor(target: number) {
    this.target = target
    this.#server = createServer({ allowHalfOpen: true }, (client) => this.#join(client))
  }

  static async open(target: number): Promise<NetworkProxy> {
    const proxy = new NetworkProxy(target)
    proxy.#server.listen(0, '127.0.0.1')
    await once(proxy.#server, 'listening')
    return proxy
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  #join(client: Socket): void {
    if (this.refuses) return void client.resetAndDestroy()
    const server = connect({ port: this.target, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    client.setNoDelay(true)
    for (const socket of [client, server]) {
      this.#sockets.add(socket)
      // Both directions end by it, and say nothing.
      socket.on('error', () => {}).once('close', () => this.#sockets.delete(socket))
    }
    void Promise.all([this.#pass(client, server), this.#pass(server, client)]).then(() => {
      client.destroy()
      server.destroy()
    })
  }

  async #pass(from: Socket, to: Socket): Promise<void> {
    try {
      for await (const piece of from) {
        if (this.delayMs > 0) await sleep(this.delayMs)
        while (this.#stalled !== undefined) await this.#stalled.until
        if (!to.write(piece)) await Promise.race([once(to, 'drain'), once(to, 'close')])
      }
    } catch {
      // Broken: the other side is told by the end of the connection.
    }
    to.end()
  }

  /** Nothing passes until `flow`. */
  stall(): void {
    let end = () => {}
    const until = new Promise<void>((resolve) => {
      end = resolve
    })
    this.#stalled ??= { until, end }
  }

  flow(): void {
    const stalled = this.#stalled
    this.#stalled = undefined
    stalled?.end()
  }

  /** Resets all connections that are open. */
  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy()
  }

  async close(): Promise<void> {
    this.flow()
    const closed = new Promise((resolve) => this.#server.close(resolve))
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }
}
