import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, extname, join } from 'node:path'
import { PACKAGE_ROOT } from '../package-root.ts'

/** A file of the web page, held in memory: all of them together are some 2 MB, most of it Swagger UI. */
export interface WebFile {
  readonly body: Buffer
  readonly type: string
}

/** The browser's files are served as they are written, so a built gateway reads them where the sources lie. */
const WEB = join(PACKAGE_ROOT, 'src/console/web')

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
}

/** Libraries, by the name under which the page asks for them. Their versions are package.json's. */
const VENDOR: Readonly<Record<string, readonly [package_: string, path: string]>> = {
  'vendor/preact.js': ['htm', '../preact/standalone.module.js'],
  'vendor/uplot.js': ['uplot', 'uPlot.esm.js'],
  'vendor/uplot.css': ['uplot', 'uPlot.min.css'],
  'vendor/swagger-ui.js': ['swagger-ui-dist', 'swagger-ui-bundle.js'],
  'vendor/swagger-ui.css': ['swagger-ui-dist', 'swagger-ui.css'],
}

/** Every file that the page may ask for, by its path, and a hash over all of them. */
export function readWebFiles(): { readonly files: ReadonlyMap<string, WebFile>; readonly hash: string } {
  const own = readdirSync(WEB, { recursive: true, encoding: 'utf8' }).filter((name) => extname(name) in TYPES)
  const files = new Map([
    ...own.map((name) => [name.replaceAll('\\', '/'), webFile(join(WEB, name))] as const),
    ...Object.entries(VENDOR).map(([name, [library, path]]) => [name, webFile(join(folderOf(library), path))] as const),
  ])
  const all = createHash('sha256')
  for (const [name, { body }] of files) all.update(`${name} ${body.length}\n`).update(body)
  return { files, hash: all.digest('hex').slice(0, 16) }
}

function webFile(path: string): WebFile {
  return { body: readFileSync(path), type: TYPES[extname(path)] ?? 'application/octet-stream' }
}

/** Where the library's built files lie. */
function folderOf(library: string): string {
  return dirname(createRequire(import.meta.url).resolve(library))
}
