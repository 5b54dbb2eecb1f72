/**
 * Load for bench/gateway.ts and bench/proxy.ts from a process of its own: each connection sends its next request as soon as the last answer is whole. Plain
 * sockets, since a client that takes as long as the server would hide half of what is measured.
 */
import { connect, type Socket } from 'node:net'

export interface Load {
  readonly port: number
  /** Sent in turn, each a chat request's body. */
  readonly bodies: readonly string[]
  readonly headers?: Readonly<Record<string, string>>
  readonly connections: number
  /** Whichever comes first. */
  readonly requests: number
  readonly seconds: number
}

export interface Done {
  readonly latenciesMs: readonly number[]
  /** Of each answer, the reader's part by its `Server-Timing`. */
  readonly readMs: readonly number[]
  /** Of answers in the stub's words: from the request to the first, and from each to the next. */
  readonly firstMs: readonly number[]
  readonly gapsMs: readonly number[]
  readonly seconds: number
  /** Answers that did not begin with 200. */
  readonly failed: number
}

/** A whole answer: as long as it says, or up to the last chunk and its trailers (RFC 9112, 7.1). */
function whole(text: string): boolean {
  const end = text.indexOf('\r\n\r\n')
  if (end < 0) return false
  const length = /\r\ncontent-length: (\d+)/i.exec(text.slice(0, end + 2))?.[1]
  if (length !== undefined) return text.length >= end + 4 + Number(length)
  return /\r\n0\r\n(?:[^\r\n]+\r\n)*\r\n$/.test(text.slice(-500))
}

const WORD = /"content":\s*"word/g

/** One request; resolves to its head. `came`: for each word, when. */
function exchange(socket: Socket, request: string, came: number[]): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    const take = (part: string) => {
      text += part
      for (const _ of part.matchAll(WORD)) came.push(performance.now())
      if (!whole(text)) return
      socket.off('data', take)
      socket.off('close', lost)
      resolve(text.slice(0, text.indexOf('\r\n\r\n')))
    }
    const lost = () => reject(new Error(`the connection closed after ${text.length} characters of an answer`))
    socket.on('data', take)
    socket.once('close', lost)
    socket.write(request)
  })
}

async function run({ port, bodies, headers = {}, connections, requests, seconds }: Load): Promise<Done> {
  const more = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  const heads = `POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Type: application/json\r\n${more.join('')}`
  const wire = bodies.map((body) => `${heads}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`)
  const latenciesMs: number[] = []
  const readMs: number[] = []
  const firstMs: number[] = []
  const gapsMs: number[] = []
  let sent = 0
  let failed = 0
  const start = performance.now()
  const one = async () => {
    // Answers are ASCII here: a character is a byte.
    const socket = connect({ port, host: '127.0.0.1', noDelay: true }).setEncoding('latin1')
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    while (sent < requests && performance.now() - start < seconds * 1_000) {
      const request = wire[sent++ % wire.length] ?? ''
      const began = performance.now()
      const came: number[] = []
      const head = await exchange(socket, request, came)
      latenciesMs.push(performance.now() - began)
      readMs.push(Number(/^server-timing:.*\bread;dur=([\d.]+)/im.exec(head)?.[1] ?? 0))
      if (came.length > 1) {
        firstMs.push((came[0] ?? Number.NaN) - began)
        gapsMs.push(...came.slice(1).map((time, i) => time - (came[i] ?? Number.NaN)))
      }
      if (!head.startsWith('HTTP/1.1 200')) failed++
    }
    socket.destroy()
  }
  await Promise.all(Array.from({ length: connections }, one))
  return { latenciesMs, readMs, firstMs, gapsMs, seconds: (performance.now() - start) / 1_000, failed }
}

if (process.send !== undefined) {
  process.once('disconnect', () => process.exit())
  process.on('message', (load: Load) => {
    run(load).then(
      (done) => process.send?.(done),
      (error) => process.send?.({ failed: String(error) }),
    )
  })
}
