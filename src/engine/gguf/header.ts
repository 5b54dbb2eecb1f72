import { type FileHandle, open } from 'node:fs/promises'

/** The header of a GGUF file from somebody else (ggml-org/ggml, docs/gguf.md), read before any library sees the file. */
export interface GgufHeader {
  /** Numbers, truth values and texts by key. Of arrays only texts are kept. */
  readonly values: ReadonlyMap<string, GgufScalar | readonly string[]>
  readonly tensors: readonly GgufTensorPlace[]
  readonly bytes: number
}

export type GgufScalar = number | bigint | boolean | string

export interface GgufTensorPlace {
  readonly name: string
  /** Fastest-varying first, as ggml counts. */
  readonly sizes: readonly number[]
  readonly type: keyof typeof TYPES
  /** Where its data begin in the file, and how many bytes they are. */
  readonly at: number
  readonly bytes: number
}

/** What it may cost to read one; no adapter is near. */
const HEADER_BYTES = 32 * 1024 * 1024
const KEYS = 4_096
const TENSORS = 65_536
const NAME_BYTES = 256
const ARRAY_ITEMS = 1_048_576
const DIMENSIONS = 4
const ALIGNMENT_BYTES = 65_536
const DEFAULT_ALIGNMENT_BYTES = 32

/** Bytes of one value, by its number in the format; strings and arrays say their own. */
const SCALAR_BYTES: Readonly<Record<number, number>> = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 }
const STRING = 8
const ARRAY = 9
const LENGTH_BYTES = 8

/** What weights of an adapter are made of: bytes of a block, and values in it. */
const TYPES = { F32: [4, 1], F16: [2, 1], BF16: [2, 1], Q8_0: [34, 32] } as const
const TYPE_OF: Readonly<Record<number, keyof typeof TYPES>> = { 0: 'F32', 1: 'F16', 8: 'Q8_0', 30: 'BF16' }

/** Throws an Error that says what is wrong with the file. Nothing is allocated by what the file only claims. */
export async function readGgufHeader(path: string): Promise<GgufHeader> {
  const file = await open(path)
  try {
    const { size } = await file.stat()
    const head = Buffer.alloc(Math.min(size, HEADER_BYTES))
    await readWhole(file, head, 0)
    return headerIn(head, size)
  } finally {
    await file.close()
  }
}

/** `head`: the beginning of a file of `bytes`. Pure. */
export function headerIn(head: Buffer, bytes: number): GgufHeader {
  const walk = new Walk(head)
  if (walk.text(4) !== 'GGUF') throw new Error('it does not begin with GGUF')
  const version = walk.u32()
  if (version !== 2 && version !== 3) throw new Error(`version ${version} is not served`)
  const tensorCount = walk.count('tensors', TENSORS, LENGTH_BYTES)
  const keyCount = walk.count('keys', KEYS, LENGTH_BYTES)
  const values = new Map<string, GgufScalar | readonly string[]>()
  const keys = new Set<string>()
  for (let i = 0; i < keyCount; i++) {
    const key = walk.name('a key')
    // Readers make objects of keys.
    if (/(^|\.)(__proto__|constructor|prototype)(\.|$)/.test(key) || keys.has(key)) throw new Error(`key \`${key}\` is none`)
    keys.add(key)
    const value = walk.value(walk.u32())
    if (value !== undefined) values.set(key, value)
  }
  const alignment = values.get('general.alignment') ?? DEFAULT_ALIGNMENT_BYTES
  if (typeof alignment !== 'number' || alignment < 8 || alignment > ALIGNMENT_BYTES || alignment % 8 !== 0)
    throw new Error('its alignment is no multiple of 8')
  const placed = Array.from({ length: tensorCount }, () => walk.tensor())
  if (new Set(placed.map(({ name }) => name)).size < tensorCount) throw new Error('two tensors have one name')
  const begin = aligned(walk.at, alignment)
  // As ggml has it: one after the other, each aligned.
  let next = 0
  const tensors = placed.map(({ offset, ...tensor }) => {
    if (offset !== next) throw new Error(`\`${tensor.name}\` lies at ${offset}, not at ${next}`)
    next = aligned(next + tensor.bytes, alignment)
    if (begin + offset + tensor.bytes > bytes) throw new Error(`\`${tensor.name}\` goes beyond the file's ${bytes} bytes`)
    return { ...tensor, at: begin + offset }
  })
  return { values, tensors, bytes }
}

function aligned(at: number, to: number): number {
  return Math.ceil(at / to) * to
}

/** Reads on; never beyond what there is. */
class Walk {
  readonly #head: Buffer
  at = 0

  constructor(head: Buffer) {
    this.#head = head
  }

  #take(bytes: number): number {
    const from = this.at
    if (bytes > this.#head.length - from) throw new Error(`its header breaks off after ${this.#head.length} bytes`)
    this.at += bytes
    return from
  }

  u32(): number {
    return this.#head.readUInt32LE(this.#take(4))
  }

