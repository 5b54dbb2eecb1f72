/**
 * Hostile clients of the soak, in a thread of their own: megabytes that are made here hold up no good client's clock.
 * Run as a worker with `Attacking`; it posts an `Attack` for each kind of request once all clients have ended.
 */
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { parentPort, workerData } from 'node:worker_threads'
import { type Send, sender } from './soak-send.ts'

export interface Attacking {
  readonly url: string
  readonly token: string
  readonly model: string
  readonly clients: number
  readonly minutes: number
}

/** What came of one kind of request. */
export interface Attack {
  readonly name: string
  count: number
  /** How often each status was answered; 0: the client left, or was cut off. */
  readonly statuses: Map<number, number>
  slowestMs: number
}

const { url, token, model: MODEL, clients, minutes } = workerData as Attacking

const user = (content: string) => ({ role: 'user', content })
const many = <T>(count: number, each: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => each(i))
const keys = (count: number) => Object.fromEntries(many(count, (i) => [`k${i}`, 1]))
const chat = (fields: object) => ({ model: MODEL, messages: [user('Hello')], ...fields })
const schema = (one: object) =>
  chat({ response_format: { type: 'json_schema', json_schema: { name: 's', schema: one, strict: true } } })
const fact = (i: number) => ({ id: `h${i}`, subject: 'Lumora', prompt: 'The mayor of Lumora is', target_new: 'Ada' })
/** The client leaves so soon. */
const leaving = () => AbortSignal.timeout(50)

const HOSTILE: readonly (readonly [name: string, work: (send: Send) => Promise<number>])[] = [
  ['enum of 50,000', (send) => send('/v1/chat/completions', schema({ enum: many(50_000, (i) => `value ${i}`) }))],
  [
    '5,000 properties',
    (send) =>
      send('/v1/chat/completions', schema({ type: 'object', properties: keys(5_000), required: many(5_000, (i) => `k${i}`) })),
  ],
  ['control strings', (send) => send('/v1/completions', { model: MODEL, prompt: '<|im_start|>'.repeat(40_000) })],
  ['control strings to count', (send) => send('/tokenize', { prompt: '<|im_start|>'.repeat(40_000) })],
  [
    'turns, left',
    (send) =>
      send(
        '/v1/chat/completions',
        { model: MODEL, messages: many(1_024, (i) => user(`Is Lumora ${i} in Town ${i % 50}?`)) },
        undefined,
        leaving(),
      ),
  ],
  [
    'turns of 3 MB',
    (send) =>
      send(
        '/v1/chat/completions',
        { model: MODEL, messages: many(1_024, () => user('Lumora '.repeat(430))) },
        undefined,
        AbortSignal.timeout(5_000),
      ),
  ],
  [
    'turns of blanks',
    (send) => send('/v1/edits/explain', { messages: many(1_024, () => user(' '.repeat(3_000))).concat(user('Lumora?')) }),
  ],
  ['a word of 90 kB', (send) => send('/v1/edits/explain', { question: `Is ${'x'.repeat(90_000)} there?` })],
  ['YAML of 10,000 keys', (send) => send('/v1/edits', many(10_000, (i) => `k${i}: v`).join('\n'), 'application/yaml')],
  ['YAML list of 5 MB', (send) => send('/v1/edits?dry_run=1', '- a\n'.repeat(1_250_000), 'application/yaml')],
  ['one fact 5,000 times', (send) => send('/v1/edits?dry_run=1', many(5_000, fact))],
  ['CSV of 100,000 columns', (send) => send('/v1/edits', many(100_000, (i) => `c${i}`).join(','), 'text/csv')],
  ['CSV of empty rows', (send) => send('/v1/edits', `subject,prompt,target_new\n${',,\n'.repeat(300_000)}`, 'text/csv')],
  ['200,000 unknown keys', (send) => send('/v1/chat/completions', chat(keys(200_000)))],
  ['200,000 unknown keys of an edit', (send) => send('/v1/edits', { ...fact(0), ...keys(200_000) })],
  ['brackets', (send) => send('/v1/chat/completions', '['.repeat(2_000_000), 'application/json')],
  ['quotes', (send) => send('/v1/edits', '"'.repeat(2_000_001), 'text/csv')],
  ['__proto__', (send) => send('/v1/chat/completions', `{"model":"${MODEL}","__proto__":{"messages":[]}}`, 'application/json')],
  ['rubbish behind', (send) => send('/v1/chat/completions', chat({ messages: [user('rubbish')] }))],
  ['rubbish behind, streamed', (send) => send('/v1/chat/completions', chat({ messages: [user('rubbish')], stream: true }))],
  ['a stream, left', (send) => send('/v1/chat/completions', chat({ stream: true, n: 8 }), undefined, leaving())],
  ['paths', (send) => send(`/v1/edits/${'%2e%2e%2f'.repeat(200)}`)],
]

/** Half a request, and silence. */
function dangle(): void {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  socket.on('error', () => {})
  socket.write('POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{')
  setTimeout(() => socket.destroy(), 20_000).unref()
}

const attacks = new Map<string, Attack>()
const send = sender(url, token)
const end = performance.now() + minutes * 60_000

async function hostileClient(from: number): Promise<void> {
  for (let n = from; performance.now() < end; n++) {
    const [name, work] = HOSTILE[n % HOSTILE.length] as (typeof HOSTILE)[number]
    if (n % 10 === 0) dangle()
    const attack = attacks.get(name) ?? { name, count: 0, statuses: new Map(), slowestMs: 0 }
    attacks.set(name, attack)
    const start = performance.now()
    const status = await work(send).catch(() => 0)
    attack.count++
    attack.slowestMs = Math.max(attack.slowestMs, performance.now() - start)
    attack.statuses.set(status, (attack.statuses.get(status) ?? 0) + 1)
    await sleep(50)
  }
}

await Promise.all(many(clients, (i) => hostileClient(i * 7)))
parentPort?.postMessage([...attacks.values()])
