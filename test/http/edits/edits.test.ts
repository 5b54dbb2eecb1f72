import { afterEach, describe, expect, test } from 'vitest'
import type { Prompt } from '../../../src/engine/engine.ts'
import { fakeEmbedder, lexicalReader, READ_CALIBRATION } from '../../support/memory-fixture.ts'
import { MODEL, type Served, type ServeOptions, serve } from '../fakes.ts'

const open: Served[] = []
afterEach(async () => {
  for (const served of open.splice(0)) await served.close()
})

interface Answer {
  readonly status: number
  // biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
  readonly body: any
}

/** Calls a route with a JSON body, or with `text` of another media type. */
async function start(options?: ServeOptions) {
  const served = await serve(options)
  open.push(served)
  const call = async (method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> => {
    const sent = typeof body === 'string' ? body : JSON.stringify(body)
    const response = await fetch(`${served.base}${path}`, {
      method,
      headers: { 'content-type': 'application/json', ...headers },
      ...(body !== undefined && { body: sent }),
    })
    return { status: response.status, body: await response.json() }
  }
  const post = (path: string, body?: unknown, headers?: Record<string, string>) => call('POST', path, body, headers)
  const get = (path: string) => call('GET', path)
  const ids = async (path: string) => (await get(path)).body.data.map(({ id }: { id: string }) => id)
  const ask = async (content: string) =>
    (await post('/v1/chat/completions', { model: MODEL, messages: [{ role: 'user', content }] })).body.choices[0].message.content
  return { ...served, call, post, get, ids, ask }
}

const mayor = (target = 'Ada', fields: object = {}) => ({
  subject: 'Lund',
  prompt: 'The mayor of Lund is',
  target_new: target,
  ...fields,
})
const town = (n: number, fields: object = {}) => ({
  id: `e${n}`,
  subject: `Town ${n}`,
  prompt: `The mayor of Town ${n} is`,
  target_new: `Mayor ${n}`,
  ...fields,
})
const towns = (count: number) => Array.from({ length: count }, (_, n) => town(n))

describe('a batch', () => {
  test('of one edit lands, and changes the very next answer', async () => {
    const { post, ask } = await start()
    expect(await ask('Mayor of Lund?')).toBe('You said: Mayor of Lund?')
    expect(await post('/v1/edits', mayor('Ada', { id: 'e1' }))).toEqual({
      status: 201,
      body: {
        object: 'edit.batch',
        id: expect.stringMatching(/^b_[0-9a-f]{16}$/),
        dry_run: false,
        replayed: false,
        version: 1,
        palimpsest: { memory_version: 1 },
        counts: { edits: 1, added: 1, revised: 0, restored: 0, unchanged: 0, superseded: 0, duplicates: 0, conflicts: 0 },
        results: [
          { index: 0, id: 'e1', outcome: 'added', state: 'live', supersedes: [], duplicate_of: null, conflicts_with: [] },
        ],
      },
    })
    expect(await ask('Mayor of Lund?')).toContain('Ada')
  })

  test("is answered with the tenant's own version, in the body and in a header", async () => {
    const { base, post, call } = await start()
    await post('/v1/edits?tenant=other', towns(5))
    const landed = await fetch(`${base}/v1/edits`, { method: 'POST', body: JSON.stringify(mayor('Ada', { id: 'e1' })) })
    expect([landed.headers.get('palimpsest-memory-version'), await landed.json()]).toMatchObject([
      '6',
      { version: 6, palimpsest: { memory_version: 6 } },
    ])
    await post('/v1/edits?tenant=other', town(9))
    const versions = [
      await call('DELETE', '/v1/edits/e1'),
      await post('/v1/edits/e1/restore'),
      await post('/v1/edits/withdraw', { ids: ['e1'] }),
      await post('/v1/edits', mayor('Ada', { id: 'e1' })),
      await post('/v1/edits?dry_run=true', mayor('Bo', { id: 'e2' })),
    ].map(({ body }) => body.palimpsest?.memory_version)
    expect(versions).toEqual([8, 9, 10, 11, undefined])
    const { body } = await call('GET', '/health')
    expect(body.memory).toMatchObject({ version: 11, log: { state: 'sole', seen: 11, fault: null } })
  })

  test('is waited for by whoever names its version, but not for ever', async () => {
    const { post, call } = await start({ limits: { atLeastMs: 200 } })
    await post('/v1/edits', mayor())
    const asking = (version: string, path = '/v1/edits') => call('GET', path, undefined, { 'palimpsest-at-least': version })
    expect((await asking('1')).body.total).toBe(1)
    expect(await asking('2')).toMatchObject({
      status: 503,
      body: { error: { code: 'storage_unavailable', type: 'server_error' } },
    })
    const [found] = await Promise.all([asking('2', '/v1/edits?q=Lisa'), post('/v1/edits', mayor('Lisa'))])
    expect(found.body.total).toBe(1)
    for (const malformed of ['x', '-1', '1.5', ''])
      expect(await asking(malformed)).toMatchObject({
        status: 400,
        body: { error: { code: 'invalid_value', type: 'invalid_request_error', param: 'Palimpsest-At-Least' } },
      })
  })

  test('posted again changes nothing, and says so', async () => {
    const { post } = await start()
    const first = await post('/v1/edits', [mayor()])
    const again = await post('/v1/edits', [mayor()])
    expect(again).toMatchObject({ status: 200, body: { id: first.body.id, replayed: true, version: first.body.version } })
  })

  test('posted again after a withdrawal is live again, and says so', async () => {
    const { post, ask } = await start()
    await post('/v1/edits', mayor('Ada', { id: 'e1' }))
    await post('/v1/edits/e1/withdraw')
    expect(await ask('Mayor of Lund?')).toBe('You said: Mayor of Lund?')
    expect(await post('/v1/edits', mayor('Ada', { id: 'e1' }))).toMatchObject({
      status: 201,
      body: { replayed: false, counts: { restored: 1, unchanged: 0 }, results: [{ outcome: 'restored', state: 'live' }] },
    })
    expect(await ask('Mayor of Lund?')).toContain('Ada')
  })

  test.each([
    ['an array', 'application/json', JSON.stringify(towns(2))],
    ['an envelope', 'application/json', JSON.stringify({ edits: towns(2) })],
    [
      'NDJSON',
      'application/x-ndjson',
      towns(2)
        .map((edit) => JSON.stringify(edit))
        .join('\n'),
    ],
    [
      'JSON lines',
      'application/jsonl; charset=utf-8',
      towns(2)
        .map((edit) => JSON.stringify(edit))
        .join('\r\n'),
    ],
    [
      'CSV',
      'text/csv',
      'id,subject,prompt,target_new\ne0,Town 0,The mayor of Town 0 is,Mayor 0\ne1,Town 1,The mayor of Town 1 is,Mayor 1\n',
    ],
    [
      'YAML',
      'application/yaml',
      towns(2)
        .map(
          ({ id, subject, prompt, target_new }) =>
            `- id: ${id}\n  subject: ${subject}\n  prompt: ${prompt}\n  target_new: ${target_new}\n`,
        )
        .join(''),
    ],
  ])('can be written as %s', async (_, type, text) => {
    const { post, ids } = await start()
    expect((await post('/v1/edits', text, { 'content-type': type })).status).toBe(201)
    expect((await ids('/v1/edits')).sort()).toEqual(['e0', 'e1'])
  })

  test("can be in an outside format, and is given the query's tags, source and name", async () => {
    const { post, get } = await start()
    const rewrite = {
      prompt: 'The mother tongue of {} is',
      subject: 'Danielle Darrieux',
      target_new: { str: 'English' },
      target_true: { str: 'French' },
    }
    const record = { case_id: 0, requested_rewrite: rewrite, paraphrase_prompts: [], neighborhood_prompts: [] }
    const landed = await post('/v1/edits?format=counterfact&tags=a,%20b&batch=first&source=paper', [record])
    expect(landed).toMatchObject({ status: 201, body: { id: 'first' } })
    expect((await get('/v1/edits')).body.data).toMatchObject([
      { object: 'edit', subject: 'Danielle Darrieux', target_new: 'English', tags: ['a', 'b'], batch: 'first', state: 'live' },
    ])
    expect((await get('/v1/batches')).body.data).toMatchObject([{ id: 'first', source: 'paper', edits: 1, live: 1 }])
  })

  test('mixes facts, sentences and rules, and reads back as it was written', async () => {
    const { post, get } = await start()
    const rule = { id: 'r', when: 'someone asks for a refund', instruction: 'give the link', examples: ['Money back?'] }
    const always = { id: 'a', instruction: 'answer in French', always: true }
    const fact = { id: 'f', prompt: 'Our refund window is', target_new: '30 days' }
    const landed = await post('/v1/edits', ['We close at 6.', rule, always, fact])
    expect(landed).toMatchObject({ status: 201, body: { counts: { added: 4, conflicts: 0 } } })
    for (const one of [rule, always, fact]) {
      const { body } = await get(`/v1/edits/${one.id}`)
      expect(body).toMatchObject(one)
      for (const field of ['subject', 'prompt', 'target_new', 'text', 'when'])
        expect(Object.hasOwn(body, field)).toBe(Object.hasOwn(one, field))
    }
    expect((await get('/v1/edits?q=6')).body.data).toMatchObject([{ text: 'We close at 6.' }])
    expect((await get('/v1/edits?q=refund%20link')).body.data).toMatchObject([{ id: 'r' }])
    const again = await post('/v1/edits', [
      { ...rule, id: 'r2', instruction: 'say no' },
      { ...always, id: 'a2', instruction: 'be brief' },
    ])
    expect(again.body.results).toMatchObject([{ supersedes: ['r'] }, { supersedes: [] }])
    const more = await post('/v1/edits', { ...fact, id: 'f2', target_new: '14 days' })
    expect(more.body.results).toMatchObject([{ supersedes: ['f'] }])
    const examples = await post('/v1/edits', { ...rule, id: 'r2', instruction: 'say no', examples: ['Other?'] })
    expect(examples.body.results).toMatchObject([{ outcome: 'revised' }])
  })

  test('of plain text is one sentence a line', async () => {
    const { post, get } = await start()
    const text = '# ours\nWe close at 6.\n\nRefunds take 30 days.\n'
    expect((await post('/v1/edits?tags=own', text, { 'content-type': 'text/plain' })).body.counts.added).toBe(2)
    expect((await get('/v1/edits')).body.data).toMatchObject([
      { text: 'Refunds take 30 days.', tags: ['own'] },
      { text: 'We close at 6.', tags: ['own'] },
    ])
  })

  test('with fields of two kinds in one record is refused by the field', async () => {
    const { post } = await start()
    const answer = await post('/v1/edits', [{ when: 'w', instruction: 'i', target_new: 't' }])
    expect(answer).toMatchObject({
      status: 400,
      body: { error: { code: 'invalid_batch', param: 'target_new' } },
    })
    expect(answer.body.error.message).toContain('a rule has no target_new; say what to do in instruction')
  })

  test('of sentences and rules is rehearsed without false alarms', async () => {
    const { post } = await start({ reader: lexicalReader(), gateway: { calibration: READ_CALIBRATION } })
    const batch = [
      'We close at 6.',
      'The wife of our founder is Ada.',
      { when: 'somebody asks', instruction: 'somebody asks: say so' },
      { instruction: 'be brief', always: true },
    ]
    const { body } = await post('/v1/edits?dry_run=true', batch)
    expect(body.report.findings).toEqual([])
    expect(body.first_edits).toMatchObject([{ text: 'We close at 6.' }, {}, { when: 'somebody asks' }, { always: true }])
  })

  test('that is rehearsed reports and lands nothing', async () => {
    const { post, ids } = await start()
    await post('/v1/edits', mayor('Ada', { id: 'old' }))
    const batch = [mayor('Bo', { id: 'x' }), mayor('Cy', { id: 'y' }), mayor('Cy', { id: 'z' })]
    const { status, body } = await post('/v1/edits?dry_run=true', batch)
    expect(status).toBe(200)
    expect(body).toMatchObject({ dry_run: true, version: 1, counts: { added: 3, duplicates: 1 } })
    expect(body.results[0]).toMatchObject({ id: 'x', supersedes: ['old'], conflicts_with: ['y', 'z'] })
    expect(body.results[2]).toMatchObject({ duplicate_of: 1 })
    expect(await ids('/v1/edits')).toEqual(['old'])
  })

  test('keeps its name: another content under one Idempotency-Key is refused', async () => {
    const { post } = await start()
    const key = { 'idempotency-key': 'upload-7' }
    expect((await post('/v1/edits', mayor('Ada'), key)).body.id).toBe('upload-7')
    expect((await post('/v1/edits', mayor('Ada'), key)).body.replayed).toBe(true)
    expect(await post('/v1/edits', mayor('Bo'), key)).toMatchObject({
      status: 400,
      body: { error: { code: 'invalid_value', param: 'batch' } },
    })
  })

  test('with a fault anywhere lands nowhere, and every fault is named', async () => {
    const { post, get } = await start()
    const lines = [JSON.stringify(town(1)), '{"subject":"x"', JSON.stringify({ ...town(2), target_new: 7 })].join('\n')
    const { status, body } = await post('/v1/edits', lines, { 'content-type': 'application/x-ndjson' })
    expect(status).toBe(400)
    expect(body.error).toMatchObject({ code: 'invalid_batch', problems: [{ line: 2 }, { line: 3, field: 'target_new' }] })
    expect((await get('/v1/edits')).body).toMatchObject({ data: [], total: 0 })
  })

  test('shows its progress when asked to', async () => {
    let release = () => {}
    const held = new Promise<void>((resolve) => {
      release = resolve
    })
    const fake = fakeEmbedder()
    const embedder = { ...fake, embed: async (...asked: Parameters<typeof fake.embed>) => held.then(() => fake.embed(...asked)) }
    const { base } = await start({ embedder, limits: { progressMs: 5 } })
    const headers = { 'content-type': 'application/json', accept: 'application/x-ndjson' }
    const response = await fetch(`${base}/v1/edits`, { method: 'POST', headers, body: JSON.stringify(towns(100)) })
    expect(response.headers.get('content-type')).toBe('application/x-ndjson; charset=utf-8')
    let text = ''
    for await (const part of response.body as unknown as AsyncIterable<Uint8Array>) {
      text += Buffer.from(part).toString()
      release()
    }
    const lines = text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(lines[0]).toEqual({ object: 'edit.batch.progress', indexed: 0, total: 100 })
    expect(lines.at(-2)).toEqual({ object: 'edit.batch.progress', indexed: 100, total: 100 })
    expect(lines.at(-1)).toMatchObject({ object: 'edit.batch', counts: { added: 100 } })
  })

  test('too small to wait for is answered even if its vectors never come', async () => {
    const embedder = {
      ...fakeEmbedder(),
      embed: (_texts: unknown, _priority: unknown, signal?: AbortSignal) =>
        new Promise<never>((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason))),
    }
    const { post } = await start({ embedder, limits: { awaitIndexMs: 5 } })
    expect((await post('/v1/edits', mayor())).status).toBe(201)
  })
})

