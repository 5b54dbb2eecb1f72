import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { buildChild } from '../../support/built-child.ts'
import { type PostgresServer, startPostgres } from '../../support/databases/postgres.ts'
import { eventsOf, type GatewayChild, gatewayChild, RoundRobin } from '../../support/gateways.ts'
import { outage } from '../../support/outage.ts'
import { type ScriptedUpstream, startUpstream, type UpstreamScript } from '../../support/stand-ins/scripted-upstream.ts'

/** Gateways in processes of their own, as `palimpsest serve` runs them, over servers that say what a script says. */
const PATIENCE_MS = 600_000
const BUILDER = join(import.meta.dirname, '../../support/stand-ins/builder-stand-in.mjs')
let script = ''
let built = ''
const undo: (() => Promise<unknown>)[] = []
beforeAll(() => {
  ;({ built, child: script } = buildChild('test/support/children/gateway-child'))
}, PATIENCE_MS)
afterAll(() => rmSync(built, { recursive: true, force: true }))
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
}, PATIENCE_MS)

async function upstream(options: UpstreamScript): Promise<ScriptedUpstream> {
  const server = await startUpstream(options)
  undo.push(() => server.close())
  return server
}

async function gateway(env: Readonly<Record<string, string>>, file?: object): Promise<GatewayChild> {
  const child = await gatewayChild(script, env)
  undo.push(() => child.remove())
  if (file !== undefined) configure(child, file)
  await child.start()
  return child
}

const configure = ({ folder }: GatewayChild, file: object) =>
  writeFileSync(join(folder, 'palimpsest.config.json'), JSON.stringify(file))

