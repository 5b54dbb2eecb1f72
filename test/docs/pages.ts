import { execFile, spawn } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { promisify } from 'node:util'
import { openaiPython } from '../support/openai-python.ts'

const run = promisify(execFile)
export const ROOT = resolve(import.meta.dirname, '../..')
const DOCS = join(ROOT, 'docs')
/** Written from the code, or history. */
const OTHERS = /^docs\/(?:reference\/|decisions\/|LOG\.md$|\.)/
const BLOCK = /^ *```(\S+)(?: ([^\n]*))?\n(.*?)^ *```$/gms

/**
 * What a block is run against: a gateway on a scripted model, a PostgreSQL, or real models. The command of `start` opens a gateway and goes on.
 * `not-run: REASON` stands for no test.
 */
export type Mark = 'run' | 'start' | 'postgres' | 'model'

export interface Block {
  readonly language: string
  /** What stands behind the language: a mark, or a file's name as in `yaml house.yaml`. */
  readonly words: string
  readonly content: string
}

export interface File {
  readonly name: string
  readonly content: string | Uint8Array
}

export interface Page {
  readonly name: string
  readonly blocks: readonly Block[]
}

/** README.md and docs/, but what is written from the code and what is history. */
export const pages: readonly Page[] = [
  'README.md',
  ...readdirSync(DOCS, { recursive: true, encoding: 'utf8' })
    .map((path) => relative(ROOT, join(DOCS, path)))
    .filter((path) => path.endsWith('.md') && !OTHERS.test(path)),
].map((name) => ({ name, blocks: blocksOf(readFileSync(join(ROOT, name), 'utf8')) }))

export function blocksOf(text: string): Block[] {
  return [...text.matchAll(BLOCK)].map(([, language = '', words = '', content = '']) => ({ language, words, content }))
}

export const pagesWith = (mark: Mark) => pages.filter(({ blocks }) => blocks.some(({ words }) => words === mark))

export const filesOf = ({ blocks }: Page): File[] =>
  blocks.flatMap(({ words, content }) => (/^\S+\.\S+$/.test(words) ? [{ name: words, content }] : []))

/** Builds dist/ where it is not that of these sources. */
export async function build(): Promise<void> {
  await run(process.execPath, [join(ROOT, 'bin/palimpsest.mjs'), '--version'])
}

type Environment = Readonly<Record<string, string>>

/** A folder in which blocks are run one after another. */
export interface Shell {
  save(files: readonly File[]): void
  /** What a block prints. Throws where one of its commands fails; curl fails where the gateway answers an error. */
  run(block: Pick<Block, 'language' | 'content'>, env: Environment): Promise<string>
  /** Runs one command that goes on; resolves to the URL of the gateway that it opens, and how to end it. */
  start(content: string, env: Environment): Promise<{ readonly url: string; end(): Promise<void> }>
  remove(): void
}

const URL_LINE = /URL +(http:\S+)\/v1\n/

export function openShell(): Shell {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-docs-'))
  mkdirSync(join(folder, 'bin'))
  const program = join(folder, 'bin', 'palimpsest')
  writeFileSync(program, `#!/bin/sh\nexec "${process.execPath}" "${join(ROOT, 'dist/main.js')}" "$@"\n`)
  chmodSync(program, 0o755)
  const options = (env: Environment) => ({
    cwd: folder,
    // What is served here stays a minute: nothing is compiled for it.
    env: { HOME: folder, PALIMPSEST_BUILD: 'false', ...env, PATH: `${join(folder, 'bin')}:${process.env.PATH}` },
  })
  return {
    save: (files) => {
      for (const { name, content } of files) writeFileSync(join(folder, name), content)
    },
    run: async ({ language, content }, env) => {
      const script = `set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; }\n${content}`
      const { stdout, stderr } =
        language === 'python'
          ? await run(await openaiPython(), ['-c', content], options(env))
          : await run('bash', ['-c', script], options(env))
      return `${stdout}${stderr}`
    },
    start: async (content, env) => {
      // One command, in the place of bash, so that it is what the signal ends.
      const child = spawn('bash', ['-c', `exec ${content}`], options(env))
      const ended = new Promise<void>((done) => child.once('close', () => done()))
      const end = () => {
        child.kill('SIGTERM')
        return ended
      }
      let said = ''
      const url = await new Promise<string>((found, failed) => {
        for (const stream of [child.stdout, child.stderr])
          stream.setEncoding('utf8').on('data', (text: string) => {
            said += text
            const [, address] = URL_LINE.exec(said) ?? []
            if (address !== undefined) found(address)
          })
        child.once('close', (code) => failed(new Error(`It ended with ${code} before it told its URL:\n${said}`)))
        child.once('error', failed)
      })
      return { url, end }
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  }
}
