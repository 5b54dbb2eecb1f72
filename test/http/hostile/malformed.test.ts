import { afterAll, beforeAll, expect, test } from 'vitest'
import { MODEL, type Served, serve } from '../fakes.ts'
import { malformed, send } from './malformed.ts'

let served: Served
beforeAll(async () => {
  served = await serve()
})
afterAll(() => served.close())

const TYPES: Readonly<Record<number, string>> = { 429: 'rate_limit_error', 500: 'server_error' }

test.each(malformed(MODEL))('$name', async ({ status, code, param, ...request }) => {
  const reply = await send(served.base, request)
  const { error } = JSON.parse(reply.text)
  expect({ status: reply.status, code: error.code, param: error.param, type: error.type }).toEqual({
    status,
    code,
    param,
    type: TYPES[status] ?? 'invalid_request_error',
  })
  expect(error.message.length).toBeGreaterThan(20)
  expect(error.message.length).toBeLessThan(1_500)
  expect(error.message).not.toMatch(/node_modules|\bat \w+ \(|\/src\//)
  expect(reply.headers['content-type']).toMatch(/^application\/json/)
  expect(reply.headers['x-request-id']).toMatch(/^req_[0-9a-f]{32}$/)
})

test('a refused method says which are possible', async () => {
  const reply = await send(served.base, { method: 'PATCH', path: '/v1/edits', headers: [], body: '' })
  expect(reply.headers.allow).toBe('GET, POST, HEAD, OPTIONS')
})

test('nothing of all this was landed, and no request reached the model', () => {
  expect(served.gateway.memory.feed().applied).toBe(0)
  expect(served.logged.some((line) => 'promptTokens' in line && (line.promptTokens as number) > 0)).toBe(false)
})