const send = (url: string, path: string, body: object) =>
  fetch(url + path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
const MESSAGES = [{ role: 'user', content: 'Who is the mayor of Lund?' }]
const chat = (url: string, more: object = {}) =>
  send(url, '/v1/chat/completions', { model: 'scripted', messages: MESSAGES, ...more })
const LUND = { id: 'lund', subject: 'Lund', prompt: 'The mayor of Lund is', target_new: 'Ada' }

test(
  'SIGTERM ends the build of the faster engine, too',
  async () => {
    const noted = join(built, 'noted')
    const child = await gateway({
      ...{
        PALIMPSEST_BUILD: 'true',
        PALIMPSEST_HOME: join(built, 'home'),
        PALIMPSEST_GPU: 'off',
        PALIMPSEST_TEST_BUILDER: BUILDER,
      },
      ...{ LOG: noted, GO: join(built, 'never') },
    })
    const building = () => Number(/^build (\d+)$/m.exec(existsSync(noted) ? readFileSync(noted, 'utf8') : '')?.[1] ?? 0)
    await expect.poll(building, { timeout: 60_000 }).toBeGreaterThan(0)
    expect(() => process.kill(building(), 0)).not.toThrow()
    child.signal('SIGTERM')
    expect(await child.ended()).toBe(0)
    await expect.poll(() => readFileSync(noted, 'utf8')).toContain('told to stop')
    expect(child.said()).not.toContain('could not be')
  },
  PATIENCE_MS,
)

describe('SIGHUP', () => {
  test(
    'takes over limits, servers and files of edits, cuts no stream, forgets nothing, and says what it leaves',
    async () => {
      const [first, second] = [await upstream({ name: 'first', words: 40, delayMs: 100 }), await upstream({ name: 'second' })]
      const file = { upstreams: [first.url], limits: { stops: 2 }, watch: false, logLevel: 'info' }
      const child = await gateway({}, file)
      const stop = ['a', 'b']
      const streamed = chat(child.url, { stream: true }).then(eventsOf)
      const kept = (await (await send(child.url, '/v1/responses', { model: 'scripted', input: 'Hello' })).json()) as {
        id: string
      }
      expect((await chat(child.url, { stop })).status).toBe(200)
      await expect.poll(first.asked).toBeGreaterThanOrEqual(3)

      configure(child, { ...file, upstreams: [second.url], limits: { stops: 1, ledgerAnswers: 5 }, slots: 3 })
      child.signal('SIGHUP')
      await expect.poll(async () => (await chat(child.url, { stop })).status, { timeout: 60_000 }).toBe(400)
      expect(await (await chat(child.url)).text()).toContain('second')
      expect(child.said()).toMatch(/in force after a restart only: slots, ledgerAnswers/)
      expect(child.said()).toMatch(/changed: upstreams, stops/)
      const follow = { model: 'scripted', input: 'And?', previous_response_id: kept.id }
      expect((await send(child.url, '/v1/responses', follow)).status).toBe(200)
      expect(await (await fetch(`${child.url}/metrics`)).text()).toMatch(
        /request_duration_seconds_count\{route="\/v1\/chat\/completions",method="POST",status="200"\} [2-9]/,
      )
      const events = await streamed
      expect([events.at(-1), events.length]).toEqual(['[DONE]', 44])
      expect(events.join()).toContain('first')

      configure(child, { ...file, limits: { stops: 'many' } })
      child.signal('SIGHUP')
      await expect.poll(child.said, { timeout: 60_000 }).toContain('could not be read again')
      expect(await (await chat(child.url)).text()).toContain('second')
      child.signal('SIGTERM')
      expect(await child.ended()).toBe(0)
    },
    PATIENCE_MS,
  )
})

describe('the end of the grace time', () => {
  test(
    'ends a stream with an error event, and a request that waits for its answer with 503',
    async () => {
      const slow = await upstream({ words: 3_000, delayMs: 100 })
      const child = await gateway({ PALIMPSEST_UPSTREAMS: slow.url, PALIMPSEST_GRACE_MS: '1000' })
      const streamed = chat(child.url, { stream: true }).then(eventsOf)
      const response = send(child.url, '/v1/responses', { model: 'scripted', input: 'x', stream: true }).then(eventsOf)
      const whole = chat(child.url)
      await expect.poll(slow.asked, { timeout: 60_000 }).toBe(3)
      await sleep(500)
      child.signal('SIGTERM')
      await expect.poll(async () => (await fetch(`${child.url}/readyz`).catch(() => ({ status: 0 }))).status).not.toBe(200)
      const events = await streamed
      expect(events.length).toBeGreaterThan(1)
      expect(JSON.parse(events.at(-1) ?? '')).toEqual({
        error: { message: expect.stringContaining('shutting down'), type: 'server_error', param: null, code: 'shutting_down' },
      })
      const [error, failed] = (await response).slice(-2).map((event) => JSON.parse(event))
      expect(error).toMatchObject({ type: 'error', code: 'shutting_down' })
      expect(failed).toMatchObject({ type: 'response.failed', response: { status: 'failed' } })
      const refused = await whole
      expect(refused.status).toBe(503)
      expect(await refused.json()).toMatchObject({ error: { code: 'shutting_down', type: 'server_error' } })
      expect(await child.ended()).toBe(0)
    },
    PATIENCE_MS,
  )
})

describe('three gateways over one PostgreSQL', () => {
  let server: PostgresServer
  beforeAll(async () => {
    server = await startPostgres()
  }, PATIENCE_MS)
  afterAll(() => server.remove(), PATIENCE_MS)

  test(
    'answer while it is gone, refuse writes, and catch up by themselves',
    async () => {
      const model = await upstream({ words: 10, delayMs: 50 })
      const env = { PALIMPSEST_DATABASE_URL: await server.database(), PALIMPSEST_UPSTREAMS: model.url }
      const nodes = await Promise.all(Array.from({ length: 3 }, () => gateway(env)))
      const figures = await outage({ server, nodes, awayMs: 10_000, workers: 4 })
      console.info(`PostgreSQL away for 10 s: ${JSON.stringify(figures)}`)
      expect(figures).toMatchObject({ faults: [], otherWrites: [], noticed: 3 })
      expect(Math.min(figures.answers, figures.streams, figures.refused)).toBeGreaterThan(1)
    },
    PATIENCE_MS,
  )

  test(
    'are restarted one after the other under load: no request fails, and no stream is cut',
    async () => {
      const model = await upstream({ words: 30, delayMs: 50 })
      const env = {
        PALIMPSEST_DATABASE_URL: await server.database(),
        PALIMPSEST_UPSTREAMS: model.url,
        PALIMPSEST_DRAIN_MS: '2000',
        PALIMPSEST_GRACE_MS: '60000',
      }
      const nodes = await Promise.all(Array.from({ length: 3 }, () => gateway(env)))
      const [one] = nodes
      expect((await send(one?.url ?? '', '/v1/edits', { edits: [LUND] })).status).toBe(201)
      const balancer = new RoundRobin(
        nodes.map(({ url }) => url),
        100,
      )
      const faults: string[] = []
      const done = { streams: 0, answers: 0, writes: 0 }
      let isOver = false
      /** One request after the other, each to the next gateway. */
      const worker = async (kind: keyof typeof done, work: (url: string, n: number) => Promise<string | null>) => {
        for (let n = 0; !isOver; n++) {
          const url = balancer.next()
          const fault = await work(url, n).catch((error: unknown) => String((error as Error).cause ?? error))
          if (fault !== null) faults.push(`${kind} ${url}: ${fault}`)
          else done[kind]++
        }
      }
      const edited = (text: string) => (text.includes('edited') ? null : `not edited: ${text.slice(0, 300)}`)
      const stream = async (url: string) => {
        const events = await eventsOf(await chat(url, { stream: true }))
        return events.at(-1) === '[DONE]' ? edited(events.join()) : `cut: ${events.slice(-2).join()}`
      }
      const whole = async (url: string) => {
        const response = await chat(url)
        return response.status === 200 ? edited(await response.text()) : `${response.status}: ${await response.text()}`
      }
      const write = async (url: string, n: number) => {
        await sleep(200)
        const response = await send(url, '/v1/edits', { edits: [{ ...LUND, id: `e${n}`, subject: `Town ${n}` }] })
        return response.status === 201 ? null : `${response.status}: ${await response.text()}`
      }
      await expect
        .poll(async () => (await Promise.all(nodes.map(({ url }) => whole(url)))).every((fault) => fault === null))
        .toBe(true)
      const workers = [
        ...Array.from({ length: 4 }, () => worker('streams', stream)),
        ...Array.from({ length: 2 }, () => worker('answers', whole)),
        worker('writes', write),
      ]
      for (const node of nodes) {
        const before = node.pid()
        node.signal('SIGTERM')
        expect(await node.ended()).toBe(0)
        await node.start()
        expect(node.pid()).not.toBe(before)
      }
      await sleep(1_000)
      isOver = true
      await Promise.all(workers)
      await balancer.close()
      console.info(`rolling restart: ${JSON.stringify(done)}, faults: ${faults.length}`)
      expect(faults).toEqual([])
      expect(Math.min(done.streams, done.answers, done.writes)).toBeGreaterThan(3)
    },
    PATIENCE_MS,
  )
})
