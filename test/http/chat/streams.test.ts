import { request } from 'node:http'
import { Socket } from 'node:net'
import fc from 'fast-check'
import { afterEach, describe, expect, test, vi } from 'vitest'
import type { Engine } from '../../../src/engine/engine.ts'
import { openScripted } from '../../../src/engine/scripted.ts'
import { PalimpsestError } from '../../../src/errors.ts'
import { MODEL, type Served, serve } from '../fakes.ts'

/** For a machine that does other things too. */
const PATIENCE_MS = 120_000
const RUNS = { numRuns: 25 }

const open: Served[] = []
afterEach(async () => {
  for (const served of open.splice(0)) await served.close()
})

/** What the engine of one run says, and after how many parts it fails. */
interface Part {
  readonly tokens: readonly string[]
  readonly failsAfter?: number
}

/** A server whose engine does as `part` says at the moment of a request. */
async function start(delayMs = 0, heartbeatMs = 15_000) {
  const part: { now: Part } = { now: { tokens: [] } }
  const engine = openScripted({ name: MODEL, reply: () => part.now.tokens, delayMs, slots: 1 })
  const plain = engine.generate.bind(engine)
  const generate: Engine['generate'] = async function* (...asked) {
    const pieces = plain(...asked)
    try {
      for (let given = 0; ; given++) {
        if (given === part.now.failsAfter) throw new PalimpsestError('engine_failed', 'The model stopped working.')
        const { done, value } = await pieces.next()
        if (done) return value
        yield value
      }
    } finally {
      await pieces.return(undefined as never)
    }
  }
  const served = await serve({ engine: Object.assign(engine, { generate }), limits: { heartbeatMs } })
  open.push(served)
  return { served, part }
}

const RIMS = [
  {
    path: '/v1/chat/completions',
    body: { messages: [{ role: 'user', content: 'x' }] },
    // biome-ignore lint/suspicious/noExplicitAny: events as they came
    textOf: (events: any[]) => events.map((event) => event.choices?.[0]?.delta?.content ?? '').join(''),
    // biome-ignore lint/suspicious/noExplicitAny: an answer as it came
    wholeText: (answer: any): string => answer.choices[0].message.content,
    end: '[DONE]',
  },
  {
    path: '/v1/responses',
    body: { input: 'x', store: false },
    // biome-ignore lint/suspicious/noExplicitAny: events as they came
    textOf: (events: any[]) => events.map((event) => (event.type === 'response.output_text.delta' ? event.delta : '')).join(''),
    // biome-ignore lint/suspicious/noExplicitAny: an answer as it came
    wholeText: (answer: any): string => answer.output[0].content[0].text,
    end: 'response.completed',
  },
]
type Rim = (typeof RIMS)[number]

function post({ base }: Served, { path, body }: Rim, fields: object): Promise<Response> {
  return fetch(base + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: MODEL, ...body, ...fields }),
  })
}

/** The blocks of a stream: comments as they are, and the data of events. */
function parse(text: string) {
  const blocks = text.split('\n\n').slice(0, -1)
  const comments = blocks.filter((block) => block.startsWith(':'))
  const data = blocks
    .filter((block) => !block.startsWith(':'))
    .map((block) => block.replace(/^event: .*\n/, '').replace(/^data: /, ''))
  return {
    comments,
    ended: data.includes('[DONE]'),
    events: data.filter((one) => one !== '[DONE]').map((one) => JSON.parse(one)),
  }
}

/** Text in tokens of every kind: empty, of several bytes a character, with line breaks and what looks like an event. */
const token = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 5 }),
  fc.constantFrom('', '\n\n', 'data: [DONE]\n\n', '🏰', 'é', 'STOP', 'ST', 'OP'),
)
const tokens = fc.array(token, { maxLength: 8 })

