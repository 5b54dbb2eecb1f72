/** Bytes that are nearly right: what others have sent, changed a little. */
import { random } from '../support/memory-data.ts'

/** Whole numbers, the same for the same seed. */
export class Dice {
  readonly #next: () => number

  constructor(seed: number) {
    this.#next = random(seed)
  }

  /** In [0, most). */
  below(most: number): number {
    return Math.floor(this.#next() * most)
  }

  of<T>(all: readonly T[]): T {
    return all[this.below(all.length)] as T
  }
}

/** Bytes and numbers at which readers stumble: ends of ranges, signs of notations, halves of characters. */
const TOKENS: readonly Buffer[] = [
  ...[
    '{',
    '}',
    '[',
    ']',
    '"',
    '\\',
    ':',
    ',',
    '\n',
    '\r\n',
    '\t',
    '|',
    '&a',
    '*a',
    '? ',
    '- ',
    '---',
    '<<',
    '`',
    '__proto__',
    'null',
    '1e999',
  ],
  ...[
    '\u0000',
    '\ufeff',
    '\u2028',
    'é',
    '🎉',
    'data: ',
    '\n\n',
    'event: error',
    '[DONE]',
    '"edits"',
    '"__proto__":{}',
    '{}',
    '[]',
    '-1',
    '0.5',
  ],
].map((text) => Buffer.from(text))
const NUMBERS = [0n, 1n, 0x7fn, 0x80n, 0xffn, 0xffffn, 0x7fffffffn, 0xffffffffn, 1n << 31n, 1n << 60n, (1n << 64n) - 1n]

function number(dice: Dice): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(dice.of(NUMBERS))
  return bytes.subarray(0, dice.of([1, 2, 4, 8]))
}

const spliced = (bytes: Buffer, at: number, without: number, put: Uint8Array): Buffer =>
  Buffer.concat([bytes.subarray(0, at), put, bytes.subarray(Math.min(bytes.length, at + without))])

/** One of the seeds with some changes. */
export function mutated(seeds: readonly Buffer[], dice: Dice, most: number): Buffer {
  let bytes = dice.of(seeds)
  for (let changes = 1 + dice.below(6); changes > 0; changes--) {
    const at = dice.below(bytes.length + 1)
    const some = 1 + dice.below(16)
    const ways: readonly (() => Buffer)[] = [
      () => spliced(bytes, at, 1, Uint8Array.of(dice.below(256))),
      () => spliced(bytes, at, some, Buffer.alloc(0)),
      () => spliced(bytes, at, dice.below(2), dice.of(TOKENS)),
      () => spliced(bytes, at, dice.of([0, 4, 8]), number(dice)),
      () => spliced(bytes, at, 0, bytes.subarray(at, at + some)),
      () => spliced(bytes, at, 0, Buffer.concat(Array.from({ length: some * 8 }, () => bytes.subarray(at, at + some)))),
      () => bytes.subarray(0, at),
      () => {
        const other = dice.of(seeds)
        const from = dice.below(other.length + 1)
        return spliced(bytes, at, 0, other.subarray(from, from + 64))
      },
    ]
    bytes = dice.of(ways)().subarray(0, most)
  }
  return bytes
}
