import type { Response } from 'express'
import { PalimpsestError } from '../../errors.ts'
import type { Gateway } from '../../gateway.ts'
import type { Sampling } from '../../request.ts'
import type { Trace } from '../../trace.ts'
import { take } from './auth.ts'
import { type Exchange, exchangeOf, guarded } from './request-context.ts'

/** What is about to be asked of the model. */
export interface Asked {
  readonly sampling: Sampling
  /** Of all prompts, without edits; only called where they count. */
  readonly promptTokens: () => number
  /** 1 where left out. */
  readonly prompts?: number
  /** To each prompt. */
  readonly answers: number
  /** What it has used, once the response is over; where left out, as the traces say. */
  readonly used?: () => number
}

/**
 * Sets aside, from the key's budget, what the answers may take, until the response is over. Returns the sampling, its length bounded by what
 * is left of the budget where the request has no bound of its own. Throws `insufficient_quota` or `rate_limit_exceeded`.
 */
export async function withinBudget(
  res: Response,
  gateway: Gateway,
  { sampling, promptTokens, prompts = 1, answers, used }: Asked,
): Promise<Sampling> {
  const exchange = exchangeOf(res)
  const { traces, key } = exchange
  if (key?.tokensPerDay === undefined) return sampling
  const before = promptTokens() + prompts * gateway.limits.editsReserveTokens
  const { contextTokens } = gateway.engine.model
  const most = before + prompts * answers * Math.min(sampling.maxTokens ?? contextTokens, contextTokens)
  const least = sampling.maxTokens === undefined ? before + prompts * answers : most
  const granted = await setAside(res, gateway, least, most, used ?? (() => usedBy(traces, answers, isFailed(exchange))))
  return granted === most ? sampling : { ...sampling, maxTokens: Math.floor((granted - before) / (prompts * answers)) }
}

/** The tokens that were set aside: `most`, or fewer, but `least`. What was used is asked for when the response is over. */
export async function setAside(
  res: Response,
  gateway: Gateway,
  least: number,
  most: number,
  used: () => number,
): Promise<number> {
  if (exchangeOf(res).key === undefined) return most
  const { tokens, settle } = await take(res, gateway, { least, most })
  if (res.closed) {
    await settle(0)
    throw new PalimpsestError('cancelled', 'The client closed the connection.')
  }
  const end = () => void settle(used())
  res.once('close', guarded(gateway, 'settling a budget', end))
  return tokens
}

/** Whether we failed the request, or refused it; a client that leaves is no failure of ours. */
export function isFailed({ error }: Pick<Exchange, 'error'>): boolean {
  return error !== undefined && error !== 'cancelled'
}

/**
 * As `usage` counts: each prompt once, however many answers it got. Of an answer that was broken off: its pieces, as far as it came. A failure
 * before the first piece costs nothing.
 */
export function usedBy(traces: readonly Trace[], answers: number, failed = false): number {
  return traces.reduce((sum, trace, at) => {
    const { promptTokens, completionTokens, pieces, decomposition } = trace
    const gotNothing = failed && at === traces.length - 1 && pieces === 0
    const prompt = at % answers === 0 && !gotNothing ? promptTokens : 0
    return sum + prompt + Math.max(completionTokens, pieces) + decomposition.promptTokens + decomposition.completionTokens
  }, 0)
}
