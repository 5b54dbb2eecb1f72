import { describe, expect, it } from 'vitest'
import type { Backend, Engine } from '../../../src/engine/engine.ts'
import { ModelPool, type ModelPoolOptions } from '../../../src/engine/model-pool.ts'
import { openScripted } from '../../../src/engine/scripted.ts'

const never = new AbortController().signal
const tick = () => new Promise((resolve) => setTimeout(resolve, 5))

function pool(sizes: Readonly<Record<string, number>>, more: Partial<ModelPoolOptions> = {}) {
  const events: string[] = []
  const gates = new Map<string, () => void>()
  const others = Object.entries(sizes).map(([name, bytes]) => ({
    name,
    bytes: async () => bytes,
    open: async (): Promise<Engine> => {
      events.push(`open ${name}`)
      if (name.startsWith('slow')) await new Promise<void>((resolve) => gates.set(name, resolve))
      if (name.startsWith('bad')) throw new Error('broken')
      const engine = openScripted({ name, reply: () => name })
      return Object.assign(engine, { close: async () => void events.push(`close ${name}`) })
    },
  }))
  const primary = openScripted({ name: 'first', reply: () => 'first' })
  const models = new ModelPool({
    ...{ primary, primaryBytes: 100, others, memoryBytes: 300, queueLimit: 2, log: () => {} },
    ...more,
  })
  return { models, events, gates }
}

describe('models on demand', () => {
  it('opens one when it is asked for, once for all who ask, and gives the primary for every other name', async () => {
    const { models, events } = pool({ a: 100, b: 100 })
    const [one, two] = await Promise.all([models.use('a', never), models.use('a', never)])
    expect(one.engine).toBe(two.engine)
    expect((await models.use('unknown', never)).engine.model.name).toBe('first')
    expect(events).toEqual(['open a'])
    expect(models.residency().map(({ name, state, busy }) => [name, state, busy])).toEqual([
      ['first', 'resident', 0],
      ['a', 'resident', 2],
      ['b', 'absent', 0],
    ])
  })

  it('closes the longest unused idle one where memory is short, and never one that answers', async () => {
    const { models, events } = pool({ a: 100, b: 100, c: 100 })
    for (const name of ['a', 'b', 'a']) (await models.use(name, never)).release()
    const c = await models.use('c', never)
    expect(events).toEqual(['open a', 'open b', 'close b', 'open c'])
    const a = await models.use('a', never)
    await expect(models.use('b', never)).rejects.toMatchObject({
      code: 'engine_unavailable',
      retryAfterSeconds: 5,
      message: expect.stringMatching(/`b` takes .* beside first, a, c\./),
    })
    a.release()
    a.release()
    expect((await models.use('b', never)).engine.model.name).toBe('b')
    expect(events.slice(4)).toEqual(['close a', 'open b'])
    c.release()
  })

  it('bounds those who wait for a model to be loaded, and lets them leave', async () => {
    const { models, gates, events } = pool({ slow: 100 })
    const leaving = new AbortController()
    const first = models.use('slow', never)
    const second = models.use('slow', leaving.signal)
    await tick()
    await expect(models.use('slow', never)).rejects.toMatchObject({ code: 'queue_full', retryAfterSeconds: 5 })
    expect(models.residency()[1]).toMatchObject({ state: 'loading', busy: 2 })
    leaving.abort(new Error('left'))
    await expect(second).rejects.toThrow('left')
    gates.get('slow')?.()
    expect((await first).engine.model.name).toBe('slow')
    expect(models.residency()[1]).toMatchObject({ state: 'resident', busy: 1 })
    expect(events).toEqual(['open slow'])
  })

  it('tries one again that failed to open', async () => {
    const { models, events } = pool({ bad: 100 })
    for (let i = 0; i < 2; i++) await expect(models.use('bad', never)).rejects.toThrow('broken')
    expect(events).toEqual(['open bad', 'open bad'])
    expect(models.residency()[1]).toMatchObject({ state: 'absent', busy: 0 })
  })

  it('takes turns with a served model that has threads of its own', async () => {
    const server: Backend = { name: 'llama-server', state: 'up', busy: 0, faults: 0, lastFault: null }
    let servers: Backend[] = []
    const primary = Object.assign(openScripted({ name: 'first', reply: () => '' }), { backends: () => servers })
    const { models } = pool({ a: 100 }, { primary })
    // While it is in this process, both at once.
    for (const held of [await models.use('first', never), await models.use('a', never)]) held.release()
    const together = [await models.use('first', never), await models.use('a', never)]
    servers = [server]
    for (const held of together) held.release()
    const first = await models.use('first', never)
    let begun = false
    const other = models.use('a', never).then((held) => {
      begun = true
      return held
    })
    await tick()
    expect(begun).toBe(false)
    first.release()
    await tick()
    expect(begun).toBe(true)
    const next = models.use('first', never)
    ;(await other).release()
    expect((await next).engine).toBe(primary)
  })

  it('closes what is open, and takes nobody after', async () => {
    const { models, events } = pool({ a: 100 })
    ;(await models.use('a', never)).release()
    await models.close(0)
    expect(events).toEqual(['open a', 'close a'])
    await expect(models.use('a', never)).rejects.toMatchObject({ code: 'shutting_down' })
  })
})
