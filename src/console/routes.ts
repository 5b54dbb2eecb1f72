import type { Request, RequestHandler, Response } from 'express'
import { PalimpsestError } from '../errors.ts'
import { readWebFiles } from './files.ts'

/** Nothing but what this gateway serves itself, and no script or style written into the page. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join('; ')

/** Swagger UI writes styles into its page. */
const REFERENCE_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")

const GUARDED = {
  'Content-Security-Policy': POLICY,
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
}

interface PageRoute {
  readonly about: { readonly summary: string; readonly reply: string }
  readonly handlers: readonly RequestHandler[]
}

const A_YEAR_SECONDS = 31_536_000

/**
 * The web console: one page at `/console/` (`/` leads there), the API's reference at `/docs`, and their files under a path that names their content, so that browsers keep
 * them for good and never mix two versions.
 */
export function consoleRoutes(): Record<string, { readonly get: PageRoute }> {
  const { files, hash } = readWebFiles()
  const etag = `"${hash}"`
  const served = (summary: string, reply: string, handler: RequestHandler) => ({
    get: { about: { summary, reply }, handlers: [handler] },
  })
  const pageRoute = (summary: string, name: string, policy: string) => {
    const text = files.get(name)?.body.toString('utf8').replaceAll('{{assets}}', `/console/assets/${hash}`)
    const headers = { ...GUARDED, 'Content-Security-Policy': policy, 'Cache-Control': 'no-cache', ETag: etag }
    return served(summary, 'text/html', (_req, res) => void res.set(headers).type('html').send(text))
  }
  return {
    '/': served('Leads to the console.', 'text/html', (_req, res) => void res.redirect(302, '/console/')),
    '/console': pageRoute('The console.', 'index.html', POLICY),
    '/docs': pageRoute('This document, to read and to try.', 'reference/index.html', REFERENCE_POLICY),
    '/favicon.ico': served(
      'Icon of the pages.',
      'image/svg+xml',
      (_req, res) => void res.redirect(302, `/console/assets/${hash}/icon.svg`),
    ),
    '/console/assets/:hash/*path': served('A file of a page.', 'application/octet-stream', (req, res) => {
      const file = files.get([req.params.path ?? ''].flat().join('/'))
      if (file === undefined)
        throw new PalimpsestError(
          'route_not_found',
          `There is no file ${req.path.slice(0, 200)}. Reload the page that asked for it.`,
        )
      const current = req.params.hash === hash
      res.set({
        ...GUARDED,
        ETag: etag,
        // A page from before an update may still ask under the old hash: it gets today's file, and is not to keep it.
        'Cache-Control': current ? `public, max-age=${A_YEAR_SECONDS}, immutable` : 'no-cache',
      })
      unlessKnown(req, res, file.type, file.body)
    }),
  }
}

function unlessKnown(req: Request, res: Response, type: string, body: Buffer): void {
  if (req.fresh) return void res.status(304).end()
  res.set('Content-Type', type).send(body)
}
