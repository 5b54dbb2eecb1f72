import type { Express, RequestHandler } from 'express'
import type { z } from 'zod'
import { type ErrorCode, PalimpsestError } from '../errors.ts'

export type Method = 'get' | 'post' | 'patch' | 'delete'

/** What the reference (`GET /openapi.json`) says of one method of a path. */
export interface About {
  readonly summary: string
  readonly description?: string
  /** Parameters of the query string. */
  readonly query?: z.ZodObject
  /** A JSON body, which may be left out where its schema takes `undefined`; or bodies by their media types. */
  readonly body?: z.ZodType | Readonly<Record<string, z.ZodType>>
  /** Of a success; 200 where left out. */
  readonly status?: number | readonly number[]
  /** A JSON reply; or the media type of another. */
  readonly reply: z.ZodType | string
  /** Sent instead of `reply` when the client asks for it: an event stream, or progress lines. */
  readonly stream?: { readonly type: string; readonly when: string; readonly each: z.ZodType }
  /** The model is asked: the reply says which edits made it. */
  readonly answers?: true
  /** Edits are written: the reply says from which version of the memory on. */
  readonly writes?: true
  /** Headers that only this route reads. */
  readonly headers?: Readonly<Record<string, string>>
  /** Codes of errors beyond those that its path, body and key can have. */
  readonly errors?: readonly ErrorCode[]
}

export interface Route {
  readonly about: About
  readonly handlers: readonly RequestHandler[]
}

/** What one file of this folder serves: for each path, its methods. */
export type Routes = Readonly<Record<string, Readonly<Partial<Record<Method, Route>>>>>

export function route(about: About, ...handlers: readonly RequestHandler[]): Route {
  return { about, handlers }
}

/** What stands before every handler of a path, given its pattern. */
export type Guard = (pattern: string) => RequestHandler

/**
 * Adds the routes behind their guard and `then`, which the router's own match of the path leads to, however it is spelt.
 * Other methods on a known path are answered 405 with `Allow`, and OPTIONS with `Allow` alone (a browser's preflight is answered before).
 */
export function mount(app: Express, routes: Routes, guard: Guard, then: RequestHandler): void {
  for (const [path, methods] of Object.entries(routes)) {
    const route = app.route(path).all(guard(path), then)
    for (const [method, { handlers }] of Object.entries(methods)) route[method as Method](...handlers)
    route.all(otherMethods(Object.keys(methods)))
  }
}

function otherMethods(methods: readonly string[]): RequestHandler {
  const allow = [...methods, ...(methods.includes('get') ? ['head'] : []), 'options']
    .map((method) => method.toUpperCase())
    .join(', ')
  return (req, res) => {
    res.set('Allow', allow)
    if (req.method === 'OPTIONS') return void res.status(204).end()
    throw new PalimpsestError(
      'method_not_allowed',
      `${req.method} is not possible on ${req.path.slice(0, 200)}. Possible: ${allow}.`,
    )
  }
}

/** 404 for every other path. */
export const unknownRoute: RequestHandler = (req) => {
  const hint = req.path.startsWith('/v1') ? 'GET /openapi.json lists what is.' : 'The base URL for OpenAI clients ends in /v1.'
  throw new PalimpsestError('route_not_found', `Nothing is served at ${req.method} ${req.path.slice(0, 200)}. ${hint}`)
}
