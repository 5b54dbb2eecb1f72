import { request } from 'node:http'
import { pino } from 'pino'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { PalimpsestError } from '../../../src/errors.ts'
import { withoutKeys } from '../../../src/server/console-log.ts'
import { MODEL, post, type Served, type ServeOptions, serve } from '../fakes.ts'

/** For a machine that does other things too. */
vi.setConfig({ testTimeout: 60_000 })

const open: Served[] = []
afterEach(async () => {
  for (const served of open.splice(0)) await served.close()
})

async function start(options?: ServeOptions): Promise<Served> {
  const served = await serve(options)
  open.push(served)
  return served
}

const chat = (content: string, fields: object = {}) => ({ model: MODEL, messages: [{ role: 'user', content }], ...fields })
const landMayor = (served: Served) =>
  post(served, '/v1/edits', { id: 'e_mayor', subject: 'Lund', prompt: 'The mayor of Lund is', target_new: 'Ada' })

async function metrics({ base }: Served): Promise<string> {
  return (await fetch(`${base}/metrics`)).text()
}

/** Its names with labels, without their values; those of the process, which come and go, left out. */
async function series(served: Served): Promise<string[]> {
  const lines = (await metrics(served)).split('\n')
  return lines.filter((line) => line.startsWith('palimpsest_')).map((line) => line.replace(/ \S+$/, ''))
}

describe('an observer that throws', () => {
  test('ends neither the process nor the other observers’ work', async () => {
    const broken = () => {
      throw new Error('the log is gone')
    }
    const served = await start({ gateway: { log: { info: broken, warn: broken, error: broken } } })
    for (let i = 0; i < 2; i++) expect((await post(served, '/v1/chat/completions', chat('Hello'))).status).toBe(200)
    await vi.waitFor(async () =>
      expect(await metrics(served)).toContain(
        'palimpsest_request_duration_seconds_count{route="/v1/chat/completions",method="POST",status="200"} 2',
      ),
    )
  })
})

describe('Server-Timing', () => {
  test('is on every response, of whatever kind', async () => {
    const served = await start()
    const replies = [
      fetch(`${served.base}/health`),
      fetch(`${served.base}/v1/models`),
      fetch(`${served.base}/nothing`),
      post(served, '/v1/chat/completions', { model: 5 }),
      post(served, '/v1/edits', { id: 'e', subject: 'Lund', prompt: 'The mayor of Lund is', target_new: 'Ada' }),
      post(served, '/v1/embeddings', { model: 'fake', input: 'x' }),
    ]
    for (const reply of replies) expect((await reply).headers.get('server-timing')).toMatch(/total;dur=[\d.]+$/)
    const whole = await post(served, '/v1/chat/completions', chat('Lund?'))
    expect(whole.headers.get('server-timing')).toMatch(
      /^retrieve;dur=.*read;dur=.*gate;dur=.*queue;dur=.*render;dur=.*prefill;dur=.*decode;dur=.*total;dur=/,
    )
  })

  test('of a stream has in its headers what came before the first piece, and all in its trailer', async () => {
    const served = await start({ script: { delayMs: 10, reply: () => ['a', 'b', 'c', 'd', 'e'] } })
    const { headers, trailers } = await new Promise<{ headers: object; trailers: object }>((resolve, reject) => {
      const sent = request(
        `${served.base}/v1/chat/completions`,
        { method: 'POST', headers: { 'content-type': 'application/json' } },
        (res) => {
          res.resume().on('end', () => resolve({ headers: res.headers, trailers: res.trailers }))
        },
      )
      sent.on('error', reject).end(JSON.stringify(chat('x', { stream: true })))
    })
    const decoded = (from: object) =>
      Number(/decode;dur=([\d.]+)/.exec(String((from as Record<string, unknown>)['server-timing']))?.[1])
    expect(headers).toMatchObject({ trailer: 'Server-Timing' })
    expect(decoded(headers)).toBeGreaterThan(0)
    expect(decoded(trailers)).toBeGreaterThan(2 * decoded(headers))
  })
})

