import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import express from 'express'
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ChatSession } from '../../../src/cli/chat/session.ts'
import { type Client, client, connect, findRunning } from '../../../src/cli/client/client.ts'
import { importFiles } from '../../../src/cli/import.ts'
import type { WirePage } from '../../../src/cli/wire.ts'
import { readConfig } from '../../../src/config.ts'
import { DEFAULT_LIMITS, type Limits } from '../../../src/gateway.ts'
import { listen } from '../../../src/server/listen.ts'
import { type Running, startGateway } from '../../../src/server/start.ts'

const HOST = '127.0.0.1'
const log = pino({ level: 'silent' })

let cwd: string
const undo: (() => Promise<unknown>)[] = []
beforeEach(() => {
  cwd = mkdtempSync(join(tmpdir(), 'palimpsest-cli-'))
  mkdirSync(join(cwd, 'edits'))
})
afterEach(async () => {
  for (const close of undo.splice(0).reverse()) await close()
  rmSync(cwd, { recursive: true, force: true })
})

const configure = (flags: Record<string, unknown> = {}) =>
  readConfig<Limits>({
    // No model can be fetched.
    flags: { port: '0', hubEndpoint: `http://${HOST}:1`, python: join(cwd, 'no-python'), ...flags },
    env: { PALIMPSEST_HOME: join(cwd, 'home') },
    cwd,
    limits: DEFAULT_LIMITS,
  })
const start = async (flags: Record<string, unknown> = {}, port = 0): Promise<Running> => {
  const closing = new AbortController()
  const running = await startGateway({
    config: configure(flags),
    log,
    model: 'none',
    host: HOST,
    port,
    watch: false,
    closing: closing.signal,
  })
  undo.push(() => running.close(0))
  return running
}
const file = (name: string, content: string) => {
  writeFileSync(join(cwd, name), content)
  return join(cwd, name)
}
const GOOD = '{"id":"x1","subject":"A","prompt":"A is","target_new":"B"}\n'

describe('a gateway without a model', () => {
  it('lands, lists and withdraws; the folder is free again afterwards', async () => {
    const running = await start()
    const gateway = client(running.url, {}, null)
    expect(await importFiles(gateway, [file('a.jsonl', GOOD)], { format: 'auto', dryRun: true })).toMatch(
      /1 edit .* would land: 1 added.*\n +1 edit not read: ./,
    )
    const empty = await gateway.json<WirePage<{ id: string }>>('GET', '/v1/edits')
    expect(empty.total).toBe(0)
    await running.close(0)
    await start()
  })

  it('names file, line and field of a batch that is refused', async () => {
    const { url } = await start()
    const bad = file('bad.jsonl', `${GOOD}{"subject":"A","prompt":"A is","target_new":""}\n`)
    const refused = importFiles(client(url, {}, null), [bad], { format: 'auto' })
    await expect(refused).rejects.toMatchObject({
      code: 'invalid_batch',
      problems: [{ file: bad, line: 2, field: 'target_new' }],
    })
  })

  it('refuses one batch id for two files', async () => {
    await expect(importFiles({} as Client, ['a', 'b'], { format: 'auto', batch: 'x' })).rejects.toThrow(/one file at a time/)
  })

  it('says who holds the data folder, and which port is taken, in one sentence', async () => {
    const { url } = await start()
    await expect(start()).rejects.toMatchObject({ code: 'folder_in_use' })
    await expect(start({ dataDir: 'other' }, Number(new URL(url).port))).rejects.toThrow(
      /^Port \d+ on 127\.0\.0\.1 is in use\. [^.]+ --port\.$/,
    )
  })

  it('refuses a template that does not exist at once, and lets go of port and folder', async () => {
    await expect(start({ template: 'nosuch' })).rejects.toMatchObject({ code: 'template_not_found' })
    await start()
  })
})

describe('finding the gateway', () => {
  const probe = async (health: object) => {
    const server = createServer((_req, res) => res.end(JSON.stringify(health)))
    await new Promise<void>((resolve) => server.listen(0, HOST, resolve))
    undo.push(() => new Promise((resolve) => server.close(resolve)))
    return (server.address() as AddressInfo).port
  }

  it('takes the URL that is given, with or without /v1', async () => {
    expect(await findRunning(configure({ url: 'http://h:1/v1/' }))).toEqual({ url: 'http://h:1', isNamed: true })
  })

  it('takes the one that holds the data folder, and says so when that one does not serve yet', async () => {
    const running = await start()
    await expect(findRunning(configure())).rejects.toThrow(/does not serve yet/)
    running.memory.setUrl(running.url)
    expect(await findRunning(configure())).toEqual({ url: running.url, isNamed: true })
  })

  it('takes one at the usual port, but nothing else that answers there', async () => {
    const [ours, other] = [await probe({ version: '1', memory: {} }), await probe({ hello: 1 })]
    expect(await findRunning(configure({ port: String(ours) }))).toEqual({ url: `http://127.0.0.1:${ours}`, isNamed: false })
    expect(await findRunning(configure({ port: String(other) }))).toBeNull()
  })

  it('starts one where none runs', async () => {
    const { url, inProcess } = await connect(configure(), {}, async () => ({ url: 'http://local', close: async () => {} }))
    expect([url, inProcess]).toEqual(['http://local', true])
  })

  it('tells how to start one that cannot be reached', async () => {
    await expect(client('http://127.0.0.1:1', {}, null).json('GET', '/health')).rejects.toThrow(
      /No gateway answers .*palimpsest serve/,
    )
  })
})

