import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { expect, test } from 'vitest'
import { palimpsestProgram } from '../../src/cli/program.ts'

/** Commands and flags that the documents name are those of the program, also where no test can run them. */
const ROOT = resolve(import.meta.dirname, '../..')
const DOCS = join(ROOT, 'docs')
const program = palimpsestProgram()

/** Of other programs: npm, git, docker, lm_eval, curl, and the scripts of bench/. */
const FOREIGN = new Set([
  '--help',
  '--version',
  '--follow-tags',
  '--build',
  '--build-arg',
  '--model_args',
  '--tasks',
  '--batch_size',
  '--data-binary',
  '--count',
  '--graph',
  // Of scripts of ours.
  '--seconds',
  '--runs',
  '--cases',
  '--minutes',
  '--easyedit',
  '--folder',
  '--write',
  '--base',
  '--first',
  '--forced-only',
  '--keep',
  '--kind',
  '--causes',
  '--only',
  '--rounds',
  '--soak-minutes',
])

function flags(command: Command): string[] {
  return [...command.options.flatMap(({ long }) => long ?? []), ...command.commands.flatMap(flags)]
}

const pages = ['guide', 'concepts', 'results', 'project']
  .flatMap((room) => readdirSync(join(DOCS, room)).map((file) => `${room}/${file}`))
  .map((name) => ({ name, text: readFileSync(join(DOCS, name), 'utf8') }))

test('every flag in the guide is one of the program', () => {
  const known = new Set(flags(program))
  const unknown = pages.flatMap(({ name, text }) =>
    [...text.matchAll(/(?<=[`\s(])--[a-z][a-z_-]+/g)]
      .map(([flag]) => flag)
      .filter((flag) => !known.has(flag) && !FOREIGN.has(flag))
      .map((flag) => `${name}: ${flag}`),
  )
  expect(unknown).toEqual([])
})

test('every command in the guide is one of the program', () => {
  const unknown = pages.flatMap(({ name, text }) =>
    [...text.matchAll(/(?:^|`|\$ )palimpsest ([a-z-]+)(?: ([a-z]+))?/gm)]
      .filter(([, first, second]) => {
        const command = program.commands.find((one) => one.name() === first)
        if (command === undefined) return true
        return second !== undefined && command.commands.length > 0 && !command.commands.some((one) => one.name() === second)
      })
      .map(([words]) => `${name}: ${words}`),
  )
  expect(unknown).toEqual([])
})

test('every file of the repository that a page names is there', () => {
  const missing = pages.flatMap(({ name, text }) =>
    [...text.matchAll(/`((?:src|test|bench|editor|corpus|calibration|templates)\/[\w./-]+)`/g)]
      .map(([, path = '']) => path)
      .filter((path) => !existsSync(join(ROOT, path)))
      .map((path) => `${name}: ${path}`),
  )
  expect(missing).toEqual([])
})
