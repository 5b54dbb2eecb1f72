import { execFileSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { buildChild } from '../../support/built-child.ts'

/** For a machine that does other things too. */
vi.setConfig({ testTimeout: 300_000, hookTimeout: 900_000 })

// A thread runs no TypeScript, so it is built.
let built = ''
let child = ''
beforeAll(() => {
  ;({ built, child } = buildChild('test/support/children/batch-thread-child'))
})
afterAll(() => rmSync(built, { recursive: true, force: true }))

test('a long batch is read in a thread, and everybody else is answered meanwhile', () => {
  const said = JSON.parse(execFileSync(process.execPath, [child], { encoding: 'utf8' }))
  expect(said.edits).toBe(20_000)
  // What is left here is to take the edits over.
  expect(said.longestMs).toBeLessThan(said.ms / 2)
  expect(said.refused).toMatchObject({ code: 'invalid_batch', problems: [{ line: 5_001 }] })
  expect(said.left).toBe('Error: the client left')
})
