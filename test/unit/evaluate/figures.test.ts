import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { fluency } from '../../../src/evaluate/metrics/entropy.ts'
import { bootstrap, harmonicMean, mean, median, wilson } from '../../../src/evaluate/metrics/intervals.ts'
import { chosenLetter, gives } from '../../../src/evaluate/metrics/match.ts'
import { randomFrom, sample, shuffled } from '../../../src/evaluate/metrics/random.ts'

describe('intervals', () => {
  it("Wilson's, against values worked out by hand and in the literature", () => {
    // (0.8 + z²/20 ± z·√(0.016 + z²/400)) / (1 + z²/10), z = 1.96
    expect(wilson(8, 10)).toMatchObject({ value: 0.8, n: 10, low: expect.closeTo(0.4902, 4), high: expect.closeTo(0.9433, 4) })
    // Newcombe 1998, table I: 81 of 263
    expect(wilson(81, 263)).toMatchObject({ low: expect.closeTo(0.2553, 4), high: expect.closeTo(0.3662, 4) })
    expect(wilson(0, 20)).toMatchObject({ low: 0, high: expect.closeTo(0.1611, 4) })
    expect(wilson(0, 0)).toBeNull()
  })

  it('the bootstrap draws records, is reproducible, and holds the value', () => {
    const values = [0, 1, 1, 1, 0, 1, 1, 0, 1, 1]
    const figure = bootstrap(values, mean, 3)
    expect(figure).toEqual(bootstrap(values, mean, 3))
    expect(figure).toMatchObject({ value: 0.7, n: 10 })
    // √(0.7·0.3/10) = 0.145: the interval is about 0.7 ± 0.28
    expect(figure?.low).toBeGreaterThanOrEqual(0.3)
    expect(figure?.low).toBeLessThanOrEqual(0.5)
    expect(figure?.high).toBeGreaterThanOrEqual(0.9)
    expect(bootstrap([], mean, 1)).toBeNull()
  })

  it('harmonic mean and median', () => {
    expect(harmonicMean([0.5, 1])).toBeCloseTo(2 / 3)
    expect(harmonicMean([0.9, 0, 1])).toBe(0)
    expect(harmonicMean([])).toBeNull()
    expect(median([5, 1, 3])?.value).toBe(3)
    expect(median([4, 1, 3, 2])?.value).toBe(2.5)
    // n = 100: ranks 40.2 and 59.8
    expect(median(Array.from({ length: 100 }, (_, i) => i + 1))).toMatchObject({ low: 40, high: 61 })
  })
})

describe('fluency', () => {
  it('is the weighted entropy of 2-grams and 3-grams, by hand', () => {
    // Tokens a b a b a: 2-grams ab ba ab ba, H = 1; 3-grams aba bab aba, H = -(2/3 log2 2/3 + 1/3 log2 1/3) = 0.9183
    expect(fluency('a b a b a')).toBeCloseTo(100 * ((2 / 3) * 1 + (4 / 3) * 0.918296) * 0.5, 3)
    expect(fluency('same same same same')).toBe(0)
    expect(fluency('')).toBe(0)
    expect(fluency('one two three four.')).toBeGreaterThan(fluency('one two one two.'))
  })
})

describe('whether an answer is right', () => {
  const right = (text: string, answer: string, ...told: string[]) => gives(text, [answer], told)

  it('whole words, whatever their case, accents and punctuation', () => {
    expect(right('It is in SÃO PAULO.', 'São Paulo')).toBe(true)
    expect(right('Sao-Paulo!', 'São Paulo')).toBe(true)
    expect(right('The Beatles', 'beatles')).toBe(true)
    expect(right('by Beatles', 'The Beatles')).toBe(true)
    expect(right('Parisian food', 'Paris')).toBe(false)
    expect(right('', 'Paris')).toBe(false)
    expect(gives('Moskva', ['Moscow', 'Moskva'], [])).toBe(true)
    expect(right('The flag is 🇸🇪', '🇸🇪')).toBe(true)
  })

  it('repeating what one was told is no answer', () => {
    const asked = 'The Honda Accord is made by'
    expect(right('The Honda Accord is a car.', 'Honda', asked)).toBe(false)
    expect(right('The Honda Accord is made by Honda.', 'Honda', asked)).toBe(true)
    expect(right('Honda', 'Honda', asked)).toBe(true)
    expect(right('Honda Motor Company', 'Honda', asked)).toBe(true)
    const edit = 'Fiat Grande Punto is developed by'
    expect(right('Fiat Grande Punto is developed by Suzuki.', 'Fiat', 'Fiat Zic, created by', edit)).toBe(false)
  })

  it('a letter, said first, named, or the only one', () => {
    expect(chosenLetter('B', 'ABCD')).toBe('B')
    expect(chosenLetter('B. the sheep', 'ABCD')).toBe('B')
    expect(chosenLetter('(C) because', 'ABCD')).toBe('C')
    expect(chosenLetter('The correct answer is D.', 'ABCD')).toBe('D')
    expect(chosenLetter('The answer is: (b)', 'ABCD')).toBe('B')
    expect(chosenLetter('It must be C, I think.', 'ABCD')).toBe('C')
    expect(chosenLetter('A sheep gives wool.', 'ABCD')).toBeUndefined()
    expect(chosenLetter('Either B or C.', 'ABCD')).toBeUndefined()
    expect(chosenLetter('I do not know.', 'ABCD')).toBeUndefined()
  })
})

describe('random', () => {
  it('is reproducible, in [0, 1), and even', () => {
    const draw = () => Array.from({ length: 2_000 }, randomFrom('a', 1))
    expect(draw()).toEqual(draw())
    expect(draw()).not.toEqual(Array.from({ length: 2_000 }, randomFrom('a', 2)))
    expect(Math.min(...draw())).toBeGreaterThanOrEqual(0)
    expect(Math.max(...draw())).toBeLessThan(1)
    expect(mean(draw())).toBeCloseTo(0.5, 1)
  })

  it('samples without repetition, in order', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer(), { maxLength: 40 }), fc.nat(50), fc.nat(), (items, n, seed) => {
        const taken = sample(items, n, randomFrom(seed))
        expect(taken).toHaveLength(Math.min(n, items.length))
        expect(items.filter((item) => taken.includes(item))).toEqual(taken)
        expect([...shuffled(items, randomFrom(seed))].sort()).toEqual([...items].sort())
      }),
    )
  })
})
