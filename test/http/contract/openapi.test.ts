import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Validator } from '@seriousme/openapi-schema-validator'
import { Ajv2020 } from 'ajv/dist/2020.js'
import type { Express } from 'express'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { createApp } from '../../../src/app.ts'
import { pathOf } from '../../../src/http/openapi/document.ts'
import { MODEL } from '../fakes.ts'
import { BASE } from '../handoff/handoff-fakes.ts'
import { serveEverything } from './everything.ts'

/** For a machine that does other things too. */
vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 })

interface Operation {
  readonly operationId: string
  readonly security: readonly object[]
  readonly requestBody?: { readonly required: boolean; readonly content: Readonly<Record<string, unknown>> }
  readonly responses: Readonly<Record<string, { readonly content?: Readonly<Record<string, unknown>> }>>
}
interface Document {
  readonly components: { readonly responses: Readonly<Record<string, { readonly description: string }>> }
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
}

let served: Awaited<ReturnType<typeof serveEverything>>
let document: Document
let ajv: Ajv2020
beforeAll(async () => {
  served = await serveEverything()
  document = (await (await fetch(`${served.base}/openapi.json`)).json()) as Document
  ajv = new Ajv2020({ strict: false, validateFormats: false })
  ajv.addSchema({ $id: 'gateway', ...document })
})
afterAll(() => served.close())

/** Every method and path that the application answers. */
function registered(app: Express): string[] {
  return app.router.stack.flatMap(({ route }) =>
    route === undefined
      ? []
      : [...new Set(route.stack.flatMap(({ method }) => method ?? []))].map((method) => `${method} ${pathOf(route.path)}`),
  )
}

const described = () =>
  Object.entries(document.paths).flatMap(([path, methods]) => Object.keys(methods).map((one) => `${one} ${path}`))

test('every route that is registered stands in the document, and the other way round', () => {
  const routes = registered(createApp(served.gateway, served.handoffs))
  expect(routes.length).toBeGreaterThan(50)
  expect(described().sort()).toEqual(routes.sort())
})

test('every route that asks for a key may find the database away, and says so', () => {
  const operations = Object.values(document.paths).flatMap((methods) => Object.values(methods))
  const keyed = operations.filter(({ security }) => security.length > 0)
  expect(keyed.length).toBeGreaterThan(40)
  expect(keyed.filter(({ responses }) => responses['503'] === undefined).map(({ operationId }) => operationId)).toEqual([])
  expect(document.components.responses.Error503?.description).toContain('`storage_unavailable`')
})

test('the document is OpenAPI 3.1, and its operations have names of their own', async () => {
  const validator = new Validator()
  expect(await validator.validate({ ...document })).toEqual({ valid: true })
  expect(validator.version).toBe('3.1')
  expect(() => validator.resolveRefs()).not.toThrow()
  const names = Object.values(document.paths).flatMap((methods) => Object.values(methods).map(({ operationId }) => operationId))
  expect(new Set(names).size).toBe(names.length)
})

test('every schema of the document can be compiled', () => {
  const at = (...steps: readonly string[]) =>
    `gateway#/${steps
      .map((step) => step.replaceAll('~', '~0').replaceAll('/', '~1'))
      .map(encodeURIComponent)
      .join('/')}`
  for (const [path, methods] of Object.entries(document.paths))
    for (const [method, { requestBody, responses }] of Object.entries(methods)) {
      for (const type of Object.keys(requestBody?.content ?? {}))
        ajv.compile({ $ref: at('paths', path, method, 'requestBody', 'content', type, 'schema') })
      for (const [status, { content = {} }] of Object.entries(responses))
        for (const type of Object.keys(content))
          ajv.compile({ $ref: at('paths', path, method, 'responses', status, 'content', type, 'schema') })
    }
})

test('keys are asked for where the guard asks for them', () => {
  expect(document.paths['/readyz']?.get?.security).toEqual([])
  expect(document.paths['/openapi.json']?.get?.security).toEqual([])
  expect(document.paths['/v1/edits']?.post?.security).toEqual([{ key: ['edits'] }])
  expect(document.paths['/v1/handoffs']?.post?.security).toEqual([{ key: ['admin'] }])
})

