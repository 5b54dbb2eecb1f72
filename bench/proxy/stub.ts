/**
 * The upstream of bench/proxy.ts, in a process of its own: a plain node:http server that answers every chat alike, at once. A stream has
 * `WORDS` words, the first at once and the others `GAP_MS` apart.
 */
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export const WORDS = 40
const GAP_MS = 2

const usage = { prompt_tokens: 24, completion_tokens: WORDS, total_tokens: 24 + WORDS }
const heading = { id: 'chatcmpl-stub', created: 1_700_000_000, model: 'stub' }
const words = Array.from({ length: WORDS }, (_, i) => `word${i} `)
const message = { role: 'assistant', content: words.join('') }
const WHOLE = JSON.stringify({
  ...heading,
  object: 'chat.completion',
  choices: [{ index: 0, message, finish_reason: 'stop', logprobs: null }],
  usage,
})
const event = (choices: readonly object[], more = {}) =>
  `data: ${JSON.stringify({ ...heading, object: 'chat.completion.chunk', choices, ...more })}\n\n`
const part = (delta: object, reason: string | null = null) => event([{ index: 0, delta, finish_reason: reason, logprobs: null }])
const PARTS = words.map((content, i) => part(i === 0 ? { role: 'assistant', content } : { content }))
const END = `${part({}, 'stop')}${event([], { usage })}data: [DONE]\n\n`

function stream(res: ServerResponse, paced: boolean): void {
  res.writeHead(200, { 'content-type': 'text/event-stream' })
  if (!paced) return void res.end(PARTS.join('') + END)
  let sent = 0
  const next = () => {
    res.write(PARTS[sent++])
    if (sent < WORDS) return
    clearInterval(timer)
    res.end(END)
  }
  const timer = setInterval(next, GAP_MS)
  next()
}

const server = createServer((req, res) => {
  if (req.method === 'GET') {
    res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ data: [{ id: 'stub', object: 'model' }] }))
    return
  }
  let body = ''
  req.setEncoding('utf8').on('data', (text: string) => {
    body += text
  })
  req.on('end', () => {
    // A gateway may ask for a stream where its client does not: that one is not paced, since nobody times it.
    if (body.includes('"stream":true')) stream(res, body.includes('paced'))
    else res.writeHead(200, { 'content-type': 'application/json', 'content-length': WHOLE.length }).end(WHOLE)
  })
})
server.keepAliveTimeout = 60_000
server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => {
  process.send?.({ port: (server.address() as AddressInfo).port })
})
process.once('disconnect', () => process.exit())
