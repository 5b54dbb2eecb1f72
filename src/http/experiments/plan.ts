import { z } from 'zod'
import { needed } from '../../experiment/statistics/power.ts'
import { check } from '../../wire/openai/refusal.ts'

const fraction = z.number().min(0).max(1)
export const planBody = z
  .strictObject({
    base: fraction.optional(),
    other: fraction.optional(),
    gained: fraction.optional(),
    lost: fraction.optional(),
    difference: z.number().optional(),
    deviation: z.number().gt(0).optional(),
    alpha: z.number().min(0.0001).max(0.2).optional(),
    power: z.number().min(0.5).max(0.999).optional(),
  })
  .refine(
    ({ base, other, gained, lost, difference, deviation }) => {
      const given = [base, gained, difference].filter((value) => value !== undefined).length
      const whole = (base === undefined) === (other === undefined) && (gained === undefined) === (lost === undefined)
      return given === 1 && whole && (difference === undefined) === (deviation === undefined)
    },
    {
      error:
        '`base` and `other` (shares), `gained` and `lost` (shares of paired prompts), or `difference` and `deviation` (means)',
    },
  )

/** How many units, or prompts, an effect takes to be seen. */
export function plan(sent: unknown) {
  const { base = 0, other, gained = 0, lost, difference = 0, deviation = 1, alpha = 0.05, power = 0.8 } = check(planBody, sent)
  const effect =
    other !== undefined
      ? ({ kind: 'proportion', base, other } as const)
      : lost !== undefined
        ? ({ kind: 'paired', gained, lost } as const)
        : ({ kind: 'mean', difference, deviation } as const)
  const { fixed, sequential } = needed(effect, { alpha, power })
  const finite = (n: number) => (Number.isFinite(n) ? n : null)
  return {
    object: 'experiment.plan',
    kind: effect.kind,
    alpha,
    power,
    one_look: finite(fixed),
    looks_at_will: finite(sequential),
  }
}
