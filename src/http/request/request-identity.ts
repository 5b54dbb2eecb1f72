import { createHash } from 'node:crypto'
import type { Request } from 'express'
import type { Gateway } from '../../gateway.ts'
import type { Caller } from '../../request.ts'
import type { ReplyOptions, Served } from '../../wire/openai/chat.ts'
import { keyOf } from './request-context.ts'

/** A request with who asks it, as experiments need to know: by its HTTP request, and its `model` and `user` as the client wrote them. */
export function calledBy<Asked extends { readonly caller?: Caller }>(
  request: Asked,
  req: Request,
  completion: string,
  { model, user }: Pick<ReplyOptions, 'model' | 'user'>,
): Asked {
  // Where no key is asked for, it is what the client sends as one, for somebody else to check.
  const unit = keyOf(req)?.id ?? req.get('authorization')
  const caller: Caller = {
    completion,
    armChosen: /@(base|edited|adapter:[^@]*)$/.test(model),
    header: (name) => req.get(name),
    ...(user !== undefined && { user }),
    ...(unit !== undefined && { keyHash: () => createHash('sha256').update(unit).digest('base64url') }),
  }
  return { ...request, caller }
}

/** What a request may name now; adapters by its tenant. */
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
    ...(adapters && { adapters: (tenant: string) => adapters.list(tenant).map(({ id }) => id) }),
  }
}
