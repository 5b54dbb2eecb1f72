/**
 * Fuzzers: bytes that are nearly right, and values, at every reader of what somebody else made. A few seconds here; `npm run fuzz` tries a
 * million. PALIMPSEST_FUZZ_SEED repeats a run.
 */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { byteTargets, type Target } from './byte-targets.ts'
import { Dice, mutated } from './mutations.ts'
import { VALUE_TARGETS } from './value-targets.ts'

/** In all, by their shares. */
const ASKED = process.env.PALIMPSEST_FUZZ_CASES
const CASES = Number(ASKED ?? 20_000)
/** A few seconds for all in the usual run, however slow the machine. */
const TARGET_MS = ASKED === undefined ? 1_500 : 4 * 3_600_000
/** Nothing takes this long, in processor time. */
const CASE_MS = 3_000
const SEED = Number(process.env.PALIMPSEST_FUZZ_SEED ?? Date.now() % 2 ** 31)

let targets: Target[] = []
beforeAll(async () => {
  targets = await byteTargets()
  console.info(`fuzzing with PALIMPSEST_FUZZ_SEED=${SEED}`)
}, 120_000)
afterAll(async () => {
  for (const { close } of targets) await close?.()
})

const shares = () => [...targets, ...VALUE_TARGETS].reduce((sum, { share }) => sum + share, 0)
const casesOf = ({ share }: { readonly share: number }) => Math.ceil((CASES * share) / shares())

/** What went wrong with a case, and the case. */
async function tried(target: Target, bytes: Buffer, dice: Dice): Promise<string | null> {
  const start = process.cpuUsage()
  try {
    await target.run(bytes, dice)
  } catch (error) {
    return `${target.name}, seed ${SEED}: ${error instanceof Error ? (error.stack ?? error.message) : error}\n${bytes.toString('base64').slice(0, 8_000)}`
  }
  const { user, system } = process.cpuUsage(start)
  const ms = (user + system) / 1_000
  return ms > CASE_MS ? `${target.name}, seed ${SEED}: took ${ms} ms\n${bytes.toString('base64').slice(0, 8_000)}` : null
}

describe('fuzzed', { timeout: TARGET_MS * 40 + 600_000 }, () => {
  test('bytes are taken or refused by every reader', async () => {
    for (const target of targets) {
      const dice = new Dice(SEED)
      const end = performance.now() + TARGET_MS
      let cases = 0
      for (; cases < casesOf(target) && performance.now() < end; cases++)
        expect(await tried(target, mutated(target.seeds, dice, target.most), dice)).toBeNull()
      console.info(`${cases} cases of ${target.name}`)
      expect(cases).toBeGreaterThan(0)
    }
  })

  test.each(VALUE_TARGETS.map((target) => [target.name, target] as const))('%s are taken or refused', async (_name, target) => {
    let cases = 0
    const property = fc.asyncProperty(target.values, async (value) => {
      cases++
      await target.run(value)
    })
    const bounds = { interruptAfterTimeLimit: TARGET_MS, markInterruptAsFailure: false }
    await fc.assert(property, { seed: SEED, numRuns: casesOf(target), ...bounds })
    console.info(`${cases} cases of ${target.name}`)
  })

  test('a reader that stumbles is found', async () => {
    const stumbles: Target = {
      name: 'one that stumbles',
      share: 1,
      most: 100,
      seeds: [Buffer.from('{"a":[1,2]}')],
      run: (bytes) => {
        if (bytes.includes('[[')) throw new TypeError('Cannot read properties of undefined')
      },
    }
    const dice = new Dice(SEED)
    let found: string | null = null
    for (let i = 0; i < 20_000 && found === null; i++) found = await tried(stumbles, mutated(stumbles.seeds, dice, 100), dice)
    expect(found).toMatch(/one that stumbles, seed \d+: TypeError/)
  })
})
