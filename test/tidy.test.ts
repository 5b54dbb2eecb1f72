import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

const ROOT = resolve(import.meta.dirname, '..')
const SRC = join(ROOT, 'src')

/** Folders and files of src from the top down: a file imports only from layers below its own, or from its own folder. */
const LAYERS: readonly (readonly string[])[] = [
  ['main.ts'],
  ['cli'],
  ['server'],
  ['app.ts'],
  ['http', 'console'],
  ['backup'],
  // A hand-off is evaluated stage by stage, and spoken to over HTTP.
  ['handoff'],
  ['evaluate'],
  ['wire'],
  ['compare.ts'],
  ['complete-text.ts'],
  ['pipeline.ts'],
  ['assign.ts', 'plan.ts'],
  ['gateway.ts', 'config.ts'],
  ['config-values.ts'],
  ['selection'],
  ['adapters'],
  ['memory', 'prompt', 'engine', 'experiment', 'models', 'access'],
  ['edit'],
  ['storage', 'terminal'],
  ['trace.ts'],
  ['request.ts', 'errors.ts', 'logger.ts', 'package-root.ts'],
]

const FILE_LINES = 400
const LINE_CHARS = 200
const ROOM_FILES = 15

function files(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((e) => {
    if (['node_modules', 'dist', 'dist-bench', '.git', '.data'].includes(e.name)) return []
    const path = join(folder, e.name)
    return e.isDirectory() ? files(path) : [path]
  })
}

/** The console's own files as browsers get them; the types of the libraries they use are no sources. */
const WEB = join(SRC, 'console', 'web')
const sources = files(SRC).filter((f) => f.endsWith('.ts') && !f.startsWith(WEB))
const scripts = files(WEB).filter((f) => f.endsWith('.js'))
const read = (f: string) => readFileSync(f, 'utf8')

interface Import {
  readonly from: string
  readonly to: string
  readonly typeOnly: boolean
}

function imports(file: string): Import[] {
  const out: Import[] = []
  for (const m of read(file).matchAll(/^(?:import|export)\s+(type\s+)?[^'"]*?from\s+'(\.[^']+)'/gms)) {
    out.push({ from: file, to: resolve(dirname(file), m[2] ?? ''), typeOnly: m[1] !== undefined })
  }
  for (const m of read(file).matchAll(/import\('(\.[^']+)'\)/g))
    out.push({ from: file, to: resolve(dirname(file), m[1] ?? ''), typeOnly: false })
  return out
}

function unit(file: string): string {
  return relative(SRC, file).split('/')[0] ?? ''
}

function layer(file: string): number {
  return LAYERS.findIndex((l) => l.includes(unit(file)))
}

/** Upward or sideways edges that are allowed, each for a stated reason; types only. */
const ALLOWED_TYPES: readonly string[] = [
  'memory -> engine', // the Embedder interface
]

describe('the tree', () => {
  it('has a place for every source file', () => {
    expect(sources.filter((f) => layer(f) === -1).map((f) => relative(ROOT, f))).toEqual([])
  })

  it('imports only downwards, and siblings do not know each other', () => {
    const wrong = sources.flatMap(imports).filter(({ from, to, typeOnly }) => {
      const [a, b] = [unit(from), unit(to)]
      if (a === b || layer(from) < layer(to)) return false
      return !(typeOnly && ALLOWED_TYPES.includes(`${a} -> ${b}`))
    })
    expect(wrong.map(({ from, to }) => `${relative(SRC, from)} -> ${relative(SRC, to)}`)).toEqual([])
  })

  it('lets nobody past the door of the route over package registries', () => {
    const inside = (file: string) => file.includes('/src/models/packages/')
    const users = [...sources, ...files(join(ROOT, 'bench')).filter((f) => f.endsWith('.ts'))].flatMap(imports)
    const past = users.filter(({ from, to }) => inside(to) && !inside(from) && !to.endsWith('/packages/packages.ts'))
    expect(past.map(({ from, to }) => `${relative(ROOT, from)} -> ${relative(ROOT, to)}`)).toEqual([])
  })

  it('has no dead files: everything is reached from main.ts', () => {
    const seen = new Set<string>([join(SRC, 'main.ts')])
    for (const file of seen) if (file.endsWith('.ts')) for (const { to } of imports(file)) seen.add(to)
    expect(sources.filter((f) => !seen.has(f)).map((f) => relative(ROOT, f))).toEqual([])
  })

  it('has no dead files in the console: every script is reached from a page', () => {
    const page = files(WEB)
      .filter((f) => f.endsWith('.html'))
      .map(read)
      .join('')
    const seen = new Set(scripts.filter((f) => page.includes(`/${relative(WEB, f)}"`)))
    for (const file of seen) for (const { to } of imports(file)) if (scripts.includes(to)) seen.add(to)
    expect(scripts.filter((f) => !seen.has(f)).map((f) => relative(ROOT, f))).toEqual([])
  })

  it('keeps files and lines short', () => {
    const long = [...sources, ...scripts].flatMap((f) => {
      const lines = read(f).split('\n')
      const wide = lines.findIndex((l) => l.length > LINE_CHARS)
      return [
        ...(lines.length > FILE_LINES ? [`${relative(ROOT, f)}: ${lines.length} lines`] : []),
        ...(wide >= 0 ? [`${relative(ROOT, f)}:${wide + 1} is wide`] : []),
      ]
    })
    expect(long).toEqual([])
  })

  it('uses no name that says nothing', () => {
    const vague = sources.filter((f) =>
      /(?:^|[/-])(?:utils?|managers?|services?|helpers?|misc|common)(?:[/.-]|$)/i.test(relative(SRC, f)),
    )
    expect(vague.map((f) => relative(ROOT, f))).toEqual([])
  })

  it('reads the environment in one place', () => {
    expect(sources.filter((f) => /process\.env/.test(read(f)) && unit(f) !== 'config.ts').map((f) => relative(ROOT, f))).toEqual(
      [],
    )
  })

  it('names every room of src in docs/concepts/architecture.md, and none is crowded', () => {
    const rooms = new Map<string, number>()
    for (const file of [...sources, ...scripts]) rooms.set(dirname(file), (rooms.get(dirname(file)) ?? 0) + 1)
    expect([...rooms].filter(([, count]) => count > ROOM_FILES).map(([room]) => relative(ROOT, room))).toEqual([])
    const text = read(join(ROOT, 'docs', 'concepts', 'architecture.md'))
    const unnamed = readdirSync(SRC).filter((name) => !name.includes('.') && !text.includes(`\`src/${name}/\``))
    expect(unnamed).toEqual([])
  })

  it('has a short README; `npm run lint:docs` follows its links', () => {
    expect(read(join(ROOT, 'README.md')).split('\n').length).toBeLessThan(150)
  })
})
