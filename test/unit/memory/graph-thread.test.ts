import { execFileSync, spawn } from 'node:child_process'
import { rmSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { GraphFiles } from '../../../src/memory/graph/graph-file.ts'
import { GRAPH_OPTIONS } from '../../../src/memory/graph/graph-library.ts'
import { buildChild } from '../../support/built-child.ts'
import { scratch, vectorOf } from '../../support/memory-fixture.ts'

/** For a machine that does other things too. */
vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 })

const KILLS = 4
const DIMENSIONS = 64

// A thread runs no TypeScript, so it is built.
let built = ''
let child = ''
beforeAll(() => {
  ;({ built, child } = buildChild('test/support/children/graph-thread-child'))
})
afterAll(() => rmSync(built, { recursive: true, force: true }))

const run = (task: string) => JSON.parse(execFileSync(process.execPath, [child, scratch(), task], { encoding: 'utf8' }))

test('while a thread builds, searches find what a scan finds', () => {
  const said = run('search')
  expect(said).toMatchObject({ wrong: 0, indexed: 3_000, lines: [] })
  expect(said.searches).toBeGreaterThan(5)
  expect(said.graphs).toBeGreaterThan(0)
})

test('a round that is broken off ends soon, leaves the graph before it, and holds nobody up', () => {
  const said = run('breakOff')
  expect(said).toMatchObject({ said: 'Error: closed', same: true })
  expect(said.found).toEqual([0, 1_999, 2_050].map((seq) => ({ seq, similarity: expect.closeTo(1, 5) })))
  expect(said.longestMs).toBeLessThan(said.ranMs / 2)
})

test(`killed in the middle of rounds, ${KILLS} times: the last graph that was saved is whole`, async () => {
  const folder = scratch()
  let size = 0
  for (let kill = 0; kill < KILLS; kill++) {
    const process_ = spawn(process.execPath, [child, folder, 'growOn'], { stdio: ['ignore', 'pipe', 'inherit'] })
    for await (const line of createInterface({ input: process_.stdout })) {
      const said = JSON.parse(line)
      if ('opened' in said && kill > 0) expect(said.opened).toBeGreaterThanOrEqual(size)
      size = said.size ?? size
      if (said.size > 500) setTimeout(() => process_.kill('SIGKILL'), 3 + 13 * kill)
    }
    const contentOf = (seq: number) => `${seq}`
    const expected = { embedder: 'fake', recipe: 1, logSeq: 1e6, contentOf, dimensions: DIMENSIONS }
    const graph = await new GraphFiles(folder, 'default', GRAPH_OPTIONS).load(expected)
    if ('reason' in graph) throw new Error(`${graph.reason}: ${graph.detail}`)
    expect(graph.size).toBeGreaterThanOrEqual(size)
    const last = graph.size - 1
    const query = vectorOf(`The mayor of Town ${last} is`, DIMENSIONS)
    expect(graph.nearest(query, 1)).toEqual([{ seq: last, similarity: expect.closeTo(1, 5) }])
    graph.close()
  }
})
