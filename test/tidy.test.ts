import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

const ROOT = resolve(import.meta.dirname, '..')
const SRC = join(ROOT, 'src')

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

describe('the tree', () => {
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

  it('has every test in a lane of `npm test`', () => {
    const lanes = read(join(ROOT, 'scripts', 'test.mjs'))
    const tests = files(join(ROOT, 'test')).filter((f) => f.endsWith('.test.ts'))
    const rooms = new Set(tests.map((f) => relative(ROOT, f).split('/').slice(0, 2).join('/')))
    expect([...rooms].filter((room) => !lanes.includes(`'${room}'`))).toEqual([])
  })

  it('has a short README; `npm run lint:docs` follows its links', () => {
    expect(read(join(ROOT, 'README.md')).split('\n').length).toBeLessThan(150)
  })
})
