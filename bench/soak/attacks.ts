/**
 * Hostile clients of the soak, in a process of their own: megabytes that are made here hold up no good client's clock.
 * Run with `Attacking` as JSON; it prints a list of `Attack` as JSON once all clients have ended.
 */
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { sender } from './send.ts'

export interface Attacking {
  readonly url: string
  readonly token: string
  readonly model: string
  readonly clients: number
  readonly minutes: number
  /** Names of attacks; absent: all. */
  readonly only?: readonly string[]
}

/** What came of one kind of request. */
export interface Attack {
  readonly name: string
  count: number
  /** How often each status was answered; 0: the client left, or was cut off. */
  readonly statuses: Record<number, number>
  slowestMs: number
}

const { url, token, model: MODEL, clients, minutes, only } = JSON.parse(process.argv[2] ?? '') as Attacking

const user = (content: string) => ({ role: 'user', content })
const many = <T>(count: number, each: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => each(i))
const keys = (count: number) => Object.fromEntries(many(count, (i) => [`k${i}`, 1]))
const chat = (fields: object) => ({ model: MODEL, messages: [user('Hello')], ...fields })
const schema = (one: object) =>
  chat({ response_format: { type: 'json_schema', json_schema: { name: 's', schema: one, strict: true } } })
const fact = (i: number) => ({ id: `h${i}`, subject: 'Lumora', prompt: 'The mayor of Lumora is', target_new: 'Ada' })
/** The client leaves so soon. */
const LEAVING_MS = 50
const PATIENT_MS = 120_000

interface Hostile {
  readonly path: string
  readonly body?: unknown
  readonly type?: string
  readonly leavesMs?: number
}

const chats = (body: unknown, leavesMs = PATIENT_MS): Hostile => ({ path: '/v1/chat/completions', body, leavesMs })
const edits = (body: unknown, type = 'application/json', query = ''): Hostile => ({ path: `/v1/edits${query}`, body, type })
const explain = (body: unknown): Hostile => ({ path: '/v1/edits/explain', body })
const required = many(5_000, (i) => `k${i}`)
const marks = '<|im_start|>'.repeat(40_000)

const HOSTILE: Readonly<Record<string, Hostile>> = {
  'enum of 50,000': chats(schema({ enum: many(50_000, (i) => `value ${i}`) })),
  '5,000 properties': chats(schema({ type: 'object', properties: keys(5_000), required })),
  'control strings': { path: '/v1/completions', body: { model: MODEL, prompt: marks } },
  'control strings to count': { path: '/tokenize', body: { prompt: marks } },
  'turns, left': chats(chat({ messages: many(1_024, (i) => user(`Is Lumora ${i} in Town ${i % 50}?`)) }), LEAVING_MS),
  'turns of 3 MB': chats(chat({ messages: many(1_024, () => user('Lumora '.repeat(430))) }), 5_000),
  'turns of blanks': explain({ messages: many(1_024, () => user(' '.repeat(3_000))).concat(user('Lumora?')) }),
  'a word of 90 kB': explain({ question: `Is ${'x'.repeat(90_000)} there?` }),
  'YAML of 10,000 keys': edits(many(10_000, (i) => `k${i}: v`).join('\n'), 'application/yaml'),
  'YAML list of 5 MB': edits('- a\n'.repeat(1_250_000), 'application/yaml', '?dry_run=1'),
  'one fact 5,000 times': edits(many(5_000, fact), 'application/json', '?dry_run=1'),
  'CSV of 100,000 columns': edits(many(100_000, (i) => `c${i}`).join(','), 'text/csv'),
  'CSV of empty rows': edits(`subject,prompt,target_new\n${',,\n'.repeat(300_000)}`, 'text/csv'),
  '200,000 unknown keys': chats(chat(keys(200_000))),
  '200,000 unknown keys of an edit': edits({ ...fact(0), ...keys(200_000) }),
  brackets: chats('['.repeat(2_000_000)),
  quotes: edits('"'.repeat(2_000_001), 'text/csv'),
  ['__proto__']: chats(`{"model":"${MODEL}","__proto__":{"messages":[]}}`),
  'rubbish behind': chats(chat({ messages: [user('rubbish')] })),
  'rubbish behind, streamed': chats(chat({ messages: [user('rubbish')], stream: true })),
  'a stream, left': chats(chat({ stream: true, n: 8 }), LEAVING_MS),
  paths: { path: `/v1/edits/${'%2e%2e%2f'.repeat(200)}` },
}

/** Bodies are made once: it is the gateway that is to have the work. */
const prepared = Object.entries(HOSTILE)
  .filter(([name]) => only === undefined || only.includes(name))
  .map(([name, { body, ...rest }]) => {
    const text = typeof body === 'string' ? body : JSON.stringify(body)
    return { name, ...rest, body: text === undefined ? undefined : Buffer.from(text) }
  })

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
    const { name, path, body, type, leavesMs = PATIENT_MS } = prepared[n % prepared.length] as (typeof prepared)[number]
    if (n % 10 === 0) dangle()
    const attack = attacks.get(name) ?? { name, count: 0, statuses: {}, slowestMs: 0 }
    attacks.set(name, attack)
    const start = performance.now()
    const status = await send(path, body, type, AbortSignal.timeout(leavesMs)).catch(() => 0)
    attack.count++
    attack.slowestMs = Math.max(attack.slowestMs, performance.now() - start)
    attack.statuses[status] = (attack.statuses[status] ?? 0) + 1
    await sleep(50)
  }
}

await Promise.all(many(clients, (i) => hostileClient(i * 7)))
console.log(JSON.stringify([...attacks.values()]))
// Half requests are still open.
process.exit(0)
