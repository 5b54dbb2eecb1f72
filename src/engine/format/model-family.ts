import { PalimpsestError } from '../../errors.ts'
import { type FormattedFamily, QWEN_SYSTEM } from './chat-format.ts'

/** What a chat model's GGUF header says about how to talk to it. */
export interface ChatHeader {
  readonly architecture?: string
  /** `tokenizer.chat_template`, a Jinja text. */
  readonly template?: string
  /** `tokenizer.ggml.model`. */
  readonly vocabulary?: string
}

/**
 * The family by the header: by the tags in the chat template, else a SentencePiece model of LLaMA's architecture is LLaMA-2 (its early
 * GGUF files carry no template). null where that leaves doubt.
 */
export function guessFamily({ architecture, template, vocabulary }: ChatHeader): FormattedFamily | null {
  if (template?.includes('<|im_start|>')) return 'chatml'
  // Mistral's template has [INST] too, but with other spaces and as special tokens.
  if (template?.includes('<<SYS>>')) return 'llama2'
  return template === undefined && architecture === 'llama' && vocabulary === 'llama' ? 'llama2' : null
}

/** The system message that chatml's template adds on its own: Qwen's where the template has it or there is none. */
export function defaultSystem(template: string | undefined): string | null {
  return template === undefined || template.includes(QWEN_SYSTEM) ? QWEN_SYSTEM : null
}

export interface MemoryNeed {
  readonly modelBytes: number
  /** Cache and work space of that many slots. */
  readonly contextBytes: (slots: number) => number
  readonly freeBytes: number
}

/** As many of the `wanted` slots as fit in memory; throws when not even one does. */
export function fitSlots(need: MemoryNeed, wanted: number, modelPath: string): number {
  for (let slots = wanted; slots > 0; slots--) {
    if (need.modelBytes + need.contextBytes(slots) <= need.freeBytes) return slots
  }
  throw tooLittleMemory(modelPath, need.modelBytes + need.contextBytes(1), need.freeBytes)
}

/** What loading will take, for the person who waits for it. */
export function memoryText(
  { modelBytes, contextBytes, freeBytes }: MemoryNeed,
  slots: number,
  tokens: number,
  name: string,
): string {
  const [weights, cache] = [modelBytes, contextBytes(slots)].map(gigabytes)
  const conversations = `${slots} ${slots === 1 ? 'slot' : 'slots'} of ${tokens.toLocaleString('en')} tokens`
  return `Memory: ${name} takes about ${gigabytes(modelBytes + contextBytes(slots))}, ${weights} for weights and ${cache} for ${conversations}; ${gigabytes(freeBytes)} are free.`
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`
}

export function tooLittleMemory(
  modelPath: string,
  needBytes: number | null,
  freeBytes: number | null,
  cause?: unknown,
): PalimpsestError {
  const need = needBytes === null ? 'more memory than is free' : `about ${mebibytes(needBytes)} of memory`
  const free = freeBytes === null ? '' : `, but ${mebibytes(freeBytes)} are free`
  return new PalimpsestError(
    'engine_failed',
    `${modelPath} needs ${need} for one slot${free}; take a smaller model or a shorter context, or free some memory.`,
    { cause },
  )
}

function mebibytes(bytes: number): string {
  return `${Math.ceil(bytes / 2 ** 20)} MiB`
}

/** The file is absent, not a GGUF file, cut short or damaged. */
export function brokenModelFile(path: string, detail: string, cause?: unknown): PalimpsestError {
  return new PalimpsestError(
    'model_file',
    `Expected a complete GGUF model in ${path}, but ${detail}; fetch it again, or name another file.`,
    { cause },
  )
}
