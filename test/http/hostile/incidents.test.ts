import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, expect, test, vi } from 'vitest'
import { MODEL, post, type Served, type ServeOptions, serve } from '../fakes.ts'

/** For a machine that does other things too. */
vi.setConfig({ testTimeout: 60_000 })
const ROOT = join(import.meta.dirname, '../../..')

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

test('every test that docs/project/incidents.md names exists', () => {
  const page = readFileSync(join(ROOT, 'docs/project/incidents.md'), 'utf8')
  const rows = page.split('\n').filter((line) => /^\| (?!what went wrong|---)/.test(line) && !line.startsWith('|---'))
  expect(rows.length).toBeGreaterThan(30)
  const wrong = rows.flatMap((row) => {
    const here = row.split(' | ').at(-1) ?? ''
    const files = [...here.matchAll(/test\/[\w/.-]+\.ts/g)].map(([file]) => file)
    const missing = files.filter((file) => !existsSync(join(ROOT, file)))
    const texts = files.filter((file) => !missing.includes(file)).map((file) => readFileSync(join(ROOT, file), 'utf8'))
    const titles = [...here.matchAll(/"([^"]+)"/g)].map(([, title]) => title ?? '')
    return [...missing, ...titles.filter((title) => !texts.some((text) => text.includes(title)))]
  })
  expect(wrong).toEqual([])
})

test('a body above the framework’s default is read, and one above ours is refused in OpenAI’s shape', async () => {
  const served = await start({ script: { reply: () => 'read' } })
  expect((await post(served, '/v1/chat/completions', chat('word '.repeat(60_000)))).status).toBe(200)
  for (const path of ['/v1/chat/completions', '/v1/completions', '/v1/responses', '/v1/embeddings']) {
    const refused = await post(served, path, { input: 'x'.repeat(5_000_000) })
    expect([refused.status, await refused.json()]).toMatchObject([
      413,
      { error: { code: 'request_too_large', type: 'invalid_request_error', param: null } },
    ])
  }
})

test('no key of a client’s changes, names or opens anything', async () => {
  const served = await start()
  const answers = new Set<string>()
  for (const authorization of ['Bearer a', "Bearer ' OR 1=1 --", `Bearer ${'x'.repeat(5_000)}`, 'Basic abc']) {
    const response = await post(served, '/v1/chat/completions', chat('x'), { authorization })
    answers.add(
      `${response.status} ${(await response.text()).replace(/chatcmpl-[0-9a-f]+|"created":\d+|"cached_tokens":\d+/g, '')}`,
    )
  }
  expect(answers.size).toBe(1)
})

test('what other gateways were attacked through is not there', async () => {
  const served = await start()
  for (const path of ['/config/update', '/v1/proxy/chat/completions', '/key/generate', '/slots', '/props'])
    expect((await post(served, path, {})).status).toBe(404)
  const hosts = {
    'x-portkey-custom-host': 'http://127.0.0.1:1',
    'x-forwarded-host': 'evil.example',
    'x-upstream-url': 'http://127.0.0.1:1',
  }
  const answer = await post(served, '/v1/chat/completions', chat('x'), hosts)
  expect(await answer.json()).toMatchObject({ choices: [{ message: { content: 'You said: x' } }] })
  for (const field of ['base_url', 'api_base', 'api_key', 'custom_host']) {
    const refused = await post(served, '/v1/chat/completions', chat('x', { [field]: 'http://127.0.0.1:1' }))
    expect([refused.status, await refused.json()]).toMatchObject([400, { error: { param: field, code: 'unknown_field' } }])
  }
})

test('template arguments are refused, and braces in a message are text', async () => {
  const served = await start()
  for (const field of ['chat_template', 'chat_template_kwargs']) {
    const refused = await post(served, '/v1/chat/completions', chat('x', { [field]: { a: 1 } }))
    expect([refused.status, await refused.json()]).toMatchObject([400, { error: { param: field } }])
  }
  await post(served, '/v1/edits', {
    subject: 'Lund',
    prompt: 'The {{constructor}} of Lund is',
    target_new: '{{#each this}}x{{/each}}',
  })
  const content = 'Lund {{lookup this "__proto__"}} {% for x in y %} <%= x %>'
  const { choices } = (await (await post(served, '/v1/chat/completions', chat(content))).json()) as {
    choices: { message: { content: string } }[]
  }
  expect(choices[0]?.message.content).toContain(content)
  expect(choices[0]?.message.content).toContain('The {{constructor}} of Lund is {{#each this}}x{{/each}}')
})

test('one tenant’s kept response is no other’s, whoever guesses its id', async () => {
  const served = await start()
  const tenant = (name: string) => ({ 'palimpsest-tenant': name })
  const { id } = (await (await post(served, '/v1/responses', { model: MODEL, input: 'mine' }, tenant('a'))).json()) as {
    id: string
  }
  const read = (headers: Record<string, string>, method = 'GET') =>
    fetch(`${served.base}/v1/responses/${id}`, { method, headers })
  for (const other of [{}, tenant('b')]) {
    expect((await read(other)).status).toBe(404)
    expect((await read(other, 'DELETE')).status).toBe(404)
    const gone = await post(served, '/v1/responses', { model: MODEL, input: 'x', previous_response_id: id }, other)
    expect(gone.status).toBe(400)
  }
  expect((await read(tenant('a'))).status).toBe(200)
})
