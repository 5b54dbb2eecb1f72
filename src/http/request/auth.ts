import type { Request, Response } from 'express'
import { nothingTaken, type Rate, type Rates, type Taken } from '../../access/budgets.ts'
import type { Key, Scope } from '../../access/key.ts'
import type { Ask } from '../../access/usage.ts'
import { PalimpsestError } from '../../errors.ts'
import type { Gateway } from '../../gateway.ts'
import type { Guard } from '../routes.ts'
import { exchangeOf, tenantHeader } from './request-context.ts'

/** Who may use a route: everybody, whoever has a key, or keys with a scope. */
type Need = 'nothing' | 'key' | Scope

/** By the patterns of routes, which are ours, not by the paths of requests, which anybody can spell. The first that fits. */
const NEEDS: readonly (readonly [RegExp, Need])[] = [
  [/^\/(|console|docs|openapi\.json|console\/assets\/:hash\/\*path|favicon\.ico|livez|readyz)$/, 'nothing'],
  [/^(\/health|\/v1\/models|\/v1\/models\/\*name|unknown)$/, 'key'],
  [/^\/v1\/(chat\/completions|completions|responses(\/:id)?|embeddings|feedback)$/, 'inference'],
  [/^\/(tokenize|detokenize|tokenizer_info)$/, 'inference'],
  [/^\/v1\/(edits|batches|compare|experiments|rollouts|adapters)(\/|$)/, 'edits'],
]

/** The scope that a route needs. A route that is not listed here needs `admin`. */
export function needOf(pattern: string): Need {
  return NEEDS.find(([patterns]) => patterns.test(pattern))?.[1] ?? 'admin'
}

/** Routes that set tokens aside, and count their request in the same statement. */
const SETS_ASIDE = /^\/v1\/(chat\/completions|completions|responses|embeddings|compare|edits\/explain)$/

/** Lets in who may use a route, and counts the request. Whoever is let in with a key is noted in the exchange. */
export function guardOf(gateway: Gateway): Guard {
  const { access } = gateway
  const share = shareOf(gateway)
  return (pattern) => {
    const need = needOf(pattern)
    return async (req, res, next) => {
      if (need === 'nothing' || access === undefined) return next()
      await access.current()
      if (!access.required()) return next()
      const key = await keyIn(req, res, gateway)
      const exchange = exchangeOf(res)
      exchange.key = key
      if (need !== 'key' && !key.scopes.includes(need)) throw lacking(key, need, res)
      tenantHeader(req)
      exchange.uncounted = true
      if (req.method === 'POST' && SETS_ASIDE.test(pattern)) share(key, res)
      if (key.tokensPerDay === undefined || req.method !== 'POST' || !SETS_ASIDE.test(pattern)) await countOnce(res, gateway)
      else res.once('close', () => void countOnce(res, gateway).catch(() => {}))
      next()
    }
  }
}

/** Keeps one key from taking every slot and every place in the queue. Throws `queue_full`. */
function shareOf({ limits, engine }: Pick<Gateway, 'limits' | 'engine'>): (key: Key, res: Response) => void {
  const underWay = new Map<string, number>()
  return ({ id }, res) => {
    const own = underWay.get(id) ?? 0
    const { slots, queueLimit } = engine.load()
    if (own >= Math.max(1, Math.floor(((slots + queueLimit) * limits.keyPlacesPercent) / 100)))
      throw new PalimpsestError(
        'queue_full',
        `${own} requests of this key are under way, which is its share of the places; send this one again when one of them is over.`,
        { retryAfterSeconds: 1 },
      )
    underWay.set(id, own + 1)
    res.once('close', () => {
      const left = (underWay.get(id) ?? 1) - 1
      if (left > 0) underWay.set(id, left)
      else underWay.delete(id)
    })
  }
}

/**
 * Counts the request where nothing has: one that asks for tokens is counted with them, and one that never came so far, since its body is wrong,
 * counts too. Throws `rate_limit_exceeded` and storage errors.
 */
export async function countOnce(res: Response, gateway: Gateway): Promise<void> {
  if (exchangeOf(res).uncounted === true) await take(res, gateway)
}

/** Counts the request, unless that is done, and sets tokens aside. Tells the client what is left, and throws where that is not enough. */
export async function take(res: Response, { access }: Gateway, tokens?: Ask['tokens']): Promise<Taken> {
  const exchange = exchangeOf(res)
  const { key, uncounted = false } = exchange
  const ask = { request: uncounted, ...(tokens && { tokens }) }
  if (key === undefined || access === undefined) return nothingTaken(ask)
  exchange.uncounted = false
  const taken = await access.budgets.take(key, ask)
  if (!res.headersSent) tell(res, taken.rates)
  if (taken.refused !== null) throw taken.refused
  return taken
}

/** Throws `invalid_api_key`, in words that do not repeat what was sent. */
async function keyIn(req: Request, res: Response, { access, now }: Gateway): Promise<Key> {
  const sent = req.headersDistinct.authorization ?? []
  if (sent.length === 0) {
    res.set('WWW-Authenticate', 'Bearer realm="palimpsest"')
    throw refused('No API key was sent. Send one as `Authorization: Bearer pk_…`; `palimpsest keys create` makes one.')
  }
  res.set('WWW-Authenticate', 'Bearer realm="palimpsest", error="invalid_token"')
  if (sent.length > 1) throw refused('The header Authorization was sent more than once: send it once.')
  const [, token = ''] = /^Bearer +(\S+)$/i.exec(sent[0] ?? '') ?? []
  const key = await access?.identify(token)
  if (key == null)
    throw refused(
      'The API key is not one of this gateway. See `palimpsest keys list`, or make one with `palimpsest keys create`.',
    )
  if (key.revokedAt !== undefined) throw refused('The API key was revoked.')
  if (key.expiresAt !== undefined && key.expiresAt <= now()) throw refused('The API key has expired.')
  res.removeHeader('WWW-Authenticate')
  return key
}

function refused(message: string): PalimpsestError {
  return new PalimpsestError('invalid_api_key', message)
}

function lacking({ scopes }: Key, need: Scope, res: Response): PalimpsestError {
  res.set('WWW-Authenticate', `Bearer realm="palimpsest", error="insufficient_scope", scope="${need}"`)
  return new PalimpsestError(
    'insufficient_permissions',
    `This needs a key with the scope '${need}', and the one sent has: ${scopes.join(', ')}.`,
  )
}

/** OpenAI's headers, for keys with limits. */
function tell(res: Response, rates: Rates): void {
  for (const [what, rate] of Object.entries(rates) as [string, Rate][])
    res.set({
      [`x-ratelimit-limit-${what}`]: String(rate.limit),
      [`x-ratelimit-remaining-${what}`]: String(rate.remaining),
      [`x-ratelimit-reset-${what}`]: span(rate.resetMs),
    })
}

/** As OpenAI writes spans of time: 1h5m12s, or 350ms. */
function span(ms: number): string {
  if (ms < 1_000) return `${Math.ceil(ms)}ms`
  const seconds = Math.ceil(ms / 1_000)
  const [hours, minutes] = [Math.floor(seconds / 3_600), Math.floor(seconds / 60) % 60]
  return `${hours > 0 ? `${hours}h` : ''}${seconds >= 60 ? `${minutes}m` : ''}${seconds % 60}s`
}
