import type { Request, Response } from 'express'
import { PalimpsestError } from '../errors.ts'
import type { Gateway } from '../gateway.ts'
import { wireModelAsked, wireModels } from '../openai/models.ts'
import { servedBy } from './caller.ts'
import type { Routes } from './routes.ts'

/** `GET /v1/models`, `GET /v1/models/NAME` and `GET /health`. */
export function statusRoutes(gateway: Gateway): Routes {
  const { embedder, startedAt } = gateway
  const list = () => ({ object: 'list', data: wireModels(servedBy(gateway), embedder, startedAt) })
  return {
    '/v1/models': { get: [(_req, res) => void res.json(list())] },
    // A name may hold slashes ("owner/model"), written plainly or as %2F.
    '/v1/models/*name': { get: [(req, res) => void res.json(model(req, gateway))] },
    '/health': { get: [(_req, res) => health(res, gateway)] },
  }
}

function model(req: Request, gateway: Gateway) {
  const { embedder, startedAt } = gateway
  const asked = [req.params.name].flat().join('/')
  return wireModelAsked(asked, servedBy(gateway), embedder, startedAt)
}

/** Counts only: names of tenants are nobody else's business. */
function health(res: Response, gateway: Gateway): void {
  const { engine, models, memory, templates, editFiles, version, startedAt, now, closing } = gateway
  const { name, family, device, threads, contextTokens } = engine.model
  const { slots, busy, queued, queueLimit } = engine.load()
  const index = memory.status()
  const sum = (key: 'indexed' | 'pending') => index.reduce((total, tenant) => total + tenant[key], 0)
  const closed = closing?.aborted ?? false
  res.status(closed ? new PalimpsestError('shutting_down', '').status : 200).json({
    status: closed ? 'shutting_down' : 'ok',
    version,
    uptime_seconds: Math.floor((now() - startedAt) / 1000),
    model: { name, family, device, threads, context_tokens: contextTokens },
    load: { slots, busy, queued, queue_limit: queueLimit },
    ...(models && { models: models.residency(), model_memory_bytes: models.memoryBytes }),
    backends: engine.backends?.().map(({ lastFault, ...backend }) => ({ ...backend, last_fault: lastFault })),
    memory: { version: memory.version, tenants: index.length, indexed: sum('indexed'), pending: sum('pending') },
    templates: { names: templates.names(), problems: templates.problems() },
    edit_files: { problems: editFiles?.problems() ?? [] },
  })
}
