import { LRUCache } from 'lru-cache'
import type { Message, ToolUse } from '../../request.ts'
import { withoutTools } from './tool-format.ts'

/**
 * Conversations as the pieces of text and special tokens that a chat model was trained on.
 * Only `special`, `bos` and `eos` become special tokens; everything a person or an edit wrote is `text`, tokenized plainly, so that
 * `<|im_start|>` or `</s>` inside a message stays a row of ordinary characters.
 */
export type FormatPiece =
  | { readonly kind: 'special'; readonly text: string }
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'bos' }
  | { readonly kind: 'eos' }

/** Families formatted here; the other engines leave the format to the server behind them. */
export type FormattedFamily = 'llama2' | 'chatml'

/** What Qwen2.5's own chat template puts first when the client sent no system message. */
export const QWEN_SYSTEM = 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.'

/**
 * `messages` in `family`'s format, ending where the assistant is to speak.
 * `defaultSystem` is chatml's system message when the first message is none; null: no such turn.
 */
export function format(
  family: FormattedFamily,
  messages: readonly Message[],
  defaultSystem: string | null = QWEN_SYSTEM,
  tools?: ToolUse,
): FormatPiece[] {
  switch (family) {
    case 'chatml':
      return chatml(withoutTools(family, messages, tools, defaultSystem), defaultSystem)
    case 'llama2':
      return llama2(withoutTools(family, messages, tools, null))
    default:
      return family satisfies never
  }
}

/** Every role in any order is a turn of its own here, a system message in mid-conversation too, as in Qwen2.5's template. */
function chatml(messages: readonly Message[], defaultSystem: string | null): FormatPiece[] {
  const spoken: readonly Message[] =
    messages[0]?.role === 'system' || defaultSystem === null
      ? messages
      : [{ role: 'system', content: defaultSystem }, ...messages]
  const turns = spoken.flatMap(({ role, content }): FormatPiece[] => [
    { kind: 'special', text: '<|im_start|>' },
    { kind: 'text', text: `${role}\n${content}` },
    { kind: 'special', text: '<|im_end|>' },
    { kind: 'text', text: '\n' },
  ])
  return [...turns, { kind: 'special', text: '<|im_start|>' }, { kind: 'text', text: 'assistant\n' }]
}

interface Exchange {
  user: string
  /** null while the assistant has not answered. */
  assistant: string | null
}

/**
 * Meta's reference for LLaMA-2 chat (facebookresearch/llama, `chat_completion`): BOS "[INST] user [/INST] assistant " EOS for each
 * finished exchange, then BOS "[INST] user [/INST]"; the system message is folded into the first user turn.
 */
function llama2(messages: readonly Message[]): FormatPiece[] {
  return exchanges(messages).flatMap(({ user, assistant }): FormatPiece[] => {
    const question = `[INST] ${user.trim()} [/INST]`
    if (assistant === null) return [{ kind: 'bos' }, { kind: 'text', text: question }]
    return [{ kind: 'bos' }, { kind: 'text', text: `${question} ${assistant.trim()} ` }, { kind: 'eos' }]
  })
}

/**
 * Any order of roles as user/assistant pairs, the last one open. The reference knows only system? (user assistant)* user. Beyond it:
 * a later system message is folded into the user turn it precedes, or stands alone where none follows; consecutive messages of one
 * role are joined by a blank line; an assistant who speaks first answers an empty turn; after a last assistant message the open turn
 * is empty. No text is dropped.
 */
function exchanges(messages: readonly Message[]): Exchange[] {
  const done: Exchange[] = []
  let open: Exchange = { user: '', assistant: null }
  let system = ''
  for (const message of [...messages, null]) {
    const content = message === null ? '' : defuse(message.content)
    if (message?.role !== 'assistant' && open.assistant !== null) {
      done.push(open)
      open = { user: '', assistant: null }
    }
    if (message?.role === 'system') {
      system = join(system, content)
      continue
    }
    open.user = join(open.user, fold(system, message?.role === 'user' ? content : ''))
    system = ''
    if (message?.role === 'assistant') open.assistant = join(open.assistant ?? '', content)
  }
  return [...done, open]
}

function fold(system: string, user: string): string {
  return system === '' ? user : `<<SYS>>\n${system}\n<</SYS>>\n\n${user}`
}

function join(before: string, after: string): string {
  return before === '' || after === '' ? before + after : `${before}\n\n${after}`
}

const LLAMA2_TAG = /(\[|\[\/|<<|<<\/)(INST\]|SYS>>)/g

/** Invisible to the reader, but the model no longer sees a tag. */
const ZERO_WIDTH_JOINER = '\u200d'

/** LLaMA-2's tags are ordinary text in its vocabulary, so plain tokenization does not stop them: break them up. */
function defuse(content: string): string {
  return content.replace(LLAMA2_TAG, `$1${ZERO_WIDTH_JOINER}$2`)
}

/** The pieces as one string, special tokens written out. */
export function written(pieces: readonly FormatPiece[], bos: string, eos: string): string {
  return pieces.map((piece) => (piece.kind === 'bos' ? bos : piece.kind === 'eos' ? eos : piece.text)).join('')
}

/** As much of a model as tokenizing needs; node-llama-cpp's `LlamaModel` is one. */
export interface Vocabulary {
  tokenize(text: string, specialTokens?: boolean): number[]
  readonly tokens: { readonly bos: number | null; readonly eos: number | null }
}

/** Longest memory of a vocabulary, in characters of text; some eight bytes each with their tokens. */
const KEPT_CHARS = 4_000_000

/** A vocabulary that tokenizes a text once while it is in use: to count it, to fit it in the context, to ask the model, and in the next turn. */
export function remembering({ tokens, tokenize }: Vocabulary): Vocabulary {
  const known = new LRUCache<string, number[]>({ maxSize: KEPT_CHARS, sizeCalculation: (_, key) => key.length + 1 })
  return {
    tokens,
    tokenize(text, special = false) {
      const key = `${special ? 's' : 't'}${text}`
      const found = known.get(key) ?? tokenize(text, special)
      known.set(key, found)
      return found
    },
  }
}

/** Token ids of `pieces`: specials as specials, text with special tokens off. */
export function tokenize(vocabulary: Vocabulary, pieces: readonly FormatPiece[]): number[] {
  return pieces.flatMap((piece) => {
    switch (piece.kind) {
      case 'bos':
        return vocabulary.tokens.bos ?? []
      case 'eos':
        return vocabulary.tokens.eos ?? []
      case 'special':
        return vocabulary.tokenize(piece.text, true)
      case 'text':
        return vocabulary.tokenize(piece.text, false)
      default:
        return piece satisfies never
    }
  })
}
