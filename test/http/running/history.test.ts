import { rmSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { FAULTS, NEEDS_POOLER } from '../../../bench/history/faults.ts'
import { findPgbouncer, PGBOUNCER } from '../../../bench/history/pgbouncer.ts'
import { type RunResult, runHistory } from '../../../bench/history/run.ts'
import { needing } from '../../needs.ts'
import { buildChild } from '../../support/built-child.ts'

/** The history checker in short: each kind of fault about once. `npm run bench:history` runs it for as long as one likes. */
const SEED = 20
const SECONDS = 30
/** For a machine that does other things too. */
const PATIENCE_MS = 400_000

let built = ''
let result: RunResult
beforeAll(async () => {
  const child = buildChild('bench/history/gateway-child')
  built = child.built
  result = await runHistory({
    seed: SEED,
    seconds: SECONDS,
    spans: { gapMs: 3_000, faultMs: 2_500, stopMs: 4_000 },
    program: (dataDir, database) => [child.child, dataDir, database],
  })
  const { seed, acknowledged, records, reads, readsWithToken, recoveryMs } = result
  console.info(
    `seed ${seed}: ${acknowledged} writes acknowledged, ${records} records, ${reads} reads, ${readsWithToken} with a token; well ${Math.round(recoveryMs)} ms after`,
    Object.fromEntries(result.faults),
  )
}, PATIENCE_MS)
afterAll(() => rmSync(built, { recursive: true, force: true }))

describe('three gateways over one PostgreSQL, while gateways, server and network fail', () => {
  test('lose nothing that was acknowledged, write nothing twice, and show it in one order', () => {
    expect(result.violations).toEqual([])
  })

  test('were written to and read from all the while', () => {
    expect(result.acknowledged).toBeGreaterThan(5)
    expect(result.readsWithToken).toBeGreaterThan(10)
  })

  test('met each kind of fault', () => {
    const missing = FAULTS.filter((fault) => !NEEDS_POOLER.has(fault) && !result.faults.has(fault))
    expect(missing).toEqual([])
  })
})

needing(findPgbouncer() !== undefined, PGBOUNCER)('PgBouncer in transaction mode', {}, () => {
  test('was put between them and PostgreSQL, and killed', () => {
    expect([...NEEDS_POOLER].filter((fault) => !result.faults.has(fault))).toEqual([])
  })
})