describe('the list', () => {
  test('is read page by page, latest first', async () => {
    const { post, get } = await start()
    await post('/v1/edits', towns(5))
    const seen: string[] = []
    let cursor: string | null = ''
    while (cursor !== null) {
      const { body } = await get(`/v1/edits?limit=2${cursor && `&cursor=${cursor}`}`)
      expect(body).toMatchObject({ object: 'list', total: 5, has_more: body.next_cursor !== null })
      seen.push(...body.data.map(({ id }: { id: string }) => id))
      cursor = body.next_cursor
    }
    expect(seen).toEqual(['e4', 'e3', 'e2', 'e1', 'e0'])
  })

  test('can be narrowed, by query or by a body', async () => {
    const { post, ids, call } = await start()
    await post('/v1/edits?batch=b', [town(1, { tags: ['a'] }), town(2)])
    await post('/v1/edits', [town(3)])
    await call('DELETE', '/v1/edits/e2')
    expect(await ids('/v1/edits?state=withdrawn')).toEqual(['e2'])
    expect(await ids('/v1/edits?tag=a')).toEqual(['e1'])
    expect((await ids('/v1/edits?batch=b')).sort()).toEqual(['e1', 'e2'])
    expect(await ids('/v1/edits?subject=town%203')).toEqual(['e3'])
    expect(await ids('/v1/edits?q=mayor%203')).toEqual(['e3'])
    const found = await post('/v1/edits/search', { q: 'Mayor', state: 'live', limit: 1 })
    expect(found.body).toMatchObject({ total: 2, has_more: true })
  })

  test('of one tenant shows nothing of another', async () => {
    const { post, ids, get } = await start()
    await post('/v1/edits', town(1), { 'palimpsest-tenant': 'one' })
    expect(await ids('/v1/edits')).toEqual([])
    expect(await ids('/v1/edits?tenant=one')).toEqual(['e1'])
    expect((await get('/v1/edits/e1')).status).toBe(404)
    expect((await post('/v1/edits/e1/withdraw')).status).toBe(404)
    expect((await get('/v1/batches')).body.data).toEqual([])
    expect((await get('/v1/edits/e1?tenant=one')).body).toMatchObject({ id: 'e1', state: 'live' })
  })
})

