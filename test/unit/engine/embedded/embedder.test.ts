import { describe, expect, it } from 'vitest'
import { createEmbedder, type EmbedderParts, unit } from '../../../../src/engine/embedded/embedder.ts'

/** An embedder whose every evaluation waits to be let through. */
function held({ evaluate, ...parts }: Partial<EmbedderParts> & { evaluate?: EmbedderParts['lanes'][number] } = {}) {
  const order: number[][] = []
  const doors: (() => void)[] = []
  const wait = async (tokens: number[]) => {
    order.push(tokens)
    await new Promise<void>((open) => doors.push(open))
    return [3, 4]
  }
  const embedder = createEmbedder({
    name: 'test',
    dimensions: 2,
    maxTokens: 6,
    tokenize: (text) => Array.from(text, (c) => c.charCodeAt(0)),
    wrap: { first: [101], last: [102] },
    isBusy: () => false,
    lanes: [evaluate ?? wait],
    free: async () => {},
    ...parts,
  })
  const step = async () => {
    while (doors.length === 0) await new Promise((resume) => setImmediate(resume))
    doors.shift()?.()
  }
  return { embedder, order, step }
}

const instant = { evaluate: async (tokens: number[]) => [tokens.length, 0] }
const inner = (order: number[][]) => order.map((tokens) => String.fromCharCode(...tokens.slice(1, -1)))

describe('the embedder', () => {
  it('gives unit vectors in order', async () => {
    const { embedder, step } = held()
    const done = embedder.embed(['a'], 'query')
    await step()
    const [vector] = await done
    expect(vector?.[0]).toBeCloseTo(0.6, 6)
    expect(vector?.[1]).toBeCloseTo(0.8, 6)
  })

  it('lets a query overtake an import between two texts', async () => {
    const { embedder, order, step } = held()
    const imported = embedder.embed(['a', 'b', 'c'], 'import')
    const second = embedder.embed(['d'], 'import')
    const asked = embedder.embed(['q', 'r'], 'query')
    for (let i = 0; i < 6; i++) await step()
    await Promise.all([imported, second, asked])
    const turns = inner(order)
    expect(turns).toEqual(['a', 'q', 'r', 'b', 'c', 'd'])
  })

  it('stops between texts when aborted', async () => {
    const { embedder, order, step } = held()
    const gone = new AbortController()
    const imported = embedder.embed(['a', 'b'], 'import', gone.signal)
    gone.abort(new Error('enough'))
    const refused = expect(imported).rejects.toThrow('enough')
    await step()
    await refused
    expect(inner(order)).toEqual(['a'])
    const after = embedder.embed(['z'], 'query')
    await step()
    await after
  })

  it('cuts a long text by tokens and keeps the special ones, and embeds an empty text', async () => {
    const seen: number[][] = []
    const evaluate = async (tokens: number[]) => {
      seen.push(tokens)
      return [1, 1]
    }
    const { embedder } = held({ evaluate })
    await embedder.embed(['abcdefghij', ''], 'query')
    expect(seen).toEqual([
      [101, 97, 98, 99, 100, 102],
      [101, 102],
    ])
  })

  it('does not tokenize megabytes to use a few words', async () => {
    let longest = 0
    const tokenize = (text: string) => {
      longest = Math.max(longest, text.length)
      return [1]
    }
    await held({ ...instant, tokenize }).embedder.embed(['x'.repeat(1_000_000)], 'query')
    expect(longest).toBeLessThan(10_000)
  })

  it.each([[[Number.NaN, 1]], [[0, 0]], [[1, 2, 3]]])('refuses the vector %j', async (vector) => {
    const { embedder } = held({ evaluate: async () => vector })
    await expect(embedder.embed(['a'], 'query')).rejects.toMatchObject({ code: 'engine_failed' })
    await expect(embedder.embed(['a'], 'query')).rejects.toMatchObject({ code: 'engine_failed' }) // not stuck
  })

  it('closes after the text in progress and refuses the rest', async () => {
    let freed = 0
    const free = async () => {
      freed++
    }
    const { embedder, step } = held({ free })
    const running = embedder.embed(['a'], 'import')
    const waiting = expect(embedder.embed(['b'], 'query')).rejects.toMatchObject({ code: 'shutting_down' })
    const closed = embedder.close()
    expect(freed).toBe(0)
    await step()
    await Promise.all([running, waiting, closed])
    expect(freed).toBe(1)
  })
})

it('scales to length 1', () => {
  expect(Array.from(unit([0, -2]) ?? [])).toEqual([0, -1])
  expect(unit([Number.POSITIVE_INFINITY, 1])).toBeNull()
})
