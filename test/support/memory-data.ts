import { createHash } from 'node:crypto'
import type { Edit } from '../../src/edit/edit.ts'
import { words } from '../../src/edit/words.ts'
import type { Embedder, PairReader, TextPair } from '../../src/engine/engine.ts'
import { UNRELATED } from '../../src/selection/boundless.ts'
import type { Calibration } from '../../src/selection/gate.ts'

/** Numbers in [0, 1), the same for the same seed (mulberry32). */
export function random(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

export function unit(vector: Float32Array): Float32Array {
  const length = Math.hypot(...vector)
  return vector.map((x) => x / length)
}

/** A unit vector that depends on nothing but the text. */
export function vectorOf(text: string, dimensions: number): Float32Array {
  const next = random(createHash('sha256').update(text).digest().readInt32LE(0))
  return unit(Float32Array.from({ length: dimensions }, () => next() - 0.5))
}

const STOP = new Set(
  'a an the is was of in on at to for by with who what which where that someone or something did does'.split(' '),
)

/** Words that tell what a text is about, cut to five letters. */
function telling(text: string): string[] {
  return words(text)
    .filter((w) => !STOP.has(w))
    .map((w) => w.slice(0, 5))
}

export const BAG_DIMENSIONS = 64

/** A vector that means something: texts with the same telling words point the same way. */
export function bagOfWords(text: string): Float32Array {
  const sum = new Float32Array(BAG_DIMENSIONS)
  const said = telling(text)
  for (const word of said.length > 0 ? said : ['nothing'])
    for (const [i, x] of vectorOf(word, BAG_DIMENSIONS).entries()) sum[i] = (sum[i] ?? 0) + x
  return unit(sum)
}

export interface FakeEmbedder extends Embedder {
  /** Every text it was asked for, in order. */
  readonly asked: string[]
}

export function fakeEmbedder(
  options: { name?: string; dimensions?: number; vector?: (text: string) => Float32Array } = {},
): FakeEmbedder {
  const { name = 'fake', dimensions = 16 } = options
  const vector = options.vector ?? ((text: string) => vectorOf(text, dimensions))
  const asked: string[] = []
  return {
    ...{ name, dimensions, maxTokens: 256, asked },
    // A word is a token, and there is one before and one after.
    countTokens: async (text) => words(text).length + 2,
    embed: async (texts) => {
      asked.push(...texts)
      return texts.map(vector)
    },
    close: async () => undefined,
  }
}

export function edit(id: string, over: Partial<Edit> = {}): Edit {
  return {
    ...{ id, subject: 'France', prompt: 'The capital of France is', targetNew: id },
    ...{ aliases: [], paraphrases: [], tags: [], tenant: 'default', ...over },
  }
}

/** An edit about a subject of its own. */
export function fact(n: number, over: Partial<Edit> = {}): Edit {
  return edit(`e${n}`, { subject: `Town ${n}`, prompt: `The mayor of Town ${n} is`, targetNew: `Mayor ${n}`, ...over })
}

/** Says of every pair that it is as likely as not, but that no edit is for any message. */
export function indifferentReader(): PairReader {
  const read = async (pairs: readonly TextPair[]) => Float32Array.from(pairs, ([text]) => (UNRELATED.includes(text) ? -20 : 0))
  return { name: 'indifferent', read, close: async () => {} }
}

/** Takes every edit whose subject the message names where the reader is indifferent. */
export const NAMED_CALIBRATION: Calibration = {
  bias: -5,
  weights: { reader: 1, named: 10, loosely: 10, earlier: 0, crowd: 0, crowdLoosely: 0 },
  threshold: 0.5,
}

const stems = (text: string) =>
  new Set(
    words(text)
      .filter((word) => word.length > 3)
      .map((word) => word.slice(0, 5)),
  )

/** A stand-in that goes by shared words: an edit is needed where at least `share` of its longer words, cut to five letters, are in the text. */
export function lexicalReader(share = 0.4): PairReader {
  const read = async (pairs: readonly TextPair[]) =>
    Float32Array.from(pairs, ([text, edit]) => {
      const [said, wanted] = [stems(text), [...stems(edit)]]
      return wanted.filter((stem) => said.has(stem)).length >= share * wanted.length ? 5 : -5
    })
  return { name: 'lexical', read, close: async () => {} }
}
