import { execFile } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const ROOT = resolve(import.meta.dirname, '../..')
const DOCS = join(ROOT, 'docs')
const BLOCK = /^```(\S+) (\S+)\n(.*?)^```$/gms

/** What a block is run against: a gateway on a scripted model, or real models. */
export type Mark = 'run' | 'model'

export interface Page {
  readonly name: string
  /** Blocks with a file's name, as in `yaml house.yaml`. */
  readonly files: readonly { readonly name: string; readonly content: string }[]
  readonly commands: readonly string[]
}

/** Pages with blocks `sh MARK`. */
export function pagesWith(mark: Mark): Page[] {
  const paths = readdirSync(DOCS, { recursive: true, encoding: 'utf8' }).filter((f) => f.endsWith('.md') && !f.startsWith('.'))
  const pages = [join(ROOT, 'README.md'), ...paths.map((path) => join(DOCS, path))].map((path): Page => {
    const blocks = [...readFileSync(path, 'utf8').matchAll(BLOCK)].map(([, language = '', word = '', content = '']) => {
      return { language, word, content }
    })
    return {
      name: relative(ROOT, path),
      files: blocks.filter(({ word }) => word.includes('.')).map(({ word, content }) => ({ name: word, content })),
      commands: blocks.filter(({ language, word }) => language === 'sh' && word === mark).map(({ content }) => content),
    }
  })
  return pages.filter(({ commands }) => commands.length > 0)
}

/** Builds dist/ where it is not that of these sources. */
export async function build(): Promise<void> {
  await run(process.execPath, [join(ROOT, 'bin/palimpsest.mjs'), '--version'])
}

/** A folder in which blocks are run one after another. */
export interface Shell {
  save(files: Page['files']): void
  /** What the commands print. Throws where one of them fails; curl fails where the gateway answers an error. */
  run(commands: string, env: Readonly<Record<string, string>>): Promise<string>
  remove(): void
}

export function openShell(): Shell {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-docs-'))
  mkdirSync(join(folder, 'bin'))
  const program = join(folder, 'bin', 'palimpsest')
  writeFileSync(program, `#!/bin/sh\nexec "${process.execPath}" "${join(ROOT, 'dist/main.js')}" "$@"\n`)
  chmodSync(program, 0o755)
  return {
    save: (files) => {
      for (const { name, content } of files) writeFileSync(join(folder, name), content)
    },
    run: async (commands, env) => {
      const script = `set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; }\n${commands}`
      const path = `${join(folder, 'bin')}:${process.env.PATH}`
      const { stdout, stderr } = await run('bash', ['-c', script], { cwd: folder, env: { HOME: folder, ...env, PATH: path } })
      return `${stdout}${stderr}`
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  }
}
