/**
 * A history checker: gateways over one PostgreSQL, clients that write and read at random, and faults drawn from a seed. What was asked and
 * answered is held against the log in the end. Exits with 1 where a promise of docs/guide/many-gateways.md was broken.
 *
 *   npm run bench:history -- --seconds 300 --runs 6 [--seed 1] [--gateways 3] [--clients 8] [--setting synchronous_commit=off]
 */
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type RunResult, runHistory } from './history/run.ts'

const { values: flags } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Math.floor(Math.random() * 1e9)) },
    seconds: { type: 'string', default: '60' },
    runs: { type: 'string', default: '1' },
    gateways: { type: 'string', default: '3' },
    clients: { type: 'string', default: '8' },
    setting: { type: 'string', multiple: true, default: [] },
  },
})

const CHILD = join(import.meta.dirname, 'history/gateway-child.js')
const SHOWN = 10

const table = (counts: ReadonlyMap<string, number>) =>
  [...counts]
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([what, count]) => `  ${what}: ${count}`)
    .join('\n')

function print(result: RunResult): void {
  const { seed, violations, faults, answers, acknowledged, reads, readsWithToken, records } = result
  console.log(`seed ${seed}, ${result.seconds.toFixed(0)} s: ${violations.length} violations`)
  for (const { kind, what } of violations.slice(0, SHOWN)) console.log(`  ${kind}: ${what}`)
  console.log(
    `  ${acknowledged} writes acknowledged, ${records} records; ${reads} reads answered, ${readsWithToken} with a token`,
  )
  console.log(
    `  longest answer to a write ${(result.longestWriteMs / 1000).toFixed(1)} s; well ${(result.recoveryMs / 1000).toFixed(1)} s after the faults`,
  )
  const total = [...faults.values()].reduce((sum, count) => sum + count, 0)
  console.log(`${total} faults:\n${table(faults)}\nanswers by status (0: none):\n${table(answers)}`)
}

// PostgreSQL is in a process group of its own: it is ended by us, or stays.
const told = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => told.abort())

let violations = 0
for (let run = 0; run < Number(flags.runs) && !told.signal.aborted; run++) {
  const seed = Number(flags.seed) + run
  console.log(`\nseed ${seed} begins`)
  const result = await runHistory({
    seed,
    seconds: Number(flags.seconds),
    signal: told.signal,
    settings: Object.fromEntries(flags.setting.map((setting) => setting.split('=', 2))),
    gateways: Number(flags.gateways),
    clients: Number(flags.clients),
    program: (dataDir, database) => [CHILD, dataDir, database],
  })
  print(result)
  violations += result.violations.length
}
process.exitCode = violations === 0 ? 0 : 1
