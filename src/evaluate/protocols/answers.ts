import { createHash } from 'node:crypto'
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { PalimpsestError } from '../../errors.ts'
import type { Probe } from '../data/probe.ts'
import type { Method, Protocol } from '../methods/methods.ts'
import { FLUENCY_SAMPLING } from '../metrics/entropy.ts'
import type { Forced } from './forced.ts'
import type { Generated } from './generated.ts'

/** One line of the answers file: what was asked, and what came. Made to be read by a person, too. */
export type Line = {
  readonly key: string
  readonly method: Method
  readonly probe: string
  readonly question: string
  readonly accepted: readonly string[]
} & ({ readonly protocol: 'generated'; readonly outcome: Generated } | { readonly protocol: 'forced'; readonly outcome: Forced })

/** Answers on disk, one JSON line each, appended as they come, so that a run that was cut off goes on where it stopped. */
export interface AnswerFile {
  readonly path: string
  /** Lines taken over from an earlier run. */
  readonly lines: readonly Line[]
  find(key: string): Line | undefined
  append(line: Line): void
}

/** `resume`: keep what is there; else the file starts anew. A last line that was cut off is dropped. Throws `storage_failed`. */
export function openAnswers(path: string, resume: boolean): AnswerFile {
  const lines = resume && existsSync(path) ? readLines(path) : []
  const byKey = new Map(lines.map((line) => [line.key, line]))
  guarded(path, () => writeFileSync(path, lines.map(written).join('')))
  return {
    path,
    lines,
    find: (key) => byKey.get(key),
    append: (line) => {
      byKey.set(line.key, line)
      guarded(path, () => appendFileSync(path, written(line)))
    },
  }
}

const written = (line: Line): string => `${JSON.stringify(line)}\n`

function readLines(path: string): Line[] {
  const texts = readFileSync(path, 'utf8').split('\n')
  return texts.flatMap((text, i) => {
    if (text.trim() === '') return []
    try {
      return [JSON.parse(text) as Line]
    } catch (cause) {
      if (i === texts.length - 1) return []
      const message = `${path}, line ${i + 1}, is no answer of an earlier run; run without --resume to start anew.`
      throw new PalimpsestError('invalid_value', message, { cause })
    }
  })
}

function guarded(path: string, write: () => void): void {
  try {
    write()
  } catch (cause) {
    throw new PalimpsestError('storage_failed', `${path} can't be written: ${(cause as Error).message}`, { cause })
  }
}

/** What a method's answer depends on beside the probe: model, edits in memory, limits, seed, and the template and gate of those that have them. */
export type Circumstances = (method: Method) => Readonly<Record<string, string | number>>

/** Answers under the same key are the same. */
export function answerKey(protocol: Protocol, method: Method, probe: Probe, circumstances: ReturnType<Circumstances>): string {
  const { turns, wants, answers, rival, forcedText, record, kind } = probe
  const sampled = kind === 'fluency' && { sampling: FLUENCY_SAMPLING }
  const asked = protocol === 'generated' ? { turns, kind, ...sampled } : { turns, forcedText, answer: answers[0], rival }
  return createHash('sha256')
    .update(JSON.stringify([protocol, method, asked, record, wants, circumstances]))
    .digest('hex')
    .slice(0, 24)
}
