import { createHash } from 'node:crypto'
import type { Request } from 'express'
import type { Caller } from '../request.ts'

/** Who asks, as experiments need to know it. `model`: its name as the client wrote it; `user`: the request's field of that name. */
export function callerOf(req: Request, completion: string, model: string, user: string | undefined): Caller {
  const authorization = req.get('authorization') ?? req.get('x-api-key')
  return {
    completion,
    armChosen: /@(base|edited)$/.test(model),
    header: (name) => req.get(name),
    ...(user !== undefined && { user }),
    ...(authorization !== undefined && { keyHash: createHash('sha256').update(authorization).digest('base64url') }),
  }
}
