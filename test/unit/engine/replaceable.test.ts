import { describe, expect, it } from 'vitest'
import type { Finish, Lora, OwnEngine } from '../../../src/engine/engine.ts'
import { ReplaceableEngine } from '../../../src/engine/replaceable.ts'
import { openScripted, type ScriptedOptions } from '../../../src/engine/scripted.ts'
import { Trace } from '../../../src/trace.ts'

const never = new AbortController().signal
const lora = (id: string): Lora => ({ id, path: `/${id}`, sha256: id, bytes: 1, scale: 1 })

/** A scripted engine that takes adapters and scores nothing; `did` is what was asked of it besides answers. */
function own(name: string, more: Partial<ScriptedOptions> & { refuses?: string } = {}) {
  const did: string[] = []
  const loaded = new Set<string>()
  const loras = {
    check: async () => ({ architecture: 'a', rank: 1, bytes: 1 }),
    baseSha256: async () => '',
    load: async ({ id }: Lora) => {
      did.push(`load ${id}`)
      await Promise.resolve()
      if (id === more.refuses) throw new Error(`${name} does not take it`)
      loaded.add(id)
    },
    unload: async ({ sha256 }: Pick<Lora, 'sha256'>) => {
      did.push(`unload ${sha256}`)
      loaded.delete(sha256)
    },
    loaded: ({ sha256 }: Pick<Lora, 'sha256'>) => loaded.has(sha256),
  }
  const scripted = openScripted({ name, reply: () => `${name} says so`, ...more })
  const { close } = scripted
  const engine = Object.assign(scripted, {
    loras,
    openScorer: async () => ({ score: async () => [], close: async () => void did.push('scorer closed') }),
    close: async (graceMs: number) => {
      did.push(`close ${graceMs}`)
      await close.call(scripted, graceMs)
    },
  }) as OwnEngine
  return { engine, did }
}

const begin = (engine: OwnEngine, more: { lora?: Lora } = {}) =>
  engine.generate(
    { messages: [{ role: 'user', content: 'hello' }], ...more },
    { temperature: 0, topP: 1, stop: [] },
    new Trace('t', () => performance.now()),
    never,
  )

async function text(answer: AsyncGenerator<{ text: string }, Finish>): Promise<string> {
  let said = ''
  for await (const piece of answer) said += piece.text
  return said
}

describe('an engine that is exchanged while it serves', () => {
  it('ends an answer where it began, asks the new one for all else, and closes the old one after its last answer', async () => {
    const [old, next] = [own('old'), own('new')]
    const engine = new ReplaceableEngine(old.engine)
    const [begun, unread] = [begin(engine), begin(engine)]
    const first = await begun.next()
    await engine.replace(next.engine)
    expect(engine.model.name).toBe('new')
    expect(await text(begin(engine))).toBe('new says so')
    // What nobody has begun to read has not begun.
    expect(await text(unread)).toBe('new says so')
    expect(old.did).toEqual([])
    expect(`${first.done ? '' : first.value.text}${await text(begun)}`).toBe('old says so')
    await expect.poll(() => old.did).toEqual(['close 0'])
    await engine.close(7)
    expect([old.did, next.did]).toEqual([['close 0'], ['close 7']])
  })

  it('closes an idle one at once, and one with a reader that leaves', async () => {
    const [old, next, third] = [own('old'), own('new'), own('third')]
    const engine = new ReplaceableEngine(old.engine)
    await engine.replace(next.engine)
    await expect.poll(() => old.did).toEqual(['close 0'])
    const begun = begin(engine)
    await begun.next()
    await engine.replace(third.engine)
    expect(next.did).toEqual([])
    await begun.return({} as Finish)
    await expect.poll(() => next.did).toEqual(['close 0'])
  })

  it('keeps the old one for a scorer, and for text that is gone on with', async () => {
    const [old, next] = [own('old', { goOn: () => ' and old' }), own('new')]
    const engine = new ReplaceableEngine(old.engine)
    const scorer = await engine.openScorer()
    const trace = new Trace('t', () => 0)
    const prompt = { before: '', text: 'a', echo: false }
    const begun = engine.text.complete(prompt, { temperature: 0, topP: 1, stop: [] }, trace, never)
    const first = await begun.next()
    await engine.replace(next.engine)
    await scorer.close()
    await scorer.close()
    expect(old.did).toEqual(['scorer closed', 'scorer closed'])
    expect(`${first.done ? '' : first.value.text}${await text(begun)}`).toBe(' and old')
    await expect.poll(() => old.did.at(-1)).toBe('close 0')
  })

  it('carries over the adapters that are loaded, those asked for meanwhile too, and not those that were unloaded', async () => {
    const [old, next] = [own('old'), own('new')]
    const engine = new ReplaceableEngine(old.engine)
    await engine.loras.load(lora('a'))
    await engine.loras.load(lora('gone'))
    await engine.loras.unload(lora('gone'))
    const replaced = engine.replace(next.engine)
    await engine.loras.load(lora('late'))
    await replaced
    expect(next.did).toEqual(['load a', 'load late'])
    expect([engine.loras.loaded(lora('a')), engine.loras.loaded(lora('gone'))]).toEqual([true, false])
  })

  it('has an adapter unloaded in every engine that may hold it', async () => {
    const [old, next] = [own('old'), own('new')]
    const engine = new ReplaceableEngine(old.engine)
    await engine.loras.load(lora('a'))
    const begun = begin(engine, { lora: lora('a') })
    await begun.next()
    const replaced = engine.replace(next.engine)
    await engine.loras.unload(lora('a'))
    await replaced
    expect([old.did.at(-1), next.did.at(-1)]).toEqual(['unload a', 'unload a'])
    await text(begun)
  })

  it('stays as it is where the new one does not take an adapter, or where it is closed meanwhile', async () => {
    const [old, next, third] = [own('old'), own('new', { refuses: 'a' }), own('third')]
    const engine = new ReplaceableEngine(old.engine)
    await engine.loras.load(lora('a'))
    await expect(engine.replace(next.engine)).rejects.toThrow('new does not take it')
    expect(await text(begin(engine))).toBe('old says so')
    expect([old.did, next.did]).toEqual([['load a'], ['load a']])
    const replaced = engine.replace(third.engine)
    await engine.close(0)
    await expect(replaced).rejects.toMatchObject({ code: 'shutting_down' })
    expect(third.did).toEqual(['load a'])
  })
})
