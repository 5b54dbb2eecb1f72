import type { Request, Response } from 'express'
import type { z } from 'zod'
import { ERRORS } from '../../errors.ts'
import type { Gateway } from '../../gateway.ts'
import { wireModelAsked, wireModels } from '../../wire/openai/models.ts'
import { modelReply } from '../../wire/openai/replies.ts'
import { aliveReply, healthReply, listOf } from '../../wire/palimpsest/replies.ts'
import { tenantOfHeader } from '../request/query.ts'
import { keyOf } from '../request/request-context.ts'
import { servedBy } from '../request/request-identity.ts'
import { type Routes, route } from '../routes.ts'

/**
 * `GET /v1/models`, `GET /v1/models/NAME`, `GET /health`, and what an orchestrator asks: `/livez` (restart it?) and `/readyz` (send it requests?).
 */
export function statusRoutes(gateway: Gateway): Routes {
  const { embedder, startedAt } = gateway
  const list = (req: Request) => ({
    object: 'list',
    // Codex asks so, and reads a catalogue of its own here: an empty one has it go by what it knows.
    ...(req.query.client_version !== undefined && { models: [] }),
    data: wireModels(servedBy(gateway), tenantOfHeader(req), embedder, startedAt),
  })
  return {
    '/v1/models': {
      get: route({ summary: 'List models.', reply: listOf(modelReply) }, (req, res) => void res.json(list(req))),
    },
    // A name may hold slashes ("owner/model"), written plainly or as %2F.
    '/v1/models/*name': {
      get: route(
        { summary: 'Read a model.', reply: modelReply, errors: ['model_not_found'] },
        (req, res) => void res.json(model(req, gateway)),
      ),
    },
    '/health': {
      get: route(
        {
          summary: 'State of models, memory, templates and edit files; 503 while the gateway stops or is behind the log.',
          description: 'What is wrong with files and servers is shown to keys with the scope `admin`.',
          reply: healthReply,
          errors: ['shutting_down'],
        },
        (req, res) => health(req, res, gateway),
      ),
    },
    '/livez': {
      get: route({ summary: 'The process answers, also while it starts or stops.', reply: aliveReply }, (_req, res) => {
        res.json({ status: 'ok' })
      }),
    },
    '/readyz': {
      get: route(
        {
          summary: 'Requests may be sent here; 503 while the gateway starts, stops or is behind the log.',
          reply: aliveReply,
          errors: ['shutting_down'],
        },
        (_req, res) => ready(res, gateway),
      ),
    },
  }
}

function model(req: Request, gateway: Gateway) {
  const { embedder, startedAt } = gateway
  const asked = [req.params.name].flat().join('/')
  return wireModelAsked(asked, servedBy(gateway), tenantOfHeader(req), embedder, startedAt)
}

/** Counts only: names of tenants are nobody else's business, and what is wrong with files and servers is the admin's. */
function health(req: Request, res: Response, gateway: Gateway): void {
  const all = keyOf(req)?.scopes.includes('admin') ?? true
  const { engine, models, memory, templates, editFiles, version, startedAt, now } = gateway
  const { name, family, device, threads, contextTokens } = engine.model
  const { slots, busy, queued, queueLimit } = engine.load()
  const index = memory.status()
  const log = memory.feed()
  const sum = (key: 'indexed' | 'pending') => index.reduce((total, tenant) => total + tenant[key], 0)
  ready(res, gateway, {
    version,
    uptime_seconds: Math.floor((now() - startedAt) / 1000),
    model: { name, family, device, threads, context_tokens: contextTokens },
    load: { slots, busy, queued, queue_limit: queueLimit },
    ...(models && { models: models.residency(), model_memory_bytes: models.memoryBytes }),
    ...(all && { backends: engine.backends?.().map(({ lastFault, ...backend }) => ({ ...backend, last_fault: lastFault })) }),
    memory: {
      version: log.applied,
      tenants: index.length,
      indexed: sum('indexed'),
      pending: sum('pending'),
      log: {
        state: log.state,
        seen: log.seen,
        last_contact: new Date(log.lastContact).toISOString(),
        ...(all && { fault: log.fault }),
      },
    },
    templates: { names: templates.names(), ...(all && { problems: templates.problems() }) },
    ...(all && { edit_files: { problems: editFiles?.problems() ?? [] } }),
  })
}

function ready(res: Response, gateway: Gateway, more: object = {}): void {
  const status = stateOf(gateway)
  res.status(status === 'ok' ? 200 : ERRORS.shutting_down.status).json({ status, ...more })
}

/** A gateway that can't reach its database answers from what it holds, so it is no less ready for that. */
function stateOf({ draining, closing, memory }: Gateway): z.output<typeof aliveReply>['status'] {
  if (draining?.aborted || closing?.aborted) return 'shutting_down'
  const { applied, seen } = memory.feed()
  return applied < seen ? 'catching_up' : 'ok'
}
