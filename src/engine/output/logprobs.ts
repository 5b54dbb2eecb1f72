import type { Ranked, TokenLogprob } from '../engine.ts'
/** What the model thought of a token, before any sampler. Natural logarithms. */
export interface Seen {
  readonly logprob: number
  /** The likeliest first. */
  readonly top: readonly { readonly token: number; readonly logprob: number }[]
}

/** The bytes of a token, and how to name one that has none. */
export type TokenText = (token: number) => { readonly bytes: Uint8Array; readonly name: () => string }

/** `seen`: null for a token that nothing comes before. */
export function logprobOf(token: number, seen: Seen | null, textOf: TokenText): TokenLogprob {
  const top = seen?.top.map((one): Ranked => ({ ...named(one.token, textOf), logprob: one.logprob })) ?? []
  return { ...named(token, textOf), logprob: seen?.logprob ?? null, top }
}

function named(token: number, textOf: TokenText): { text: string; bytes: readonly number[] | null } {
  const { bytes, name } = textOf(token)
  return bytes.length === 0 ? { text: name(), bytes: null } : { text: Buffer.from(bytes).toString(), bytes: [...bytes] }
}
