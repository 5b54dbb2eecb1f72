import type { RequestHandler, Response } from 'express'
import { PalimpsestError } from '../../errors.ts'
import type { Gateway } from '../../gateway.ts'
import { goneSignal } from './request-context.ts'

const RETRY_AFTER_SECONDS = 1

/** Says in the header of an answer to a write, and for its body, from which version of the memory on the write is in effect. */
export function writtenAt(res: Response, version: number): { readonly palimpsest: { readonly memory_version: number } } {
  res.set('Palimpsest-Memory-Version', String(version))
  return { palimpsest: { memory_version: version } }
}

/** Holds a request that names a version of the memory back until this node has applied it. */
export function awaitVersion({ memory, limits }: Pick<Gateway, 'memory' | 'limits'>): RequestHandler {
  return async (req, res, next) => {
    const asked = req.get('palimpsest-at-least')
    if (asked === undefined) return next()
    if (!/^\d{1,15}$/.test(asked))
      throw new PalimpsestError(
        'invalid_value',
        `Expected the header Palimpsest-At-Least to be a \`memory_version\` of an answer, a whole number, but got '${asked.slice(0, 64)}'.`,
        { param: 'Palimpsest-At-Least' },
      )
    const isReached = await memory.reached(Number(asked), limits.atLeastMs)
    if (goneSignal(res).aborted) return
    if (isReached) return next()
    const { applied } = memory.feed()
    throw new PalimpsestError(
      'storage_unavailable',
      `This node has applied the memory up to version ${applied}, and version ${asked} did not come within ${limits.atLeastMs} ms. Send the request again in a moment, or to another node.`,
      { param: 'Palimpsest-At-Least', retryAfterSeconds: RETRY_AFTER_SECONDS },
    )
  }
}
