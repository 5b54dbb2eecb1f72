import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  append,
  type Cached,
  chooseSlot,
  commonPrefix,
  empty,
  PREFILL_PIECE_TOKENS,
  pieces,
  reusable,
  truncate,
} from '../../../../src/engine/scheduling/prefix-cache.ts'

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)

/** A slot after `prompt` was prefilled from nothing and `answer` decoded token by token. */
function served(prompt: readonly number[], answer: readonly number[] = [], lastUsed = 0): Cached {
  const slot = { ...empty(), lastUsed }
  for (const piece of pieces(prompt, 0)) append(slot, piece)
  for (const token of answer) append(slot, [token])
  return slot
}

/** Serve `prompt` in `slot`; returns the batches evaluated. */
function serve(slot: Cached, prompt: readonly number[], exact: boolean): number[][] {
  const reused = reusable(slot, prompt, exact)
  truncate(slot, reused)
  const batches = pieces(prompt, reused)
  for (const batch of batches) append(slot, batch)
  return batches
}

describe('chooseSlot', () => {
  it('takes the slot with the longest prefix of the same conversation', () => {
    const short = served(range(0, 10))
    const long = served(range(0, 20))
    const other = served(range(100, 150))
    expect(chooseSlot([other, short, long], range(0, 30))).toBe(long)
  })

  it('leaves a conversation alone that shares less than half with the prompt', () => {
    const busy = served([...range(0, 10), ...range(500, 530)], [], 1)
    const old = served(range(900, 905), [], 0)
    expect(chooseSlot([busy, old], range(0, 20))).toBe(old)
  })

  it('else takes an empty slot, else the one unused for longest', () => {
    const recent = served([1, 2], [], 5)
    const older = served([3, 4], [], 4)
    const fresh = empty()
    expect(chooseSlot([recent, older, fresh], [9])).toBe(fresh)
    expect(chooseSlot([recent, older], [9])).toBe(older)
    expect(chooseSlot([], [9])).toBeUndefined()
  })
})

describe('reusable', () => {
  it('evaluates the last batch of a repeated prompt again, in the same shape', () => {
    const prompt = range(0, 150)
    const slot = served(prompt, [7, 8, 9])
    expect(reusable(slot, prompt, false)).toBe(128)
    expect(serve(slot, prompt, false)).toEqual([range(128, 150)])
  })

  it('keeps the answer of the turn before for a follow-up', () => {
    const slot = served(range(0, 150), range(1000, 1020))
    const followUp = [...range(0, 150), ...range(1000, 1020), ...range(2000, 2100)]
    expect(reusable(slot, followUp, false)).toBe(170)
    expect(serve(slot, followUp, false).map((batch) => batch.length)).toEqual([22, 64, 14])
  })

  it('goes back to where a batch began when the answer was written differently', () => {
    const slot = served(range(0, 150), range(1000, 1020))
    expect(reusable(slot, [...range(0, 150), ...range(1000, 1005), 1], false)).toBe(155)
    expect(reusable(slot, [...range(0, 140), 1], false)).toBe(128)
    expect(reusable(slot, [5], false)).toBe(0)
    expect(reusable(slot, [0], false)).toBe(0)
  })

  it('counts only whole aligned pieces for a seeded request', () => {
    const slot = served(range(0, 150), range(1000, 1020))
    const followUp = [...range(0, 150), ...range(1000, 1020), ...range(2000, 2100)]
    expect(reusable(slot, followUp, true)).toBe(128)
    serve(slot, followUp, false) // leaves pieces that began at 170
    expect(slot.alignedTokens).toBe(128)
    expect(reusable(slot, followUp, true)).toBe(128)
  })

  it('gives a seeded request the batches of an empty slot, whatever came before', () => {
    const token = fc.integer({ min: 0, max: 1 })
    const prompt = fc.array(token, { minLength: 1, maxLength: 300 })
    const requests = fc.array(
      fc.record({ shared: fc.nat(300), rest: prompt, answer: fc.array(token, { maxLength: 70 }), exact: fc.boolean() }),
    )
    fc.assert(
      fc.property(requests, fc.nat(300), prompt, (history, shared, rest) => {
        const slot = empty()
        const seen = new Map<number, string>() // position -> the batch it was evaluated in
        const run = (tokens: readonly number[], exact: boolean) => {
          const start = reusable(slot, tokens, exact)
          for (const at of [...seen.keys()]) if (at >= start) seen.delete(at)
          let at = start
          for (const batch of serve(slot, tokens, exact)) {
            const shape = `${at}+${batch.length}`
            for (const _ of batch) seen.set(at++, shape)
          }
        }
        for (const { shared: keep, rest: more, answer, exact } of history) {
          run([...slot.tokens.slice(0, keep), ...more], exact)
          for (const spoken of answer) {
            seen.set(slot.tokens.length, `${slot.tokens.length}+1`)
            append(slot, [spoken])
          }
        }
        const last = [...slot.tokens.slice(0, shared), ...rest]
        run(last, true)
        const cold = pieces(last, 0).flatMap((batch, i) => batch.map(() => `${i * PREFILL_PIECE_TOKENS}+${batch.length}`))
        expect(range(0, last.length).map((at) => seen.get(at))).toEqual(cold)
      }),
    )
  })
})

describe('pieces', () => {
  it('ends at multiples of the piece length, and covers the prompt', () => {
    fc.assert(
      fc.property(fc.nat(400), fc.nat(400), (length, start) => {
        const prompt = range(0, length)
        const cutUp = pieces(prompt, Math.min(start, length))
        expect(cutUp.flat()).toEqual(prompt.slice(Math.min(start, length)))
        for (const piece of cutUp.slice(0, -1)) expect(((piece.at(-1) ?? 0) + 1) % PREFILL_PIECE_TOKENS).toBe(0)
      }),
    )
  })
})

it('finds the common prefix', () => {
  expect(commonPrefix([1, 2, 3], [1, 2, 4])).toBe(2)
  expect(commonPrefix([], [1])).toBe(0)
  expect(commonPrefix([1, 2], [1, 2, 3])).toBe(2)
})
