/** `npm run bench:experiments [-- --runs 2000 --seed 1]`: the simulations of bench/experiments/simulated.ts, as tables. */
import { parseArgs } from 'node:util'
import { needed } from '../src/experiment/statistics/power.ts'
import {
  ALPHA,
  chance,
  logSeconds,
  pairsCrossed,
  rateCovered,
  ratioCaught,
  type Scenario,
  seconds,
  simulate,
} from './experiments/simulated.ts'

const { values: flags } = parseArgs({
  options: { runs: { type: 'string', default: '2000' }, seed: { type: 'string', default: '1' } },
})
const runs = Number(flags.runs)
const seed = Number(flags.seed)
const share = (hits: number, of = runs) => `${((100 * hits) / of).toFixed(1)} %`.padStart(8)
const print = (...cells: readonly string[]) => console.log(cells.map((cell, i) => (i === 0 ? cell.padEnd(46) : cell)).join('  '))

console.log(`${runs} runs each, alpha ${ALPHA}, looked at every 50 exposures\n`)
print('no difference, 5,000 exposures', 'sequence', 'fixed, peeked')
const same: readonly Scenario[] = [
  { name: 'chance 0.5', outcome: chance(0.5), kind: 'proportion', truth: 0, exposures: 5_000, tunedFor: 2_000 },
  { name: 'chance 0.1', outcome: chance(0.1), kind: 'proportion', truth: 0, exposures: 5_000, tunedFor: 2_000 },
  { name: 'chance 0.01', outcome: chance(0.01), kind: 'proportion', truth: 0, exposures: 5_000, tunedFor: 2_000 },
  {
    name: 'chance 0.1, weights 90/10',
    outcome: chance(0.1),
    kind: 'proportion',
    truth: 0,
    exposures: 5_000,
    tunedFor: 2_000,
    weight: 0.1,
  },
  { name: 'chance 0.5, tuned for 200', outcome: chance(0.5), kind: 'proportion', truth: 0, exposures: 5_000, tunedFor: 200 },
  ...[0.5, 0.1].flatMap((weight): Scenario[] => {
    const common = { truth: 0, exposures: 5_000, tunedFor: 2_000, weight }
    return [
      { name: `log-normal seconds, ratio, weight ${weight}`, outcome: logSeconds(), kind: 'ratio', ...common },
      { name: `log-normal seconds, mean, weight ${weight}`, outcome: seconds(), kind: 'mean', ...common },
    ]
  }),
  {
    name: 'chance 0.3, units come back 4 times',
    outcome: chance(0.3),
    kind: 'proportion',
    truth: 0,
    exposures: 5_000,
    tunedFor: 1_000,
    visits: 4,
  },
]
for (const scenario of same) {
  const { crossed, fixedCrossed } = simulate(scenario, runs, seed)
  print(scenario.name, share(crossed), share(fixedCrossed))
}

console.log('')
print('a difference, 5,000 exposures', 'sequence covers', 'fixed covers at the end', 'found', 'median exposures')
const plan = { alpha: ALPHA, power: 0.8 }
const need = needed({ kind: 'proportion', base: 0.3, other: 0.36 }, plan)
const differing: readonly Scenario[] = [
  { name: '0.30 and 0.36', outcome: chance(0.3, 0.36), kind: 'proportion', truth: 0.06, exposures: 5_000, tunedFor: 2_000 },
  {
    name: '0.05 and 0.95 (a target shown)',
    outcome: chance(0.05, 0.95),
    kind: 'proportion',
    truth: 0.9,
    exposures: 5_000,
    tunedFor: 2_000,
  },
  { name: '0.01 and 0.02', outcome: chance(0.01, 0.02), kind: 'proportion', truth: 0.01, exposures: 5_000, tunedFor: 2_000 },
  {
    name: 'log-normal seconds, 15 % slower',
    outcome: logSeconds(0.14),
    kind: 'ratio',
    truth: 0.14,
    exposures: 5_000,
    tunedFor: 2_000,
  },
  { name: 'log-normal seconds, 0.3 s more', outcome: seconds(0.3), kind: 'mean', truth: 0.3, exposures: 5_000, tunedFor: 2_000 },
  {
    name: `0.30 and 0.36, ${need.sequential} exposures as planned`,
    outcome: chance(0.3, 0.36),
    kind: 'proportion',
    truth: 0.06,
    exposures: need.sequential,
    tunedFor: need.sequential,
  },
]
for (const scenario of differing) {
  const { covered, fixedCovered, crossed, medianStop } = simulate(scenario, runs, seed)
  print(scenario.name, share(covered), share(fixedCovered), share(crossed), String(medianStop))
}
console.log(
  `planned for 80 % power, 0.30 against 0.36: ${need.fixed} exposures at one look, ${need.sequential} with looks at will`,
)

console.log('')
print('one chance, exact sequence, 5,000 trials', 'covers')
for (const p of [0.001, 0.02, 0.5]) print(`chance ${p}`, share(rateCovered(p, 5_000, runs, seed)))

console.log('')
print('sample ratio, 10,000 exposures at 50/50', 'called')
for (const lost of [0, 0.05, 0.1, 0.11, 0.12, 0.15, 0.2])
  print(
    lost === 0 ? 'sound (2,000 runs)' : `${lost * 100} % of one arm lost (1,000 runs)`,
    share(ratioCaught(lost, 10_000, lost === 0 ? runs : 1_000, seed), lost === 0 ? runs : 1_000),
  )

console.log('')
print('pairs, 500 prompts, looked at every 10', 'different')
print('gained 5 %, lost 5 %', share(pairsCrossed(0.05, 0.05, 500, runs, seed)))
print('gained 15 %, lost 5 %', share(pairsCrossed(0.15, 0.05, 500, runs, seed)))
const paired = needed({ kind: 'paired', gained: 0.15, lost: 0.05 }, plan)
const between = needed({ kind: 'proportion', base: 0.45, other: 0.55 }, plan)
console.log(
  `80 % power for 10 points: ${paired.fixed} (${paired.sequential}) prompts paired, ${between.fixed} (${between.sequential}) users between arms`,
)
