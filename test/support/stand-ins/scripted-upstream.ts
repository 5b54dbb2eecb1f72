import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

export interface UpstreamScript {
  /** First word of every answer. */
  readonly name?: string
  /** Words of an answer, one an event. */
  readonly words?: number
  /** Before each word. */
  readonly delayMs?: number
}

export interface ScriptedUpstream {
  readonly url: string
  /** Answers begun. */
  asked(): number
  close(): Promise<void>
}

/** An OpenAI-compatible server that says its name, then `edited` where the prompt holds the word Ada, then some words. Streams only. */
export async function startUpstream({ name = 'one', words = 20, delayMs = 10 }: UpstreamScript = {}): Promise<ScriptedUpstream> {
  let asked = 0
  const server = createServer((req, res) => {
    if (req.method === 'GET') return void json(res, { data: [{ id: 'scripted' }] })
    asked++
    void answer(req, res, name, words, delayMs)
  }).listen(0, '127.0.0.1')
  server.keepAliveTimeout = 60_000
  await new Promise((resolve) => server.once('listening', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked: () => asked,
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function json(res: ServerResponse, body: object): void {
  res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

async function answer(req: IncomingMessage, res: ServerResponse, name: string, words: number, delayMs: number): Promise<void> {
  let body = ''
  for await (const piece of req) body += piece
  const said = [name, ...(body.includes('Ada') ? ['edited'] : []), ...Array.from({ length: words }, (_, i) => `w${i}`)]
  res.writeHead(200, { 'content-type': 'text/event-stream' })
  const event = (delta: object, reason: string | null) =>
    res.write(`data: ${JSON.stringify({ choices: [{ index: 0, delta, finish_reason: reason }] })}\n\n`)
  for (const word of said) {
    if (delayMs > 0) await sleep(delayMs)
    if (res.destroyed) return
    event({ content: `${word} ` }, null)
  }
  event({}, 'stop')
  const usage = { prompt_tokens: Math.ceil(body.length / 4), completion_tokens: said.length }
  res.write(`data: ${JSON.stringify({ choices: [], usage })}\n\n`)
  res.end('data: [DONE]\n\n')
}