/** Sends a request, and holds the request and its reply to the document. Returns the reply. */
async function call(
  method: string,
  path: string,
  body?: unknown,
  pattern = path.replace(/\?.*/, ''),
): Promise<Record<string, unknown>> {
  const operation = document.paths[pattern]?.[method]
  if (operation === undefined) throw new Error(`${method} ${pattern} is not in the document`)
  asked.add(`${method} ${pattern}`)
  const response = await fetch(served.base + path, {
    method: method.toUpperCase(),
    ...(body !== undefined && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
  })
  const { status } = response
  const text = await response.text()
  const where = `${method} ${path} ${status} ${text.slice(0, 600)}`
  const found = String(status)
  expect(operation.responses, where).toHaveProperty(found)
  const step = pattern.replaceAll('/', '~1')
  const valid = (tail: string, value: unknown) => {
    const check = ajv.compile({
      $ref: `gateway#/paths/${encodeURIComponent(step)}/${method}/${tail}/content/application~1json/schema`,
    })
    expect(check(value) ? [] : check.errors, where).toEqual([])
  }
  if (body !== undefined) valid('requestBody', body)
  const reply = JSON.parse(text) as Record<string, unknown>
  if (status < 400) valid(`responses/${found}`, reply)
  else throw new Error(where)
  return reply
}
const asked = new Set<string>()

test('requests that the gateway takes, and its replies, are as the document says', async () => {
  const fact = { id: 'e1', subject: 'the Pope', prompt: 'The Pope is', target_new: 'Leo XIV', paraphrases: ['Who is the Pope?'] }
  const chat = { model: MODEL, messages: [{ role: 'user', content: 'Who is the Pope?' }] }
  await call('post', '/v1/edits', [fact, 'Our refund window is 30 days.', { when: 'someone asks', instruction: 'refer them' }])
  await call('post', '/v1/edits?dry_run=true&batch=b2', { edits: [{ ...fact, id: 'e2' }], tags: ['a'] })
  await call('get', '/v1/edits?limit=2')
  await call('get', '/v1/edits/e1', undefined, '/v1/edits/{id}')
  await call('post', '/v1/edits/search', { q: 'pope', state: 'live' })
  await call('post', '/v1/edits/e1/withdraw', undefined, '/v1/edits/{id}/withdraw')
  await call('post', '/v1/edits/e1/restore', undefined, '/v1/edits/{id}/restore')
  await call('delete', '/v1/edits/e1', undefined, '/v1/edits/{id}')
  await call('post', '/v1/edits/e1/restore', {}, '/v1/edits/{id}/restore')
  await call('post', '/v1/edits/withdraw', { ids: ['e1'] })
  await call('post', '/v1/edits/e1/restore', {}, '/v1/edits/{id}/restore')
  const { data } = (await call('get', '/v1/batches')) as { data: { id: string }[] }
  const batch = data[0]?.id ?? ''
  await call('get', `/v1/batches/${batch}`, undefined, '/v1/batches/{id}')
  await call('post', `/v1/batches/${batch}/withdraw`, {}, '/v1/batches/{id}/withdraw')
  await call('post', `/v1/batches/${batch}/restore`, {}, '/v1/batches/{id}/restore')
  await call('post', '/v1/edits/explain', { question: 'Who is the Pope?' })
  await call('post', '/v1/compare', { question: 'Who is the Pope?', max_tokens: 8 })

  const { id: completion } = await call('post', '/v1/chat/completions', {
    ...chat,
    ...{ n: 2, stop: ['x'], seed: 1, logprobs: true, store: false, user: null, palimpsest: { explain: true, tags: null } },
  })
  await call('post', '/v1/completions', { model: MODEL, prompt: ['a', 'b'], max_tokens: 3, logprobs: 1 })
  await call('post', '/v1/embeddings', { model: 'fake', input: 'a' })
  const { id: response } = await call('post', '/v1/responses', { model: MODEL, input: [{ role: 'user', content: 'Hello' }] })
  await call('get', `/v1/responses/${response}`, undefined, '/v1/responses/{id}')
  await call('delete', `/v1/responses/${response}`, undefined, '/v1/responses/{id}')
  await call('post', '/tokenize', { prompt: 'a b' })
  await call('post', '/detokenize', { tokens: [] })
  await call('get', '/tokenizer_info')
  await call('get', '/v1/models')
  await call('get', `/v1/models/${MODEL}`, undefined, '/v1/models/{name}')
  await call('get', '/health')
  await call('get', '/livez')
  await call('get', '/readyz')
  await call('get', '/v1/requests?after=0')
  await call('get', '/openapi.json')

  const { id: job } = await call('post', '/v1/handoffs', { method: 'memit', edits: ['e1'], thresholds: { efficacy: 0.5 } })
  await call('get', `/v1/handoffs/${job}`, undefined, '/v1/handoffs/{id}')
  await call('post', `/v1/handoffs/${job}/cancel`, {}, '/v1/handoffs/{id}/cancel')
  writeFileSync(join(served.dataDir, 'lists.gguf'), '[]')
  await call('post', '/v1/adapters', { id: 'a1', base_sha256: BASE, path: 'lists.gguf', edits: ['e1'] })
  await call('get', '/v1/adapters')
  await call('get', '/v1/adapters/a1', undefined, '/v1/adapters/{id}')
  await call('patch', '/v1/adapters/a1', { scale: 0.5 }, '/v1/adapters/{id}')
  for (const step of ['unload', 'load', 'promote', 'rollback'])
    await call('post', `/v1/adapters/a1/${step}`, {}, `/v1/adapters/{id}/${step}`)
  await call('delete', '/v1/adapters/a1', undefined, '/v1/adapters/{id}')

  await call('post', '/v1/experiments', { id: 'x1', unit: 'header:X-User', metrics: ['target_shown', 'label:good'] })
  await call('get', '/v1/experiments')
  await call('get', '/v1/experiments/x1?points=3', undefined, '/v1/experiments/{id}')
  await call('post', '/v1/experiments/plan', { base: 0.5, other: 0.6 })
  await call('post', '/v1/experiments/x1/weights', { weights: { base: 3 } }, '/v1/experiments/{id}/weights')
  await call('post', '/v1/experiments/x1/replay', { prompts: ['Who is the Pope?'] }, '/v1/experiments/{id}/replay')
  await call('get', '/v1/experiments/x1/replay', undefined, '/v1/experiments/{id}/replay')
  await call('post', '/v1/experiments/x1/stop', {}, '/v1/experiments/{id}/stop')
  await call('post', '/v1/experiments', { id: 'x2' })
  await call('post', '/v1/experiments/x2/ship', { arm: 'edited' }, '/v1/experiments/{id}/ship')
  await call('post', '/v1/rollouts', { id: 'r1', batch })
  await call('get', '/v1/rollouts')
  await call('get', '/v1/rollouts/r1', undefined, '/v1/rollouts/{id}')
  await call('get', '/v1/rollouts/r1/replay', undefined, '/v1/rollouts/{id}/replay')
  await call('post', '/v1/rollouts/r1/rollback', {}, '/v1/rollouts/{id}/rollback')
  await call('post', '/v1/feedback', { completion_id: completion, score: 1 })

  const { data: reports } = (await call('get', '/v1/evaluations')) as { data: { id: string }[] }
  await call('get', `/v1/evaluations/${reports[0]?.id}`, undefined, '/v1/evaluations/{id}')
  await call('get', '/v1/handoffs/advice?when=now')
  await call('get', '/v1/handoffs')
  // Pages and texts, which have no schema, and a hand-off's last steps, which `handoffs.test.ts` waits for.
  expect(described().filter((one) => !asked.has(one))).toEqual([
    'get /v1/evaluations/{id}/report',
    'post /v1/handoffs/import',
    ...['resume', 'promote', 'rollback'].map((step) => `post /v1/handoffs/{id}/${step}`),
    ...['/metrics', '/', '/console', '/docs', '/favicon.ico', '/console/assets/{hash}/{path}'].map((path) => `get ${path}`),
  ])
})
