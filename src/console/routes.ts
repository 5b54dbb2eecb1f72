import type { Request, RequestHandler, Response } from 'express'
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

const GUARDED = {
  'Content-Security-Policy': POLICY,
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
}

const A_YEAR_SECONDS = 31_536_000

/**
 * The web console: one page at `/console/` (`/` leads there), and its files under a path that names their content, so that browsers keep
 * them for good and never mix two versions.
 */
export function consoleRoutes(): Record<string, { readonly get: readonly RequestHandler[] }> {
  const { files, hash } = readWebFiles()
  const page = files.get('index.html')?.body.toString('utf8').replaceAll('{{assets}}', `/console/assets/${hash}`) ?? ''
  const etag = `"${hash}"`
  return {
    '/': { get: [(_req, res) => void res.redirect(302, '/console/')] },
    '/console': {
      get: [
        (_req, res) =>
          void res
            .set({ ...GUARDED, 'Cache-Control': 'no-cache', ETag: etag })
            .type('html')
            .send(page),
      ],
    },
    '/favicon.ico': { get: [(_req, res) => void res.redirect(302, `/console/assets/${hash}/icon.svg`)] },
    '/console/assets/:hash/*path': {
      get: [
        (req, res, next) => {
          const file = files.get([req.params.path ?? ''].flat().join('/'))
          if (file === undefined) return next('router')
          const current = req.params.hash === hash
          res.set({
            ...GUARDED,
            ETag: etag,
            // A page from before an update may still ask under the old hash: it gets today's file, and is not to keep it.
            'Cache-Control': current ? `public, max-age=${A_YEAR_SECONDS}, immutable` : 'no-cache',
          })
          unlessKnown(req, res, file.type, file.body)
        },
      ],
    },
  }
}

function unlessKnown(req: Request, res: Response, type: string, body: Buffer): void {
  if (req.fresh) return void res.status(304).end()
  res.set('Content-Type', type).send(body)
}
