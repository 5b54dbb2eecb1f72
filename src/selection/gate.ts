import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { statement } from '../edit/edit.ts'
import { PalimpsestError } from '../errors.ts'
import { PACKAGE_ROOT } from '../package-root.ts'
import type { Considered, Reason } from '../trace.ts'
import type { Candidate } from './candidate.ts'

/** What speaks for a candidate: the reader's log-odds, how the message names it, and the size of the memory where no name decides. */
export const EVIDENCE = ['reader', 'named', 'loosely', 'earlier', 'crowd', 'crowdLoosely'] as const
export type Evidence = Readonly<Record<(typeof EVIDENCE)[number], number>>

/** The fitted gate: `calibration/gate.json`, written by `npm run fit-gate` and reviewed like code. */
const schema = z.strictObject({
  bias: z.number(),
  weights: z.strictObject(
    Object.fromEntries(EVIDENCE.map((name) => [name, z.number()])) as Record<(typeof EVIDENCE)[number], z.ZodNumber>,
  ),
  /** Least probability at which an edit applies: the operating point. */
  threshold: z.number().gt(0).lt(1),
})
export type Calibration = Readonly<z.output<typeof schema>>

/** The fit that ships with this version. */
export const CALIBRATION_FILE = join(PACKAGE_ROOT, 'calibration', 'gate.json')

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

/** Edits one turn's prompt takes; a question that truly needs more than these is a list, not a fact. */
export const TURN_EDITS = 4
/** Rules for every message that one turn's prompt takes. */
const ALWAYS_RULES = 8
/** An edit whose log-odds are more than this below those of the turn's best is `outranked`. */
const OUTRANKED_LOG_ODDS = 1.2
/** The nearest of ten thousand edits is nearer by chance than the nearest of a team's hundred: log(1 + (n - 100) / 1000), 0 up to 100. */
const CROWDED_EDITS = 1_000
const TEAM_EDITS = 100
/** Considered edits kept in the trace of a turn. */
const TRACED_CANDIDATES = 12

export function evidenceOf({ logit, name, earlier, among }: Candidate): Evidence {
  const whole = name?.kind === 'exact' || name?.kind === 'alias'
  const loosely = whole ? 0 : (name?.coverage ?? 0)
  const crowd = whole || earlier ? 0 : Math.log1p(Math.max(0, among - TEAM_EDITS) / CROWDED_EDITS)
  return {
    reader: logit ?? 0,
    named: whole ? 1 : 0,
    loosely,
    earlier: earlier ? 1 : 0,
    crowd,
    crowdLoosely: crowd * loosely,
  }
}

/** Probability that the turn needs the edit: logistic regression over the evidence; 0 where the reader was not asked. */
export function score(candidate: Candidate, { bias, weights }: Calibration): number {
  if (candidate.edit.always) return candidate.counter ? 0 : 1
  if (candidate.logit === null || candidate.otherNamed || candidate.boundless) return 0
  const evidence = evidenceOf(candidate)
  return 1 / (1 + Math.exp(-EVIDENCE.reduce((sum, name) => sum + weights[name] * evidence[name], bias)))
}

/** Which of a turn's candidates apply, best first, and why each of the others does not: the first check of `verdict` that it fails. Pure; does not know the arm. */
export function gate(candidates: readonly Candidate[], calibration: Calibration): Considered[] {
  const scored = candidates
    .map((candidate) => ({ candidate, score: score(candidate, calibration) }))
    .sort((a, b) => b.score - a.score || (b.candidate.similarity ?? -1) - (a.candidate.similarity ?? -1))
  const room = { always: ALWAYS_RULES, asked: TURN_EDITS }
  const best = Math.max(0, ...scored.filter(({ candidate }) => !candidate.edit.always).map(({ score }) => score))
  return scored.slice(0, TRACED_CANDIDATES + ALWAYS_RULES).map(({ candidate, score }) => {
    const reason = verdict(candidate, score, { threshold: calibration.threshold, best, room })
    return { ...shown(candidate), score, reason }
  })
}

/** What a candidate is compared with. */
interface Bounds {
  readonly threshold: number
  /** Score of the best candidate. */
  readonly best: number
  /** Places left in the turn's prompt; a selected edit takes one. */
  readonly room: { always: number; asked: number }
}

const logOdds = (p: number): number => Math.log(p / (1 - p))

function verdict(candidate: Candidate, score: number, { threshold, best, room }: Bounds): Reason {
  if (candidate.counter) return 'counterexample'
  if (candidate.logit === null && !candidate.edit.always) return 'not_read'
  if (candidate.otherNamed) return 'other_name'
  if (candidate.boundless) return 'boundless'
  if (score < threshold) return 'below_threshold'
  if (!candidate.edit.always && logOdds(best) - logOdds(score) > OUTRANKED_LOG_ODDS) return 'outranked'
  const kind = candidate.edit.always ? 'always' : 'asked'
  if (room[kind] === 0) return 'over_limit'
  room[kind]--
  return 'selected'
}

/** A candidate as the trace shows it, but for the verdict. */
export function shown(candidate: Candidate): Omit<Considered, 'score' | 'reason'> {
  const { edit, similarity, key, logit } = candidate
  const evidence = edit.always ? { always: 1 } : logit === null ? {} : { ...evidenceOf(candidate) }
  return { id: edit.id, subject: edit.subject, statement: statement(edit), similarity, key, evidence }
}