describe('listen', () => {
  it('answers 503 until there is something to serve, then closes though a connection is kept', async () => {
    const listener = await listen(HOST, 0)
    undo.push(() => listener.close(0))
    const early = await fetch(listener.url)
    expect([early.status, ((await early.json()) as { error: { type: string } }).error.type]).toEqual([503, 'server_error'])
    const asked = (path: string) => fetch(`${listener.url}${path}`).then(({ status }) => status)
    expect([await asked('/livez'), await asked('/readyz')]).toEqual([200, 503])
    const browser = await fetch(listener.url, { headers: { accept: 'text/html,*/*' } })
    expect([browser.status, browser.headers.get('refresh')]).toEqual([503, '5'])
    expect(await browser.text()).toContain('<title>Palimpsest is starting</title>')
    listener.serve(
      express().get('/', (req, res) => void res.json([req.get('x-asked'), req.constructor.name, res.constructor.name])),
    )
    // Express finds its own prototypes on what this server makes, and changes none.
    const served = await fetch(listener.url, { headers: { 'x-asked': 'yes' } })
    expect(await served.json()).toEqual(['yes', 'Incoming', 'Outgoing'])
  })
})

describe('ChatSession', () => {
  const considered = (id: string, reason: string) => ({
    id,
    statement: `${id} says`,
    score: 0.5,
    similarity: null,
    reason,
    evidence: {},
  })
  const palimpsest = {
    arm: 'edited',
    edits: [{ id: 'e1', subject: 's', score: 0.9, turn: 0 }],
    template: 'facts',
    trace: { turns: [{ considered: [considered('e1', 'selected'), considered('e2', 'other_relation')] }] },
  }
  const session = () => {
    const asked: { model: string; messages: { content: string }[] }[] = []
    let said = ''
    const send = async (_path: string, { body }: RequestInit) => {
      asked.push(JSON.parse(String(body)))
      const chunks = [
        { choices: [{ delta: { content: 'An ' } }] },
        { choices: [{ delta: { content: 'answer\u001b[31m' } }] },
        { choices: [{ delta: {} }], palimpsest },
      ]
      return new Response(`${chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join('')}data: [DONE]\n\n`)
    }
    const chat = new ChatSession({ send } as unknown as Client, 'm', (text) => {
      said += text
    })
    const take = async (line: string, signal = new AbortController().signal) => {
      said = ''
      return { more: await chat.take(line, signal), said }
    }
    return { chat, asked, take, said: () => said }
  }

  it('streams answers, keeps the conversation, and lets no escape sequence through', async () => {
    const { take, asked } = session()
    expect(await take('Who?')).toEqual({ more: true, said: 'An answer [31m\n' })
    await take('And?')
    expect(asked[1]?.messages.map(({ content }) => content)).toEqual(['Who?', 'An answer\u001b[31m', 'And?'])
    await take('/reset')
    await take('New?')
    expect(asked[2]?.messages).toHaveLength(1)
  })

  it('switches the arm, and its prompt shows which', async () => {
    const { chat, take, asked } = session()
    expect(chat.prompt).toBe('edited> ')
    await take('/base')
    await take('Who?')
    expect([chat.prompt, asked[0]?.model]).toEqual(['base> ', 'm@base'])
    await take('/base')
    expect(chat.prompt).toBe('edited> ')
  })

  it('says why, with near misses', async () => {
    const { take } = session()
    expect((await take('/why')).said).toBe('There is no answer yet.\n')
    await take('Who?')
    expect((await take('/why')).said).toMatch(
      /edits in its prompt \(template facts\):\n.*\ne1 .*\nNear misses:\n.*\ne2 .*other_relation/,
    )
  })

  it('knows its commands', async () => {
    const { take } = session()
    expect((await take('/nope')).said).toMatch(/no command \/nope/)
    expect((await take('/set only this')).said).toMatch(/^Expected: \/set/)
    expect((await take('   ')).said).toBe('')
    expect((await take('/quit')).more).toBe(false)
  })

  it('stops an answer, and leaves it out of nothing but the rest', async () => {
    const aborted = new AbortController()
    aborted.abort(new Error('stopped'))
    const send = async (_path: string, { signal }: RequestInit) => {
      signal?.throwIfAborted()
      return new Response('')
    }
    let said = ''
    const chat = new ChatSession({ send } as unknown as Client, 'm', (text) => {
      said += text
    })
    expect(await chat.take('Who?', aborted.signal)).toBe(true)
    expect(said).toBe(' [stopped]\n')
  })
})
