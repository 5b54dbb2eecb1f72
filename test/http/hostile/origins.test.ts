import { afterEach, describe, expect, test } from 'vitest'
import type { Access } from '../../../src/access/access.ts'
import { NO_BUDGETS } from '../../../src/access/budgets.ts'
import { SCOPES } from '../../../src/access/key.ts'
import { client } from '../../../src/cli/client/client.ts'
import type { Gateway } from '../../../src/gateway.ts'
import { MODEL, post, type Served, serve } from '../fakes.ts'

const open: Served[] = []
afterEach(async () => {
  for (const served of open.splice(0)) await served.close()
})

const APP = 'https://app.example'
const CHAT = { model: MODEL, messages: [{ role: 'user', content: 'Hello' }] }
const PREFLIGHT = {
  'Access-Control-Request-Method': 'POST',
  'Access-Control-Request-Headers': 'authorization,content-type,x-stainless-os',
}

async function start(gateway: Partial<Gateway>) {
  const served = await serve({ gateway })
  open.push(served)
  return served
}

/** Asks for the one key 'pk', or for none. */
const access = (required: boolean): Access => ({
  current: async () => {},
  required: () => required,
  identify: async (token) => (token === 'pk' ? { id: 'k', name: 'k', tenant: null, scopes: SCOPES, createdAt: 0 } : null),
  budgets: NO_BUDGETS,
  close: async () => {},
})

const preflight = ({ base }: Served, origin: string) =>
  fetch(`${base}/v1/chat/completions`, { method: 'OPTIONS', headers: { Origin: origin, ...PREFLIGHT } })
const cors = ({ headers }: Response) => [
  headers.get('access-control-allow-origin'),
  headers.get('access-control-allow-credentials'),
]

describe('a page of another origin', () => {
  test('may ask where the operator named it, with whatever headers its SDK sends, and reads which edits answered', async () => {
    const served = await start({ origins: [APP] })
    const asked = await preflight(served, APP)
    expect([asked.status, ...cors(asked)]).toEqual([204, APP, 'true'])
    expect(asked.headers.get('access-control-allow-headers')).toBe(PREFLIGHT['Access-Control-Request-Headers'])
    expect(asked.headers.get('access-control-allow-methods')).toContain('POST')
    const answer = await post(served, '/v1/chat/completions', CHAT, { Origin: APP })
    expect([answer.status, ...cors(answer), answer.headers.get('vary')]).toEqual([
      200,
      APP,
      'true',
      expect.stringContaining('Origin'),
    ])
    expect(answer.headers.get('access-control-expose-headers')).toContain('Palimpsest-Edits')
    const stream = await post(served, '/v1/chat/completions', { ...CHAT, stream: true }, { Origin: APP })
    expect([...cors(stream), (await stream.text()).endsWith('data: [DONE]\n\n')]).toEqual([APP, 'true', true])
    const wrong = await post(served, '/v1/chat/completions', {}, { Origin: APP })
    expect([wrong.status, ...cors(wrong)]).toEqual([400, APP, 'true'])
  })

  test.each(['https://app.example.org', 'http://app.example', 'https://app.example:8443', 'null'])(
    'is refused as %s',
    async (origin) => {
      const served = await start({ origins: [APP] })
      const asked = await preflight(served, origin)
      expect([asked.status, ...cors(asked)]).toEqual([403, null, null])
      expect((await post(served, '/v1/chat/completions', CHAT, { Origin: origin })).status).toBe(403)
    },
  )

  test('has its preflight answered without the key that its request brings', async () => {
    const served = await start({ origins: [APP], access: access(true) })
    expect((await preflight(served, APP)).status).toBe(204)
    const without = await post(served, '/v1/chat/completions', CHAT, { Origin: APP })
    expect([without.status, ...cors(without)]).toEqual([401, APP, 'true'])
    expect((await post(served, '/v1/chat/completions', CHAT, { Origin: APP, Authorization: 'Bearer pk' })).status).toBe(200)
  })

  test('of any origin may ask where keys are asked for, and never with credentials', async () => {
    const served = await start({ origins: ['*'], access: access(true) })
    expect([...cors(await preflight(served, 'https://any.example'))]).toEqual(['*', null])
    const answer = await post(served, '/v1/chat/completions', CHAT, { Origin: 'https://any.example', Authorization: 'Bearer pk' })
    expect([answer.status, ...cors(answer)]).toEqual([200, '*', null])
  })

  test('of any origin may not where no key is asked for', async () => {
    const served = await start({ origins: ['*'], access: access(false) })
    const answer = await post(served, '/v1/chat/completions', CHAT, { Origin: 'https://any.example' })
    expect([answer.status, ...cors(answer)]).toEqual([403, null, null])
    expect(await answer.json()).toMatchObject({
      error: { code: 'origin_refused', message: expect.stringContaining('keys create') },
    })
  })

  test('may read every header that the reference lists', async () => {
    const served = await start({ origins: [APP] })
    // biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
    const document = await client(served.base, {}, null).json<any>('GET', '/openapi.json')
    const exposed = (await preflight(served, APP)).headers.get('access-control-expose-headers')?.split(', ')
    expect(Object.keys(document.components.headers).filter((name) => !exposed?.includes(name))).toEqual([])
  })
})
