/** The bytes each token stands for, read from the vocabulary, so that an answer is put together byte by byte and no native call is spent on it. */
export type TokenBytes = (token: number) => Uint8Array

/** As a GGUF file holds it, under `tokenizer.ggml`. */
export interface VocabularyTable {
  /** "gpt2": byte-level BPE; "llama": SentencePiece with byte fallback. */
  readonly model: string
  readonly tokens: readonly string[]
  readonly token_type: readonly number[]
}

/** GGUF's token types that never show in text, and the one whose text is written as it stands. */
const UNKNOWN = 2
const CONTROL = 3
const USER_DEFINED = 4

const NOTHING = new Uint8Array(0)

/** null when the vocabulary is of a kind whose pieces are not known here. */
export function tokenBytes(table: VocabularyTable): TokenBytes | null {
  const piece = table.model === 'gpt2' ? byteLevel : table.model === 'llama' ? sentencePiece : null
  if (piece === null) return null
  return (token) => {
    const text = table.tokens[token]
    const type = table.token_type[token]
    if (text === undefined || type === CONTROL || type === UNKNOWN) return NOTHING
    return type === USER_DEFINED ? Buffer.from(text) : piece(text)
  }
}

const BYTE_TOKEN = /^<0x([0-9A-F]{2})>$/

/** SentencePiece writes a space as U+2581 and a byte that no piece covers as `<0xE2>`. */
function sentencePiece(text: string): Uint8Array {
  const byte = BYTE_TOKEN.exec(text)?.[1]
  return byte === undefined ? Buffer.from(text.replaceAll('\u2581', ' ')) : Uint8Array.of(Number.parseInt(byte, 16))
}

/**
 * GPT-2's vocabulary spells every byte as a visible character: bytes that are printable in Latin-1 as themselves, the others, in order,
 * from U+0100 on (Radford et al. 2019, `bytes_to_unicode`).
 */
const BYTE_OF = new Map<string, number>()
for (let byte = 0, next = 0x100; byte < 0x100; byte++) {
  const visible = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad)
  BYTE_OF.set(String.fromCharCode(visible ? byte : next++), byte)
}

function byteLevel(text: string): Uint8Array {
  return Uint8Array.from(Array.from(text).flatMap((character) => BYTE_OF.get(character) ?? [...Buffer.from(character)]))
}
