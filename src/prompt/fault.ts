import { PalimpsestError } from '../errors.ts'

/** `template_broken`, with the fault as a Problem: file, 1-based line, and what is wrong. */
export function fault(file: string, line: number, message: string, cause?: unknown): PalimpsestError {
  const detail = { problems: [{ file, line, field: null, message }] }
  return new PalimpsestError(
    'template_broken',
    `${file}:${line}: ${message}`,
    cause === undefined ? detail : { ...detail, cause },
  )
}