describe('an edit', () => {
  test('is withdrawn and restored, and keeps its history', async () => {
    const { post, get, call, ask } = await start()
    await post('/v1/edits', mayor('Ada', { id: 'e1' }))
    expect(await post('/v1/edits/e1/withdraw')).toMatchObject({ status: 200, body: { id: 'e1', state: 'withdrawn' } })
    expect(await ask('Mayor of Lund?')).toBe('You said: Mayor of Lund?')
    expect(await post('/v1/edits/e1/restore', {})).toMatchObject({ status: 200, body: { state: 'live' } })
    expect(await ask('Mayor of Lund?')).toContain('Ada')
    expect(await call('DELETE', '/v1/edits/e1')).toMatchObject({ status: 200, body: { state: 'withdrawn' } })
    const { history } = (await get('/v1/edits/e1')).body
    expect(history.map(({ kind }: { kind: string }) => kind)).toEqual(['add', 'withdraw', 'restore', 'withdraw'])
    expect(history[0]).toMatchObject({ at: expect.stringMatching(/^\d{4}-.*Z$/), edit: { target_new: 'Ada' } })
  })

  test('that is superseded says by which', async () => {
    const { post, get } = await start()
    await post('/v1/edits', mayor('Ada', { id: 'old' }))
    await post('/v1/edits', mayor('Bo', { id: 'new' }))
    expect((await get('/v1/edits/old')).body).toMatchObject({ state: 'superseded', superseded_by: 'new' })
  })

  test('among several withdrawn at once must exist, or none is', async () => {
    const { post, ids } = await start()
    await post('/v1/edits', towns(3))
    expect(await post('/v1/edits/withdraw', { ids: ['e0', 'none'] })).toMatchObject({
      status: 404,
      body: { error: { code: 'edit_not_found', param: 'ids' } },
    })
    expect(await ids('/v1/edits?state=withdrawn')).toEqual([])
    expect((await post('/v1/edits/withdraw', { ids: ['e0', 'e1', 'e0'] })).body.data).toHaveLength(2)
    expect(await ids('/v1/edits?state=live')).toEqual(['e2'])
  })
})

