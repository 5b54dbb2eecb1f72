import express, { type ErrorRequestHandler, type Express } from 'express'
import type { Gateway } from './gateway.ts'
import { batchRoutes } from './http/batches.ts'
import { fromBodyParser } from './http/body.ts'
import { editRoutes } from './http/edits.ts'
import { beginExchange, exchangeOf } from './http/exchange.ts'
import { explainRoutes } from './http/explain.ts'
import { inferenceRoutes } from './http/inference.ts'
import { refuseForeignPages } from './http/origin.ts'
import { mount, unknownRoute } from './http/routes.ts'
import { statusRoutes } from './http/status.ts'
import { textCompletionRoutes } from './http/text-completions.ts'
import { presentable, wireError } from './openai/error.ts'

/** The HTTP interface over a gateway. It never listens, so tests need no port of their own choosing. */
export function createApp(gateway: Gateway): Express {
  const app = express()
  app.disable('x-powered-by')
  app.disable('etag')
  app.use(beginExchange(gateway), refuseForeignPages(gateway))
  for (const routes of [inferenceRoutes, textCompletionRoutes, statusRoutes, explainRoutes, editRoutes, batchRoutes])
    mount(app, routes(gateway))
  app.use(unknownRoute)
  app.use(renderError(gateway))
  return app
}

/** The one place where an error becomes a response. Express knows an error handler by its four parameters. */
function renderError({ log }: Gateway): ErrorRequestHandler {
  return (thrown: unknown, _req, res, _next) => {
    const error = fromBodyParser(thrown) ?? presentable(thrown)
    if (error.status >= 500) log.error({ request: exchangeOf(res).id, code: error.code, err: thrown }, 'request failed')
    if (res.headersSent || error.code === 'cancelled') return void res.destroy()
    if (error.retryAfterSeconds !== undefined) res.set('Retry-After', String(Math.ceil(error.retryAfterSeconds)))
    res.status(error.status).json(wireError(error))
  }
}
