/** No input, however hard, costs more than in proportion to its length, or a logarithm more: one that does stops everybody's answers. */
import { describe, expect, it } from 'vitest'
import { growthOf, isTooFast, told } from './measure.ts'
import { EXCUSED, exportsOf, foldersOf, OUTSIDE, ROOMS } from './registry.ts'
import { OBJECTS } from './subjects-objects.ts'
import { TEXTS } from './subjects-texts.ts'

/** For a machine that does other things too. */
const PATIENCE_MS = 600_000
const SUBJECTS = [...TEXTS, ...OBJECTS]

describe('the measure', { timeout: PATIENCE_MS }, () => {
  const repeated = (n: number) => Array.from({ length: n }, (_, i) => i)

  it.each([
    ['pairs of a list', (n: number) => () => repeated(n).reduce((sum, a) => sum + repeated(n).filter((b) => a === b).length, 0)],
    ['a text searched anew at each place', (n: number) => () => 'a'.repeat(n).replace(/a+b/g, '')],
    [
      'a text that grows by its front',
      (n: number) => () => {
        const out: number[] = []
        for (let i = 0; i < n; i++) out.unshift(i)
        return out.map((_, i) => out.slice(0, i).length)
      },
    ],
  ])('finds %s', async (_name, make) => {
    expect(isTooFast(await growthOf({ make, most: 1_000_000 }))).toBe(true)
  })

  it.each([
    ['a sum', (n: number) => () => repeated(n).reduce((sum, one) => sum + one, 0)],
    ['a sort', (n: number) => () => repeated(n).sort((a, b) => ((a * 7_919) % 104_729) - ((b * 7_919) % 104_729))],
    ['what is quadratic and bounded', (n: number) => () => repeated(n).map((a) => repeated(n).indexOf(a))],
  ])('lets %s pass', async (name, make) => {
    const growth = await growthOf({ make, most: name.includes('bounded') ? 128 : 1_000_000 })
    expect(isTooFast(growth), told(growth)).toBe(false)
  })
})

describe('the registry', () => {
  it('has every function and class where texts of others are read, measured or excused, once', () => {
    const measured = new Set(SUBJECTS.flatMap(({ of }) => of))
    const excused = Object.values(EXCUSED).flat()
    const exported = exportsOf(ROOMS)
    expect(exported.length).toBeGreaterThan(150)
    expect(exported.filter((one) => !measured.has(one) && !excused.includes(one))).toEqual([])
    expect([...measured, ...excused].filter((one) => !exported.includes(one))).toEqual([])
    expect(excused.filter((one, i) => measured.has(one) || excused.indexOf(one) !== i)).toEqual([])
  })

  it('has every folder of the sources', () => {
    const within = (folder: string, room: string) => folder === room || folder.startsWith(`${room}/`)
    const unknown = foldersOf().filter((folder) => ![...ROOMS, ...Object.keys(OUTSIDE)].some((room) => within(folder, room)))
    expect(unknown).toEqual([])
  })
})

describe('time', { timeout: PATIENCE_MS }, () => {
  it.each(SUBJECTS.map(({ of, cases }) => [of.join(', '), cases] as const))(
    'of %s grows with the input',
    async (_name, cases) => {
      const wrong: string[] = []
      for (const subject of cases) {
        const growth = await growthOf(subject)
        if (isTooFast(growth)) wrong.push(`${subject.name} ${told(growth)}`)
      }
      expect(wrong).toEqual([])
    },
  )
})
