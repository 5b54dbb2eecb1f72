import { execFile } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type Served, serve } from '../http/fakes.ts'

/**
 * Every block of the documents that is marked `sh run` is run as it stands, against a gateway on a scripted model; blocks with a file's name,
 * as in `yaml house.yaml`, are saved first. The blocks of a page are run one after another in one folder.
 */
const run = promisify(execFile)
const ROOT = resolve(import.meta.dirname, '../..')
const DOCS = join(ROOT, 'docs')
const BLOCK = /^```(\S+) (\S+)\n(.*?)^```$/gms
const PUBLISHED_URL = 'http://127.0.0.1:8080'

interface Page {
  readonly name: string
  readonly files: readonly { readonly name: string; readonly content: string }[]
  readonly commands: readonly string[]
}

function pageOf(path: string): Page {
  const blocks = [...readFileSync(path, 'utf8').matchAll(BLOCK)].map(([, language = '', mark = '', content = '']) => {
    return { language, mark, content }
  })
  return {
    name: relative(ROOT, path),
    files: blocks.filter(({ mark }) => mark.includes('.')).map(({ mark, content }) => ({ name: mark, content })),
    commands: blocks.filter(({ language, mark }) => language === 'sh' && mark === 'run').map(({ content }) => content),
  }
}

const paths = readdirSync(DOCS, { recursive: true, encoding: 'utf8' }).filter((f) => f.endsWith('.md') && !f.startsWith('.'))
const pages = [join(ROOT, 'README.md'), ...paths.map((path) => join(DOCS, path))]
  .map(pageOf)
  .filter(({ commands }) => commands.length > 0)

/** What a page says that its commands print. */
const PRINTED: Readonly<Record<string, readonly RegExp[]>> = {
  'README.md': [/"id":"refunds"/, /"state":"withdrawn"/],
  'docs/guide/getting-started.md': [/"arm":"edited"/, /"arm":"base"/, /refunds/],
  'docs/guide/edits.md': [/would land/, /4 edits/, /"text":"Our refund window is 30 days\."/],
  'docs/guide/experiments.md': [/first: running/, /first: shipped edited/, /first: stopped/, /1926/, /3678/],
  'docs/guide/rollouts.md': [/rollout-spring-facts: /, /rolled.back/],
  'docs/guide/keys.md': [/pk_/, /acme/],
  'docs/guide/operations.md': [/"status":"ok"/, /palimpsest_info/, /snapshot/],
}

let served: Served
let folder: string
beforeAll(async () => {
  // Builds dist/ where it is not that of these sources.
  await run(process.execPath, [join(ROOT, 'bin/palimpsest.mjs'), '--version'])
}, 300_000)
beforeEach(async () => {
  served = await serve({ script: { name: 'qwen2.5-coder-1.5b-instruct', contextTokens: 4_096 } })
  folder = mkdtempSync(join(tmpdir(), 'palimpsest-docs-'))
  mkdirSync(join(folder, 'bin'))
  const program = join(folder, 'bin', 'palimpsest')
  writeFileSync(program, `#!/bin/sh\nexec "${process.execPath}" "${join(ROOT, 'dist/main.js')}" "$@"\n`)
  chmodSync(program, 0o755)
})
afterEach(async () => {
  await served.close()
  for (const path of [folder, `${served.dataDir}-snapshots`]) rmSync(path, { recursive: true, force: true })
})

/** What the commands print. Throws where one of them fails; curl fails where the gateway answers an error. */
async function bash(commands: string): Promise<string> {
  const script = `set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; }\n${commands.replaceAll(PUBLISHED_URL, served.base)}`
  const env = {
    PATH: `${join(folder, 'bin')}:${process.env.PATH}`,
    HOME: folder,
    PALIMPSEST_URL: served.base,
    PALIMPSEST_DATA_DIR: served.dataDir,
  }
  const { stdout, stderr } = await run('bash', ['-c', script], { cwd: folder, env })
  return `${stdout}${stderr}`
}

describe('the commands of', () => {
  test.each(pages)('$name do as they say', { timeout: 120_000 }, async ({ name, files, commands }) => {
    for (const { name: file, content } of files) writeFileSync(join(folder, file), content)
    let printed = ''
    for (const block of commands) printed += await bash(block)
    for (const pattern of PRINTED[name] ?? []) expect(printed).toMatch(pattern)
  })

  test('a page that fails fails here', async () => {
    await expect(bash('palimpsest edits show no-such-edit')).rejects.toThrow(/edit_not_found|no-such-edit/)
    await expect(bash(`curl -s ${PUBLISHED_URL}/v1/edits/no-such-edit`)).rejects.toThrow()
  })
})

test('what is said to be printed is said of pages that are there', () => {
  expect(Object.keys(PRINTED).filter((name) => !pages.some((page) => page.name === name))).toEqual([])
})
