import express, { type ErrorRequestHandler, type Express } from 'express'
import { consoleRoutes } from './console/routes.ts'
import type { Gateway } from './gateway.ts'
import type { Handoffs } from './handoff/handoffs.ts'
import { adapterRoutes } from './http/adapters.ts'
import { guardOf } from './http/auth.ts'
import { batchRoutes } from './http/batches.ts'
import { fromBodyParser } from './http/body.ts'
import { compareRoutes } from './http/compare.ts'
import { editRoutes } from './http/edits.ts'
import { embeddingRoutes } from './http/embeddings.ts'
import { evaluationRoutes } from './http/evaluations.ts'
import { beginExchange, exchangeOf } from './http/exchange.ts'
import { experimentRoutes } from './http/experiments.ts'
import { explainRoutes } from './http/explain.ts'
import { handoffRoutes } from './http/handoffs.ts'
import { inferenceRoutes } from './http/inference.ts'
import { openMetrics } from './http/metrics.ts'
import { refuseForeignPages } from './http/origin.ts'
import { openRecent } from './http/recent.ts'
import { requestLog } from './http/request-log.ts'
import { responseRoutes } from './http/responses.ts'
import { mount, unknownRoute } from './http/routes.ts'
import { spanObserver } from './http/spans.ts'
import { statusRoutes } from './http/status.ts'
import { textCompletionRoutes } from './http/text-completions.ts'
import { tokenizingRoutes } from './http/tokenizing.ts'
import { presentable, wireError } from './openai/error.ts'

/** The HTTP interface over a gateway. It never listens, so tests need no port of their own choosing. */
export function createApp(gateway: Gateway, handoffs?: Handoffs): Express {
  const app = express()
  app.disable('x-powered-by')
  app.disable('etag')
  const metrics = openMetrics(gateway)
  const recent = openRecent(gateway)
  const observers = [requestLog(gateway), metrics.observe, recent.observe, spanObserver(gateway)].filter(
    (observe) => observe !== null,
  )
  app.use(beginExchange(gateway, observers), refuseForeignPages(gateway))
  const rims = [
    inferenceRoutes,
    textCompletionRoutes,
    responseRoutes,
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
  const guard = guardOf(gateway)
  for (const routes of rims) mount(app, routes(gateway), guard)
  for (const routes of [metrics.routes, recent.routes, consoleRoutes()]) mount(app, routes, guard)
  mount(app, handoffRoutes(gateway, handoffs), guard)
  app.use(guard('unknown'), unknownRoute)
  app.use(renderError(gateway))
  return app
}

/** The one place where an error becomes a response. Express knows an error handler by its four parameters. */
function renderError({ log }: Gateway): ErrorRequestHandler {
  return (thrown: unknown, _req, res, _next) => {
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