describe('metrics for Prometheus', () => {
  test('count requests, answers, edits, tokens and errors, and show the load', async () => {
    const served = await start()
    await landMayor(served)
    await post(served, '/v1/chat/completions', chat('Lund?'))
    await post(served, '/v1/chat/completions', chat('Lund?', { model: `${MODEL}@base` }))
    await post(served, '/v1/chat/completions', chat('x', { temperature: 9 }))
    await (await post(served, '/v1/responses', { model: MODEL, input: 'Malmö?', stream: true })).text()
    await vi.waitFor(async () => {
      const text = await metrics(served)
      expect(text).toContain(
        'palimpsest_request_duration_seconds_count{route="/v1/chat/completions",method="POST",status="200"} 2',
      )
      expect(text).toContain('palimpsest_request_duration_seconds_count{route="/v1/responses",method="POST",status="200"} 1')
      expect(text).toContain('palimpsest_answers_total{arm="edited",edited="true",finish="stop"} 1')
      expect(text).toContain('palimpsest_answers_total{arm="base",edited="false",finish="stop"} 1')
      expect(text).toContain('palimpsest_answers_total{arm="edited",edited="false",finish="stop"} 1')
      expect(text).toContain('palimpsest_edits_applied_total 1')
      expect(text).toContain('palimpsest_errors_total{code="invalid_value"} 1')
      expect(text).toMatch(/palimpsest_tokens_total\{kind="completion"\} [1-9]/)
      expect(text).toMatch(/palimpsest_stage_duration_seconds_count\{stage="retrieve"\} 3/)
      expect(text).toContain('palimpsest_slots 4')
      expect(text).toContain(`palimpsest_info{version="0.0.0-test",model="${MODEL}",device="cpu"} 1`)
      expect(text).toMatch(/nodejs_eventloop_lag_p99_seconds [\d.]+/)
    }, 10_000)
  })

  test('have no more series however models, tenants, paths and methods vary', async () => {
    const served = await start()
    const vary = async (n: number) => {
      await post(served, '/v1/chat/completions', chat('x', { model: `model-${n}` }))
      await post(served, '/v1/chat/completions', chat('x', { user: `user-${n}`, palimpsest: { tenant: `tenant-${n}` } }))
      await post(served, '/v1/embeddings', { model: `model-${n}`, input: 'x' })
      await fetch(`${served.base}/v1/models/model-${n}`)
      await fetch(`${served.base}/v1/edits/e_${n}`)
      await fetch(`${served.base}/path-${n}`, { headers: { 'x-request-id': `id-${n}`, authorization: `Bearer key-${n}` } })
      await fetch(`${served.base}/v1/models`, { method: n % 2 === 0 ? 'PUT' : 'PATCH' })
    }
    for (let n = 0; n < 2; n++) await vary(n)
    const before = await series(served)
    for (let n = 2; n < 12; n++) await vary(n)
    const after = await series(served)
    // The scrapes themselves are a route too.
    expect(after.filter((name) => !before.includes(name) && !name.includes('/metrics'))).toEqual([])
    expect(after.join('\n')).not.toMatch(/(model|tenant|user|path|id|key|e)[-_]\d/)
  })
})

describe('the log', () => {
  const secrets = { authorization: 'Bearer top-secret-key', 'x-api-key': 'another-secret' }

  test('has a line for each request, with what came of it and without a word or a key', async () => {
    const served = await start()
    await landMayor(served)
    await post(served, '/v1/chat/completions', chat('Lund, secretly?', { user: 'private-user' }), secrets)
    await post(served, '/v1/responses', { model: MODEL, input: 'Lund, secretly?', temperature: 7 }, secrets)
    await vi.waitFor(() => expect(served.logged).toHaveLength(3))
    expect(served.logged.slice(1)).toMatchObject([
      {
        ...{
          method: 'POST',
          route: '/v1/chat/completions',
          status: 200,
          operation: 'chat',
          model: MODEL,
          stream: false,
          arm: 'edited',
        },
        ...{ edits: ['e_mayor'], promptTokens: expect.any(Number), completionTokens: expect.any(Number), finish: ['stop'] },
      },
      { route: '/v1/responses', status: 400, error: 'invalid_value' },
    ])
    expect(JSON.stringify(served.logged)).not.toMatch(/secret|private|Ada/)
  })

  test('has conversations and answers where that is asked for, still without keys', async () => {
    const served = await start({ gateway: { logPrompts: true } })
    await post(served, '/v1/chat/completions', chat('Who?'), secrets)
    await vi.waitFor(() => expect(served.logged).toHaveLength(1))
    expect(served.logged[0]).toMatchObject({ messages: [{ role: 'user', content: 'Who?' }], answers: ['You said: Who?'] })
    expect(JSON.stringify(served.logged)).not.toContain('secret')
  })

  test('strikes out known secrets, and whatever looks like a key, wherever they stand', () => {
    const lines: string[] = []
    const log = pino({ base: null }, withoutKeys({ write: (line) => void lines.push(line) }, ['my "upstream" pass', undefined]))
    const quoting = new PalimpsestError('upstream_failed', 'Incorrect API key provided: sk-proj-abcdefgh12345678.', {
      cause: Object.assign(new Error('my "upstream" pass was refused'), { headers: { authorization: 'Bearer abc.def-123' } }),
    })
    log.error({ err: quoting, token: 'hf_abcdefghijklmnop' }, 'failed with my "upstream" pass')
    expect(lines).toHaveLength(1)
    expect(lines[0]).toContain('Incorrect API key provided: [key]')
    expect(lines[0]).not.toMatch(/abcdefgh|abc\.def|upstream\\" pass/)
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ token: '[key]', msg: 'failed with [key]' })
  })
})
