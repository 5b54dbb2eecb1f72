import { createHash } from 'node:crypto'
import type { Request } from 'express'
import type { Gateway } from '../gateway.ts'
import type { ReplyOptions, Served } from '../openai/chat.ts'
import type { Caller } from '../request.ts'

/** A request with who asks it, as experiments need to know: by its HTTP request, and its `model` and `user` as the client wrote them. */
export function calledBy<Asked extends { readonly caller?: Caller }>(
  request: Asked,
  req: Request,
  completion: string,
  { model, user }: Pick<ReplyOptions, 'model' | 'user'>,
): Asked {
  const authorization = req.get('authorization') ?? req.get('x-api-key')
  const caller: Caller = {
    completion,
    armChosen: /@(base|edited|adapter:[^@]*)$/.test(model),
    header: (name) => req.get(name),
    ...(user !== undefined && { user }),
    ...(authorization !== undefined && { keyHash: createHash('sha256').update(authorization).digest('base64url') }),
  }
  return { ...request, caller }
}

/** What a request may name now. */
export function servedBy({
  engine,
  models,
  adapters,
  templates,
}: Pick<Gateway, 'engine' | 'models' | 'adapters' | 'templates'>): Served {
  return {
    model: engine.model.name,
    templates: templates.names(),
    ...(models && { others: models.names() }),
    ...(adapters && { adapters: adapters.list().map(({ id }) => id) }),
  }
}
