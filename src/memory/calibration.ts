import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { PalimpsestError } from '../errors.ts'
import { EVIDENCE } from './evidence.ts'
import type { Calibration } from './gate.ts'

/** The fit that ships with this version, the same two levels above src/memory and dist/memory. */
export const CALIBRATION_FILE = fileURLToPath(new URL('../../calibration/gate.json', import.meta.url))

const schema = z.strictObject({
  bias: z.number(),
  weights: z.partialRecord(z.enum(EVIDENCE), z.number()),
  products: z.record(
    z
      .string()
      .refine(
        (k) => k.split('*').length === 2 && k.split('*').every((n) => (EVIDENCE as readonly string[]).includes(n)),
        'expected two kinds of evidence as `a*b`',
      ),
    z.number(),
  ),
  threshold: z.number().gt(0).lt(1),
})

/** Reads a fit; `threshold` moves the operating point. Throws `invalid_value`, naming the field. */
export function readCalibration(file: string = CALIBRATION_FILE, threshold?: number): Calibration {
  const parsed = schema.safeParse(JSON.parse(readFileSync(file, 'utf8')))
  if (!parsed.success) {
    const issue = parsed.error.issues[0]
    throw new PalimpsestError(
      'invalid_value',
      `${file}: ${issue?.path.join('.')}: ${issue?.message}. Fit it again with \`npm run fit-gate\`.`,
    )
  }
  return { ...parsed.data, ...(threshold === undefined ? {} : { threshold }) }
}
