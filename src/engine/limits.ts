import { PalimpsestError } from '../errors.ts'

/** The prompt does not leave room for one token of an answer. */
export function contextExceeded(promptTokens: number, contextTokens: number): PalimpsestError {
  return new PalimpsestError(
    'context_length_exceeded',
    `The prompt has ${promptTokens} tokens, but the model's context holds ${contextTokens}, one of them for the answer; shorten the messages.`,
    { param: 'messages' },
  )
}
