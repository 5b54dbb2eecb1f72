import { z } from 'zod'
import type { Gateway } from '../../gateway.ts'
import { recentReply } from '../../wire/palimpsest/replies.ts'
import { query, tenantOfHeader } from '../request/query.ts'
import type { Completed, Observer } from '../request/request-context.ts'
import { type Routes, route } from '../routes.ts'

/** A request that asked a model and is over. Without its words, unless prompts may be logged. */
interface Recent {
  readonly seq: number
  readonly tenant: string
  readonly wire: object
}

export interface RecentRequests {
  readonly observe: Observer
  readonly routes: Routes
}

const listQuery = z.strictObject({ after: z.coerce.number().int().min(0).optional().describe('Only those with a larger `seq`.') })

/**
 * `GET /v1/requests?after=SEQ`: the tenant's latest requests that asked a model, oldest first, for whoever watches. Kept in memory,
 * `recentRequests` of all tenants together.
 */
export function openRecent(gateway: Gateway): RecentRequests {
  const { limits, now } = gateway
  const keepsPrompts = () => gateway.logPrompts ?? false
  const kept: Recent[] = []
  let seq = 0
  const observe = (completed: Completed) => {
    const { call } = completed
    if (call?.request === undefined) return
    seq++
    kept.push({ seq, tenant: call.request.tenant, wire: wire(seq, completed, now() - completed.ms, keepsPrompts()) })
    if (kept.length > limits.recentRequests) kept.shift()
  }
  return {
    observe,
    routes: {
      '/v1/requests': {
        get: route(
          {
            summary: 'The latest requests that asked a model, without their words, the oldest first.',
            query: listQuery,
            reply: recentReply,
          },
          (req, res) => {
            const { after = 0 } = query(req, listQuery)
            const tenant = tenantOfHeader(req)
            const data = kept.filter((one) => one.seq > after && one.tenant === tenant).map((one) => one.wire)
            res.json({ object: 'list', data, latest: seq, prompts_kept: keepsPrompts() })
          },
        ),
      },
    },
  }
}

function wire(seq: number, { id, status, ms, error, call, traces, route }: Completed, at: number, logPrompts: boolean) {
  const [trace] = traces
  const sum = (count: (one: (typeof traces)[number]) => number) => traces.reduce((total, one) => total + count(one), 0)
  return {
    seq,
    id,
    at: new Date(at).toISOString(),
    route,
    status,
    ms,
    error: error ?? null,
    model: call?.model ?? null,
    stream: call?.stream ?? false,
    arm: trace?.arm ?? null,
    experiment: trace?.experiment ?? null,
    edits: trace?.applied.map(({ id, subject, score }) => ({ id, subject, score })) ?? [],
    template: trace?.template?.name ?? null,
    prompt_tokens: trace?.promptTokens ?? 0,
    cached_tokens: trace?.tokensCached ?? 0,
    tokens_added: trace?.tokensAdded ?? 0,
    completion_tokens: sum((one) => one.completionTokens),
    first_piece_ms: trace?.firstPieceMs ?? null,
    stages_ms: trace?.stagesMs ?? {},
    ...(logPrompts && { question: question(call?.request) }),
  }
}

/** Characters of a question that are kept to show. */
const QUESTION_CHARS = 500

function question(request: NonNullable<Completed['call']>['request']): string | null {
  if (request === undefined || !('messages' in request)) return null
  return request.messages.findLast(({ role }) => role === 'user')?.content.slice(0, QUESTION_CHARS) ?? null
}
