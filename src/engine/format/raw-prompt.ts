import type { TextPrompt } from '../engine.ts'
import type { Vocabulary } from './chat-format.ts'

/** `start`: what the vocabulary puts before every text, or a text that is empty. */
export function textTokens(
  { before, text }: TextPrompt,
  vocabulary: Vocabulary,
  prependBos: boolean,
): { start: number[]; before: number[]; own: readonly number[] } {
  const { bos, eos } = vocabulary.tokens
  const own = typeof text === 'string' ? vocabulary.tokenize(text, true) : text
  const first = prependBos && bos !== null && own[0] !== bos ? [bos] : []
  const start = first.length + before.length + own.length === 0 ? [bos ?? eos ?? 0] : first
  return { start, before: vocabulary.tokenize(before, false), own }
}
