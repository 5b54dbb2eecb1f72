import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'

const ROOT = resolve(import.meta.dirname, '../..')
const folder = mkdtempSync(join(tmpdir(), 'palimpsest-prose-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const words = (count: number) => Array.from({ length: count }, (_, i) => `word${i}`).join(' ')

/** What textlint, as `npm run lint:docs` calls it, says of a text. */
function said(text: string): Promise<string> {
  const file = join(folder, 'page.md')
  writeFileSync(file, text)
  const program = join(ROOT, 'node_modules/.bin/textlint')
  const args = ['--rulesdir', join(ROOT, 'docs/.textlint'), '--config', join(ROOT, '.textlintrc.json'), '-f', 'unix', file]
  return printed(program, args)
}

function printed(program: string, args: readonly string[]): Promise<string> {
  return new Promise((done) => execFile(program, args, { cwd: folder }, (_, stdout, stderr) => done(stdout + stderr)))
}

describe('the rules of prose', { timeout: 60_000 }, () => {
  test('take sentences of 25 words, and names of code in a cell', async () => {
    const names = Array.from({ length: 30 }, (_, i) => `\`name${i}\``).join(', ')
    expect(await said(`${words(25)}. ${words(25)}.\n\n| a | b |\n|---|---|\n| c | ${names} |\n`)).toBe('')
  })

  test('find a longer one in a paragraph, a list and a cell', async () => {
    const long = `${words(26)}.`
    const found = await said(`${long}\n\n- ${long}\n\n| a | b |\n|---|---|\n| c | ${long} |\n`)
    expect(found.match(/The sentence has 26 words/g)).toHaveLength(3)
  })

  test('find a word that is not used here', async () => {
    expect(await said('It is simply there.')).toMatch(/simply/)
  })
})

test('a link to a file or a heading that is not there is found', { timeout: 60_000 }, async () => {
  const page = join(folder, 'links.md')
  writeFileSync(page, '# Links\n\n[here](#links), [there](links.md#links), [nowhere](none.md), [no heading](links.md#none)\n')
  const rule = join(ROOT, 'node_modules/markdownlint-rule-relative-links/src/index.js')
  const config = join(folder, '.markdownlint-cli2.jsonc')
  writeFileSync(
    config,
    readFileSync(join(ROOT, '.markdownlint-cli2.jsonc'), 'utf8').replace('"markdownlint-rule-relative-links"', `"${rule}"`),
  )
  const found = await printed(join(ROOT, 'node_modules/.bin/markdownlint-cli2'), ['--config', config, '--no-globs', page])
  expect(found.match(/relative-links/g)).toHaveLength(2)
})
