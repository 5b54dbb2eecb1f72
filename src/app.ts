import express, { type ErrorRequestHandler, type Express } from 'express'
import { consoleRoutes } from './console/routes.ts'
import type { Gateway } from './gateway.ts'
import type { Handoffs } from './handoff/queue.ts'
import { adapterRoutes } from './http/adapters.ts'
import { batchRoutes } from './http/edits/batches.ts'
import { editRoutes } from './http/edits/edits.ts'
import { explainRoutes } from './http/edits/explain.ts'
import { evaluationRoutes } from './http/evaluations.ts'
import { experimentRoutes } from './http/experiments/experiments.ts'
import { handoffRoutes } from './http/handoffs.ts'
import { inferenceRoutes } from './http/inference/chat.ts'
import { compareRoutes } from './http/inference/compare.ts'
import { embeddingRoutes } from './http/inference/embeddings.ts'
import { responseRoutes } from './http/inference/responses.ts'
import { textCompletionRoutes } from './http/inference/text-completions.ts'
import { tokenizingRoutes } from './http/inference/tokenizing.ts'
import { type Metrics, openMetrics } from './http/observe/metrics.ts'
import { openRecent, type RecentRequests } from './http/observe/recent.ts'
import { requestLog } from './http/observe/request-log.ts'
import { spanObserver } from './http/observe/spans.ts'
import { statusRoutes } from './http/observe/status.ts'
import { documentRoutes } from './http/openapi/document.ts'
import { ResponseStore } from './http/reply/response-store.ts'
import { countOnce, guardOf } from './http/request/auth.ts'
import { fromBodyParser } from './http/request/body.ts'
import { refuseForeignPages } from './http/request/origin.ts'
import { beginExchange, exchangeOf } from './http/request/request-context.ts'
import { awaitVersion } from './http/request/version.ts'
import { mount, type Routes, unknownRoute } from './http/routes.ts'
import { SqliteSql } from './storage/sqlite-sql.ts'
import { presentable, wireError } from './wire/openai/error.ts'

/** What outlives an interface that is made anew: counts, the latest requests, and responses kept in memory. */
export interface Lasting {
  readonly metrics: Metrics
  readonly recent: RecentRequests
  readonly responses: ResponseStore
}

export function openLasting(gateway: Gateway): Lasting {
  const { database = SqliteSql.inMemory(), limits } = gateway
  return {
    metrics: openMetrics(gateway),
    recent: openRecent(gateway),
    responses: new ResponseStore(database, limits.responseStoreBytes),
  }
}

/** The HTTP interface over a gateway. It never listens, so tests need no port of their own choosing. */
export function createApp(gateway: Gateway, handoffs?: Handoffs, lasting: Lasting = openLasting(gateway)): Express {
  const app = express()
  app.disable('x-powered-by')
  app.disable('etag')
  const { metrics, recent, responses } = lasting
  const observers = [requestLog(gateway), metrics.observe, recent.observe, spanObserver(gateway)].filter(
    (observe) => observe !== null,
  )
  app.use(beginExchange(gateway, observers), refuseForeignPages(gateway))
  const rims = [
    inferenceRoutes,
    textCompletionRoutes,
    (of: Gateway) => responseRoutes(of, responses),
    embeddingRoutes,
    tokenizingRoutes,
    statusRoutes,
    explainRoutes,
    editRoutes,
    batchRoutes,
    compareRoutes,
    experimentRoutes,
    adapterRoutes,
    evaluationRoutes,
  ]
  const groups: readonly Routes[] = [
    ...rims.map((routes) => routes(gateway)),
    handoffRoutes(gateway, handoffs),
    metrics.routes,
    recent.routes,
    consoleRoutes(),
    documentRoutes(() => groups, gateway.version),
  ]
  const guard = guardOf(gateway)
  const current = awaitVersion(gateway)
  for (const routes of groups) mount(app, routes, guard, current)
  app.use(guard('unknown'), unknownRoute)
  app.use(renderError(gateway))
  return app
}

/** The one place where an error becomes a response. Express knows an error handler by its four parameters. */
function renderError(gateway: Gateway): ErrorRequestHandler {
  const { log } = gateway
  return async (first: unknown, _req, res, _next) => {
    // A request that its key may not make any more is refused for that, whatever else is wrong with it.
    const thrown = await countOnce(res, gateway).then(
      () => first,
      (refused: unknown) => refused,
    )
    const error = fromBodyParser(thrown) ?? presentable(thrown)
    exchangeOf(res).error = error.code
    if (error.status >= 500) log.error({ request: exchangeOf(res).id, code: error.code, err: thrown }, 'request failed')
    if (res.headersSent || error.code === 'cancelled') return void res.destroy()
    if (error.retryAfterSeconds !== undefined) res.set('Retry-After', String(Math.ceil(error.retryAfterSeconds)))
    // OpenAI's clients would only ask again in vain.
    if (error.code === 'insufficient_quota') res.set('x-should-retry', 'false')
    res.status(error.status).json(wireError(error))
  }
}