describe.each(RIMS)('a stream of $path', (rim) => {
  test(
    'says what the answer in one piece says, however it is cut, with stop strings or without',
    async () => {
      const { served, part } = await start()
      // Responses have no stop strings.
      const stops = rim.path === '/v1/responses' ? fc.constant({}) : fc.constantFrom({}, { stop: 'STOP' }, { stop: ['é', 'OP'] })
      await fc.assert(
        fc.asyncProperty(tokens, stops, async (said, fields) => {
          part.now = { tokens: said }
          const whole = rim.wholeText(await (await post(served, rim, fields)).json())
          const text = await (await post(served, rim, { ...fields, stream: true })).text()
          const { events } = parse(text)
          expect(rim.textOf(events)).toBe(whole)
          expect(text).toContain(rim.end)
        }),
        RUNS,
      )
    },
    PATIENCE_MS,
  )

  test(
    'that fails after any number of parts is an HTTP error, or a beginning and one error event',
    async () => {
      const { served, part } = await start()
      await fc.assert(
        fc.asyncProperty(tokens, fc.nat(8), async (said, failsAfter) => {
          part.now = { tokens: said }
          const whole = rim.wholeText(await (await post(served, rim, {})).json())
          part.now = { tokens: said, failsAfter }
          const response = await post(served, rim, { stream: true })
          const error = expect.objectContaining({
            code: 'engine_failed',
            type: 'server_error',
            param: null,
            message: expect.any(String),
          })
          if (response.status !== 200) return void expect(await response.json()).toEqual({ error })
          const { events, ended } = parse(await response.text())
          const failures = events.filter((event) => event.error !== undefined && !event.response)
          expect(whole.startsWith(rim.textOf(events))).toBe(true)
          if (failures.length === 0) return void expect(rim.textOf(events)).toBe(whole)
          expect(failures).toMatchObject([{ error }])
          expect(ended).toBe(false)
          expect(events.at(-1)).toMatchObject(rim.end === '[DONE]' ? { error } : { type: 'response.failed' })
        }),
        RUNS,
      )
    },
    PATIENCE_MS,
  )

  test(
    'whose client leaves after any number of bytes frees its slot, and is no failure',
    async () => {
      const { served, part } = await start(1)
      await fc.assert(
        fc.asyncProperty(fc.nat(3_000), fc.boolean(), async (bytes, stream) => {
          part.now = { tokens: Array(400).fill('word ') }
          const body = JSON.stringify({ model: MODEL, ...rim.body, stream })
          await new Promise<void>((gone) => {
            const headers = { 'content-type': 'application/json' }
            const sent = request(served.base + rim.path, { method: 'POST', headers, agent: false })
            sent.on('error', () => gone()).on('close', () => gone())
            sent.on('response', (res) => {
              let came = 0
              res
                .on('error', () => {})
                .on('data', (data: Buffer) => {
                  came += data.length
                  if (came >= bytes) sent.destroy()
                })
            })
            sent.end(body)
            // An answer in one piece sends nothing until it is whole.
            if (!stream || bytes === 0) setTimeout(() => sent.destroy(), bytes % 30)
          })
          await vi.waitFor(() => expect(served.gateway.engine.load()).toMatchObject({ busy: 0, queued: 0 }))
        }),
        { numRuns: 12 },
      )
      expect(served.logged.filter((line) => 'err' in line)).toEqual([])
    },
    PATIENCE_MS,
  )

  test('with comments in between has them between events, never within one', async () => {
    const { served, part } = await start(8, 2)
    part.now = { tokens: ['a', 'b\n\n', 'c', 'd', 'e', 'f'] }
    const { comments, events } = parse(await (await post(served, rim, { stream: true })).text())
    expect(comments.length).toBeGreaterThan(0)
    expect(new Set(comments)).toEqual(new Set([': waiting']))
    expect(rim.textOf(events)).toBe('ab\n\ncdef')
  })

  test('is sent at once: no proxy holds it back, and neither does the kernel', async () => {
    const noDelay = vi.spyOn(Socket.prototype, 'setNoDelay')
    const { served } = await start()
    const { headers } = await post(served, rim, { stream: true })
    expect(headers.get('x-accel-buffering')).toBe('no')
    expect(headers.get('cache-control')).toBe('no-cache, no-transform')
    expect(headers.get('content-encoding')).toBeNull()
    const port = Number(new URL(served.base).port)
    const ours = (noDelay.mock.contexts as Socket[]).filter((socket) => socket.localPort === port)
    expect(ours.length).toBeGreaterThan(0)
    noDelay.mockRestore()
  })
})