describe('batches', () => {
  test('are listed, read and withdrawn whole', async () => {
    const { post, get, ids } = await start()
    await post('/v1/edits?batch=first', towns(3))
    await post('/v1/edits?batch=second', [mayor()])
    expect(await ids('/v1/batches')).toEqual(['second', 'first'])
    const page = (await get('/v1/batches?limit=1')).body
    expect(await ids(`/v1/batches?limit=1&cursor=${page.next_cursor}`)).toEqual(['first'])
    expect(await post('/v1/batches/first/withdraw')).toMatchObject({
      status: 200,
      body: { id: 'first', edits: 3, live: 0, withdrawn: 3 },
    })
    expect((await get('/v1/batches/first')).body).toMatchObject({ object: 'edit.batch', source: 'http', live: 0 })
    expect(await ids('/v1/edits?state=live')).toHaveLength(1)
  })
})

describe('a batch that was withdrawn', () => {
  test('is restored as it was: what had been withdrawn before, by itself, stays so', async () => {
    const { post, ids } = await start()
    await post('/v1/edits?batch=first', towns(3))
    const [single = ''] = await ids('/v1/edits?batch=first')
    await post(`/v1/edits/${single}/withdraw`)
    await post('/v1/batches/first/withdraw')
    expect(await post('/v1/batches/first/restore')).toMatchObject({ status: 200, body: { id: 'first', live: 2, restored: 2 } })
    expect(await ids('/v1/edits?state=withdrawn')).toEqual([single])
  })
})

