import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import type { Prompt } from '../../../src/engine/engine.ts'
import { openUpstream } from '../../../src/engine/upstream/engine.ts'
import type { Sampling } from '../../../src/request.ts'
import { fakeEmbedder } from '../../support/memory-fixture.ts'
import { MODEL, post, type Served, type ServeOptions, serve } from '../fakes.ts'

const open: Served[] = []
const upstreams: Server[] = []
afterEach(async () => {
  for (const served of open.splice(0)) await served.close()
  for (const upstream of upstreams.splice(0)) upstream.close()
})

async function start(options?: ServeOptions) {
  const served = await serve(options)
  open.push(served)
  return served
}

/** A gateway before a server that answers 'ok'; `asked`: the bodies it was sent, as they came. */
async function behind() {
  const asked: string[] = []
  const upstream = createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    asked.push(body)
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.end(
      `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: 'ok' }, finish_reason: 'stop' }] })}\n\ndata: [DONE]\n\n`,
    )
  })
  upstreams.push(upstream)
  await new Promise<void>((listening) => upstream.listen(0, '127.0.0.1', listening))
  const url = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`
  const engine = await openUpstream({ servers: [{ url, model: MODEL }], healthMs: 0 })
  return { served: await start({ engine }), asked }
}

/** A body whose seed is written as it stands here. */
const seeded = (seed: string, more = '') =>
  `{"model":"${MODEL}","messages":[{"role":"user","content":"\\"seed\\":1"}],"seed":${seed}${more}}`
const send = ({ base }: Served, body: string) =>
  fetch(`${base}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })

describe('a seed', () => {
  test.each(['7', '9007199254740993', '9223372036854775807', '-9223372036854775808', '18446744073709551615'])(
    'of %s reaches an upstream digit by digit',
    async (seed) => {
      const { served, asked } = await behind()
      expect((await send(served, seeded(seed))).status).toBe(200)
      expect(/"seed":(-?\d+)/.exec(asked[0] ?? '')?.[1]).toBe(seed)
      expect(() => JSON.parse(asked[0] ?? '')).not.toThrow()
    },
  )

  test('beyond 2^53 is counted on for each of several answers', async () => {
    const { served, asked } = await behind()
    expect((await send(served, seeded('9007199254740993', ',"n":3'))).status).toBe(200)
    expect(asked.map((body) => /"seed":(-?\d+)/.exec(body)?.[1]).sort()).toEqual([
      '9007199254740993',
      '9007199254740994',
      '9007199254740995',
    ])
  })

  test.each(['18446744073709551616', '-9223372036854775809', '1.5', '1e300', '"7"', 'true'])('of %s is refused', async (seed) => {
    const answer = await send(await start(), seeded(seed))
    expect(answer.status).toBe(400)
    expect(await answer.json()).toMatchObject({ error: { code: 'invalid_value', param: 'seed' } })
  })
})

describe('a task about a text', () => {
  const close = () => fakeEmbedder({ dimensions: 2, vector: () => Float32Array.of(1, 0) })
  const title = `### Task:\nFind a title of three words for the chat.\n\n### Chat History:\n<chat_history>\nUSER: Who is the mayor of Lund?\nASSISTANT: Ada.\n</chat_history>`

  test('gets no fact, and the rules for every message', async () => {
    const served = await start({ embedder: close() })
    await post(served, '/v1/edits', [
      { id: 'fact', subject: 'Lund', prompt: 'The mayor of Lund is', target_new: 'Ada' },
      { id: 'rule', instruction: 'Be brief.', always: true },
    ])
    // biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
    const ask = async (content: string): Promise<any> =>
      (
        await post(served, '/v1/chat/completions', {
          model: MODEL,
          messages: [{ role: 'user', content }],
          palimpsest: { explain: true },
        })
      ).json()
    const plain = await ask('Who is the mayor of Lund?')
    expect(plain.palimpsest.edits.map(({ id }: { id: string }) => id).sort()).toEqual(['fact', 'rule'])
    const task = await ask(title)
    expect(task.palimpsest.edits.map(({ id }: { id: string }) => id)).toEqual(['rule'])
    expect(JSON.stringify(task.palimpsest)).toContain('text_task')
  })
})

test('a path that is not served: who left /v1 away is told so, and nobody else', async () => {
  const served = await start()
  const told = async (path: string) => JSON.stringify(await (await post(served, path, {})).json())
  expect(await told('/chat/completions')).toContain('ends in /v1')
  expect(await told('/v1/images/generations')).not.toContain('ends in /v1')
  expect(await told('/v1/images/generations')).toContain('/openapi.json')
})

test('a schema beside json_object, as instructor sends it, is one that is not strict', async () => {
  const seen: Sampling[] = []
  const reply = (_: Prompt, sampling: Sampling) => {
    seen.push(sampling)
    return '{"a":1}'
  }
  const served = await start({ script: { reply } })
  const schema = { type: 'object', properties: { a: { type: 'integer' } } }
  const asked = { model: MODEL, messages: [{ role: 'user', content: 'x' }], response_format: { type: 'json_object', schema } }
  expect((await post(served, '/v1/chat/completions', asked)).status).toBe(200)
  expect(seen[0]?.format).toMatchObject({ kind: 'schema', schema, strict: false })
})
