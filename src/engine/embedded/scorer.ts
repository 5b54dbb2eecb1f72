import type { ControlledEvaluateInputItem, EvaluationPriority, LlamaContextSequence, LlamaModel, Token } from 'node-llama-cpp'
import type { Scorer, TokenScore } from '../engine.ts'
import { contextExceeded } from '../limits.ts'
import type { Seen } from '../output/logprobs.ts'
import { append, commonPrefix, empty, pieces, reusable } from '../scheduling/prefix-cache.ts'
import { type HeldLora, setLora } from './loras.ts'
import { seenAmong } from './native.ts'
import { openSequence, rewind, type Slot } from './slot.ts'

/** A continuation is scored in one batch, so it may be as long as this. */
const BATCH_TOKENS = 512

/** A sequence of its own beside the engine's slots, on the same weights, read through `lora` where there is one. */
export async function openScorer(model: LlamaModel, contextTokens: number, lora: HeldLora | null): Promise<Scorer> {
  const context = await model.createContext({ contextSize: contextTokens, sequences: 1, batchSize: BATCH_TOKENS })
  if (lora !== null) setLora(context, lora)
  const slot: Slot = { ...empty(), sequence: openSequence(context) }
  const { bos, shouldPrependBosToken } = model.tokens
  const first = shouldPrependBosToken && bos !== null ? [bos] : []
  const tokenize = (text: string): number[] => [...first, ...model.tokenize(text, false)]
  return {
    async score(prompt, continuations) {
      const head = tokenize(prompt)
      const out: TokenScore[][] = []
      let reused: number | null = null
      for (const continuation of continuations) {
        const whole = tokenize(prompt + continuation)
        if (whole.length > contextTokens) throw contextExceeded(whole.length, contextTokens)
        // The first token of all has nothing before it to be predicted from.
        const from = Math.max(1, commonPrefix(head, whole))
        // Within a call the prompt's batches are those just evaluated; between calls only whole aligned pieces are sure to have that shape.
        reused = await evaluate(slot, whole.slice(0, from - 1), reused)
        out.push(await scoreTokens(slot, whole, from))
      }
      return out
    },
    close: async () => {
      await context.dispose()
      lora?.release()
    },
  }
}

/** Brings the slot to `tokens` exactly; returns how many it then holds. `known`: this many were evaluated for this very prompt. */
async function evaluate(slot: Slot, tokens: readonly number[], known: number | null): Promise<number> {
  const keep = known === tokens.length ? known : reusable(slot, [...tokens, -1], true)
  const start = await rewindTo(slot, keep)
  for (const piece of pieces(tokens, start)) {
    await slot.sequence.evaluateWithoutGeneratingNewTokens(piece as Token[])
    append(slot, piece)
  }
  return tokens.length
}

/** The sequence holds what was scored last, too, which the record does not count. */
async function rewindTo(slot: Slot, length: number): Promise<number> {
  const { sequence } = slot
  const beyond = sequence.nextTokenIndex
  if (beyond > slot.tokens.length) await sequence.eraseContextTokenRanges([{ start: slot.tokens.length, end: beyond }])
  return rewind(slot, length)
}

/** `whole[from..]`, in one batch that begins with the token before it. */
async function scoreTokens({ sequence }: Slot, whole: readonly number[], from: number): Promise<TokenScore[]> {
  const wanted = whole.slice(from)
  const input = wanted.map((token, i): ControlledEvaluateInputItem => {
    // Temperature 0 leaves the logits as they are and selects the argmax. (`includeMax` does not return the maximum in 3.22.1, measured.)
    const logits = { filter: { tokens: [token as Token], includeSelected: true } }
    return [
      whole[from - 1 + i] as Token,
      { generateNext: { token: true, logits, totalLogitWeight: true, options: { temperature: 0 } } },
    ]
  })
  const evaluated = await sequence.controlledEvaluate(input)
  return wanted.map((token, i) => {
    const { token: best, logits, totalLogitWeight } = evaluated[i]?.next ?? {}
    const [own, most] = [logits?.get(token as Token), logits?.get(best as Token)]
    if (best == null || own === undefined || most === undefined || totalLogitWeight === undefined)
      throw new Error(`llama.cpp returned no logits for token ${i + 1} of ${wanted.length}`)
    return { logProbability: own - most - Math.log(totalLogitWeight), best, hit: best === token }
  })
}

/**
 * Evaluates `piece` and says what the model thought of `next`, the token after each, from index `from` on (what comes earlier is undefined),
 * with the `top` likeliest in its place.
 */
export async function seenAfter(
  sequence: LlamaContextSequence,
  piece: readonly number[],
  next: readonly number[],
  from: number,
  top: number,
  options: { readonly evaluationPriority: EvaluationPriority },
): Promise<(Seen | undefined)[]> {
  const input = piece.map((token, i): ControlledEvaluateInputItem => {
    const wanted = next[i]
    if (i < from || wanted === undefined) return token as Token
    // The likeliest one comes with `includeSelected`; more of them cost sorting the vocabulary.
    const filter = { tokens: [wanted as Token], includeSelected: true, includeTop: top > 1 ? top : 0 }
    return [
      token as Token,
      { generateNext: { token: true, logits: { filter }, totalLogitWeight: true, options: { temperature: 0 } } },
    ]
  })
  const evaluated = await sequence.controlledEvaluate(input, options)
  return next.map((wanted, i) => {
    const { token: best, logits, totalLogitWeight } = evaluated[i]?.next ?? {}
    if (best == null || logits === undefined || totalLogitWeight === undefined) return undefined
    return seenAmong(logits, wanted, best, totalLogitWeight, top)
  })
}
