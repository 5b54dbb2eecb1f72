import { describe, expect, it } from 'vitest'
import { loraKey, SequenceLoras } from '../../../../src/engine/embedded/loras.ts'
import type { Lora } from '../../../../src/engine/engine.ts'
import { ServerLoras } from '../../../../src/engine/llama-server/loras.ts'
import { serverArgs } from '../../../../src/engine/llama-server/wire.ts'
import { append, chooseSlot, dedicate, empty, reusable } from '../../../../src/engine/scheduling/prefix-cache.ts'
import { Turns } from '../../../../src/engine/scheduling/shared-lock.ts'

const never = new AbortController().signal
const lora = (id: string, bytes = 100): Lora => ({ id, path: `${id}.gguf`, sha256: `sha-${id}`, bytes, scale: 1 })

describe('a slot', () => {
  it('is never reused for what another adapter computed, nor for another scale of the same', () => {
    const tokens = Array.from({ length: 64 }, (_, i) => i)
    const [mine, other] = [empty(), empty()]
    dedicate(mine, 'a*1')
    for (const slot of [mine, other]) append(slot, tokens)
    expect(chooseSlot([other, mine], [...tokens, 1], 'a*1')).toBe(mine)
    expect(chooseSlot([mine, other], [...tokens, 1])).toBe(other)
    dedicate(mine, 'a*0.5')
    expect(reusable(mine, [...tokens, 1], false)).toBe(0)
    expect([loraKey(undefined), loraKey({ sha256: 'x', scale: 0 }), loraKey({ sha256: 'x', scale: 0.5 })]).toEqual([
      '',
      '',
      'x*0.5',
    ])
  })
})

describe('a batch', () => {
  it('holds sequences of one adapter, that of the one which waits longest', () => {
    const set: string[] = []
    const queued: { sequenceId: number }[] = []
    const context = {
      _ctx: {
        setLoras: ([native]: { name: string }[], [scale]: number[]) =>
          set.push(native === undefined ? 'none' : `${native.name}*${scale}`),
      },
      _queuedDecodes: queued,
    }
    const loras = new SequenceLoras()
    loras.watch(context as never)
    const held = (name: string) => ({ key: `${name}*1`, native: { name }, scale: 1, release: () => {} })
    loras.assign({ _sequenceId: 1 } as never, held('a') as never)
    loras.assign({ _sequenceId: 3 } as never, held('a') as never)
    loras.assign({ _sequenceId: 4 } as never, held('b') as never)
    const chosen: number[][] = []
    const strategy = loras.strategy(({ items }) => {
      chosen.push(items.map(({ tokens }) => tokens[0] as number))
      return items.map((item) => ({ item, processAmount: 1 }))
    })
    const batch = (...ids: number[]) => {
      queued.splice(0, queued.length, ...ids.map((sequenceId) => ({ sequenceId })))
      const items = ids.map((id) => ({ tokens: [id], logits: [true], evaluationPriority: 4 }))
      return strategy({ items: items as never, size: 512 }).map(({ item }) => item.tokens[0] as number)
    }
    batch(0, 1, 2, 3, 4)
    batch(1, 2, 3, 4)
    batch(4, 0)
    batch(4)
    batch(0)
    expect(chosen).toEqual([[0, 2], [1, 3], [4], [4], [0]])
    expect(set).toEqual(['a*1', 'b*1', 'none'])
    // Evaluated in the order of their numbers, which llama.cpp does at once, whatever the order they came in.
    expect(batch(2, 5, 0)).toEqual([0, 2, 5])
    queued.push({ sequenceId: 9 })
    expect(() => strategy({ items: [], size: 1 })).toThrow(/no longer queues/)
  })
})

describe('adapters of a llama-server', () => {
  function start(limitBytes = 250, comesUp: (paths: readonly string[]) => boolean = () => true) {
    const starts: (readonly string[])[] = []
    const turns = new Turns()
    const server = {
      restart: async (paths: readonly string[]) => {
        starts.push(paths)
        return comesUp(paths)
      },
    }
    return { starts, turns, loras: new ServerLoras({ server, turns, args: (paths) => paths, limitBytes, restarted: () => {} }) }
  }

  it('starts it anew once for each, when nothing is under way, and names every one in every request', async () => {
    const { loras, starts, turns } = start()
    expect(loras.scales(undefined)).toBeNull()
    const running = await turns.enter(false, never)
    const asked = [loras.enter(lora('a'), false, never), loras.enter(lora('a'), false, never)]
    await new Promise((resolve) => setTimeout(resolve, 5))
    expect(starts).toEqual([])
    running()
    for (const leave of await Promise.all(asked)) leave()
    expect(starts).toEqual([['a.gguf']])
    expect(loras.scales(undefined)).toEqual([{ id: 0, scale: 0 }])
    ;(await loras.enter({ ...lora('b'), scale: 0.5 }, false, never))()
    expect(loras.scales({ ...lora('b'), scale: 0.5 })).toEqual([
      { id: 0, scale: 0 },
      { id: 1, scale: 0.5 },
    ])
    await loras.unload(lora('a'))
    expect([loras.has(lora('a')), loras.has(lora('b'))]).toEqual([false, true])
  })

  it('drops the longest unused where memory is short', async () => {
    const { loras, starts } = start()
    for (const id of ['a', 'b', 'a', 'c']) (await loras.enter(lora(id), false, never))()
    expect(starts.at(-1)).toEqual(['a.gguf', 'c.gguf'])
  })

  it('starts it as it was where it does not come up with a new one, and lets a request leave that waits for that', async () => {
    const { loras, starts, turns } = start(1000, (paths) => !paths.includes('bad.gguf'))
    await loras.load(lora('a'))
    await expect(loras.enter(lora('bad'), false, never)).rejects.toMatchObject({ code: 'adapter_mismatch' })
    expect(starts.at(-1)).toEqual(['a.gguf'])
    expect([loras.has(lora('a')), loras.has(lora('bad'))]).toEqual([true, false])
    const running = await turns.enter(false, never)
    const leaving = new AbortController()
    const asked = loras.enter(lora('b'), false, leaving.signal)
    leaving.abort(new Error('left'))
    await expect(asked).rejects.toThrow('left')
    running()
  })

  it('are loaded and not applied, commas in their paths and all', () => {
    const shape = { modelPath: 'm.gguf', slots: 1, contextTokens: 256, threads: 1, gpu: false }
    const args = serverArgs({ ...shape, loras: ['a.gguf', 'b,"c.gguf'] })
    expect(args[args.indexOf('--lora') + 1]).toBe('a.gguf,"b,""c.gguf"')
    expect(args).toContain('--lora-init-without-apply')
    expect(serverArgs(shape).join(' ')).not.toContain('lora')
  })
})