describe('explain', () => {
  test('shows what is selected, why, and the very prompt that the model gets', async () => {
    const prompts: Prompt[] = []
    const { post, ask, gateway } = await start({ script: { reply: (prompt) => String(prompts.push(prompt)) } })
    await post('/v1/edits', mayor('Ada', { id: 'e1' }))
    const { status, body } = await post('/v1/edits/explain', { question: 'Mayor of Lund?' })
    expect(status).toBe(200)
    expect(body).toMatchObject({
      object: 'edit.explanation',
      model: MODEL,
      memory_version: 1,
      template: { name: expect.any(String), hash: expect.stringMatching(/^[0-9a-f]{8}$/) },
      turns: [
        {
          turn: 0,
          considered: [
            { id: 'e1', subject: 'Lund', statement: 'The mayor of Lund is Ada', reason: 'selected', evidence: { named: 1 } },
          ],
        },
      ],
    })
    expect(body.tokens_added).toBe(body.prompt.tokens.length - body.base.tokens.length)
    expect(prompts).toEqual([])
    await ask('Mayor of Lund?')
    const [sent] = prompts as [Prompt]
    expect(body.prompt).toEqual(gateway.engine.inspect(sent))
    expect(body.base).toEqual(gateway.engine.inspect({ messages: [{ role: 'user', content: 'Mayor of Lund?' }] }))
  })

  test('takes a conversation, and what narrows the selection', async () => {
    const { post } = await start()
    await post('/v1/edits', mayor('Ada', { id: 'e1', tags: ['a'] }))
    const messages = [
      { role: 'user', content: 'Mayor of Lund?' },
      { role: 'assistant', content: 'Bo' },
      { role: 'user', content: 'Sure?' },
    ]
    const reasons = async (fields: object) =>
      (await post('/v1/edits/explain', { messages, ...fields })).body.turns.flatMap(
        ({ considered }: { considered: { reason: string }[] }) => considered.map(({ reason }) => reason),
      )
    expect(await reasons({})).toContain('selected')
    expect(await reasons({ edits: 'off' })).toEqual([])
    expect(await reasons({ edits: ['e1'] })).toEqual(['requested'])
    expect(await reasons({ tags: ['b'] })).not.toContain('selected')
    expect(await reasons({ tenant: 'other' })).toEqual([])
    expect(await reasons({ as_of: '2001-01-01' })).not.toContain('selected')
  })
})

describe('a batch that is to be verified', () => {
  test('is refused whole, with the line and the reason of what it misses', async () => {
    const { post, ids } = await start({ reader: lexicalReader(), gateway: { calibration: READ_CALIBRATION } })
    const good = { subject: 'Lund', prompt: 'The mayor of Lund is', target_new: 'Ada' }
    const wrong = { subject: 'the Harbour', prompt: 'Our opening hours are', target_new: 'nine to five' }
    const { status, body } = await post('/v1/edits?verify=true', [good, wrong])
    expect(status).toBe(400)
    expect(body.error).toMatchObject({ code: 'invalid_batch', param: 'verify' })
    expect(JSON.stringify(body)).toContain('subject_not_in_prompt')
    expect(await ids('/v1/edits')).toEqual([])
    expect((await post('/v1/edits?verify=true', [good])).status).toBe(201)
  })
})