  u64(): number {
    const value = Number(this.#head.readBigUInt64LE(this.#take(8)))
    if (!Number.isSafeInteger(value)) throw new Error('a number in its header is beyond every file')
    return value
  }

  /** Of things of at least `leastBytes` each, which must find room in the rest. */
  count(what: string, most: number, leastBytes: number): number {
    const count = this.u64()
    if (count > most || count * leastBytes > this.#head.length - this.at)
      throw new Error(`it claims ${count} ${what}, more than it can hold`)
    return count
  }

  text(bytes: number): string {
    const from = this.#take(bytes)
    return this.#head.toString('utf8', from, this.at)
  }

  string(): string {
    return this.text(this.u64())
  }

  name(what: string): string {
    const bytes = this.u64()
    if (bytes === 0 || bytes > NAME_BYTES) throw new Error(`the name of ${what} has ${bytes} bytes`)
    return this.text(bytes)
  }

  /** undefined for an array that is not of texts: it is passed over. */
  value(type: number): GgufScalar | readonly string[] | undefined {
    if (type === STRING) return this.string()
    if (type !== ARRAY) return this.#scalar(type)
    const of = this.u32()
    if (of === STRING) {
      const items = this.count('texts', ARRAY_ITEMS, LENGTH_BYTES)
      return Array.from({ length: items }, () => this.string())
    }
    const bytes = SCALAR_BYTES[of]
    if (bytes === undefined) throw new Error(`an array of values of type ${of} is none`)
    this.#take(bytes * this.count('values', ARRAY_ITEMS, bytes))
    return undefined
  }

  #scalar(type: number): GgufScalar {
    const bytes = SCALAR_BYTES[type]
    if (bytes === undefined) throw new Error(`a value of type ${type} is none`)
    const at = this.#take(bytes)
    const head = this.#head
    switch (type) {
      case 6:
        return head.readFloatLE(at)
      case 7:
        return head.readUInt8(at) !== 0
      case 10:
        return head.readBigUInt64LE(at)
      case 11:
        return head.readBigInt64LE(at)
      case 12:
        return head.readDoubleLE(at)
      default:
        return type % 2 === 0 ? head.readUIntLE(at, bytes) : head.readIntLE(at, bytes)
    }
  }

  tensor(): Omit<GgufTensorPlace, 'at'> & { readonly offset: number } {
    const name = this.name('a tensor')
    const dimensions = this.u32()
    if (dimensions === 0 || dimensions > DIMENSIONS) throw new Error(`\`${name}\` has ${dimensions} dimensions`)
    const sizes = Array.from({ length: dimensions }, () => this.u64())
    const number = this.u32()
    const type = TYPE_OF[number]
    if (type === undefined) throw new Error(`\`${name}\` is of type ${number}; served are ${Object.keys(TYPES).join(', ')}`)
    const [blockBytes, blockValues] = TYPES[type]
    const values = sizes.reduce((product, size) => product * size, 1)
    const bytes = (values / blockValues) * blockBytes
    if (!Number.isSafeInteger(bytes) || values === 0 || (sizes[0] ?? 0) % blockValues !== 0)
      throw new Error(`\`${name}\` of ${sizes.join(' × ')} is none`)
    return { name, sizes, type, bytes, offset: this.u64() }
  }
}

const PIECE_BYTES = 34 * 32 * 1_024

/** The first tensor with a value that is no finite number; null where there is none. */
export async function findNotFinite(path: string, tensors: readonly GgufTensorPlace[]): Promise<string | null> {
  const file = await open(path)
  const piece = new ArrayBuffer(PIECE_BYTES)
  try {
    for (const { name, type, at, bytes } of tensors)
      for (let done = 0; done < bytes; done += PIECE_BYTES) {
        const length = Math.min(PIECE_BYTES, bytes - done)
        await readWhole(file, new Uint8Array(piece, 0, length), at + done)
        if (!isFinitePiece(piece, length, type)) return name
      }
    return null
  } finally {
    await file.close()
  }
}

/** A number is finite where its exponent is not all ones. */
function isFinitePiece(piece: ArrayBuffer, length: number, type: GgufTensorPlace['type']): boolean {
  if (type === 'F32') return new Uint32Array(piece, 0, length / 4).every((bits) => (bits & 0x7f800000) !== 0x7f800000)
  const halves = new Uint16Array(piece, 0, length / 2)
  switch (type) {
    case 'F16':
      return halves.every((bits) => (bits & 0x7c00) !== 0x7c00)
    case 'BF16':
      return halves.every((bits) => (bits & 0x7f80) !== 0x7f80)
    case 'Q8_0':
      // A block's scale comes first; its values are whole numbers.
      return halves.every((bits, i) => i % 17 !== 0 || (bits & 0x7c00) !== 0x7c00)
    default:
      return type satisfies never
  }
}

async function readWhole(file: FileHandle, into: Uint8Array, at: number): Promise<void> {
  for (let done = 0; done < into.length; ) {
    const { bytesRead } = await file.read(into, done, into.length - done, at + done)
    if (bytesRead === 0) throw new Error('it became shorter while it was read')
    done += bytesRead
  }
}
