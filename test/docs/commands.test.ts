import { rmSync } from 'node:fs'
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type Served, serve } from '../http/fakes.ts'
import { build, openShell, pagesWith, type Shell } from './pages.ts'

/** Every block of the documents that is marked `sh run` is run as it stands, against a gateway on a scripted model. */
const PUBLISHED_URL = 'http://127.0.0.1:8080'
const pages = pagesWith('run')

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
let shell: Shell
beforeAll(build, 300_000)
beforeEach(async () => {
  served = await serve({ script: { name: 'qwen2.5-coder-1.5b-instruct', contextTokens: 4_096 } })
  shell = openShell()
})
afterEach(async () => {
  await served.close()
  shell.remove()
  rmSync(`${served.dataDir}-snapshots`, { recursive: true, force: true })
})

const bash = (commands: string) =>
  shell.run(commands.replaceAll(PUBLISHED_URL, served.base), {
    PALIMPSEST_URL: served.base,
    PALIMPSEST_DATA_DIR: served.dataDir,
  })

describe('the commands of', () => {
  test.each(pages)('$name do as they say', { timeout: 300_000 }, async ({ name, files, commands }) => {
    shell.save(files)
    let printed = ''
    for (const block of commands) printed += await bash(block)
    for (const pattern of PRINTED[name] ?? []) expect(printed).toMatch(pattern)
  })

  test('a page that fails fails here', { timeout: 60_000 }, async () => {
    await expect(bash('palimpsest edits show no-such-edit')).rejects.toThrow(/no-such-edit/)
    await expect(bash(`curl -s ${PUBLISHED_URL}/v1/edits/no-such-edit`)).rejects.toThrow()
  })
})

test('what is said to be printed is said of pages that are there', () => {
  expect(Object.keys(PRINTED).filter((name) => !pages.some((page) => page.name === name))).toEqual([])
})
