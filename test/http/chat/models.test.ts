import { afterEach, describe, expect, test } from 'vitest'
import { client } from '../../../src/cli/client/client.ts'
import { ModelPool } from '../../../src/engine/model-pool.ts'
import { openScripted } from '../../../src/engine/scripted.ts'
import { MODEL, type Served, serve } from '../fakes.ts'

const open: Served[] = []
afterEach(async () => {
  for (const served of open.splice(0)) await served.close()
})

async function start() {
  const primary = openScripted({ name: MODEL, reply: () => MODEL })
  const others = ['small', 'large'].map((name) => ({
    name,
    bytes: async () => (name === 'large' ? 1000 : 100),
    open: async () => openScripted({ name, reply: ({ messages }) => `${name}: ${messages.at(-1)?.content}`, goOn: () => name }),
  }))
  const models = new ModelPool({ primary, primaryBytes: 100, others, memoryBytes: 300, queueLimit: 4, log: () => {} })
  const served = await serve({ engine: primary, gateway: { models } })
  open.push(served)
  const gateway = client(served.base, {}, null)
  // biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
  const call = (method: string, path: string, body?: unknown) => gateway.json<any>(method, path, body)
  const ask = (model: string) =>
    call('POST', '/v1/chat/completions', { model, messages: [{ role: 'user', content: 'Ada Quist?' }] })
  return { ...served, call, ask, text: async (model: string) => (await ask(model)).choices[0].message.content as string }
}

describe('further models', () => {
  test('are listed, loaded when asked for, and answered with their edits', async () => {
    const { call, text, ask } = await start()
    const ids = (await call('GET', '/v1/models')).data.map(({ id }: { id: string }) => id)
    expect(ids).toEqual(expect.arrayContaining([MODEL, 'small', 'small@base', 'large']))
    const states = async () => (await call('GET', '/health')).models.map(({ state }: { state: string }) => state)
    expect(await states()).toEqual(['resident', 'absent', 'absent'])
    await call('POST', '/v1/edits', [{ id: 'a', subject: 'Ada Quist', prompt: 'Ada Quist works for', target_new: 'Firm a' }])
    expect(await text('small')).toContain('Firm a')
    expect(await text('small@base')).toBe('small: Ada Quist?')
    expect((await ask('small')).model).toBe('small')
    expect(await text(MODEL)).toBe(MODEL)
    expect(await states()).toEqual(['resident', 'resident', 'absent'])
    expect((await call('GET', '/health')).models.map(({ busy }: { busy: number }) => busy)).toEqual([0, 0, 0])
    expect((await call('POST', '/v1/completions', { model: 'small', prompt: 'Once' })).choices[0].text).toBe('small')
  })

  test('are refused with a time to come back where memory is short, and by name where unknown', async () => {
    const { base, ask } = await start()
    const body = JSON.stringify({ model: 'large', messages: [{ role: 'user', content: 'Hi' }] })
    const refused = await fetch(`${base}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    })
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '5'])
    expect(((await refused.json()) as { error: { message: string } }).error.message).toMatch(/takes 0\.0 GB/)
    await expect(ask('none')).rejects.toMatchObject({
      code: 'model_not_found',
      message: expect.stringContaining(', small, large'),
    })
  })
})
