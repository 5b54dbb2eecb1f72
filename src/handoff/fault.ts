import { PalimpsestError } from '../errors.ts'
import type { JobFault } from './job.ts'

/** A stop of the stages, with a code for programs and an advice for people. */
export class HandoffFault extends Error {
  readonly fault: JobFault

  constructor(code: string, message: string, change: string) {
    super(`${message} ${change}`)
    this.fault = { code, message, change }
  }
}

/** Why work on a job ends early: this gateway stops, somebody cancelled it, or another gateway took it up. */
export type StopReason = 'closing' | 'cancelled' | 'lost'

/** What a job's signal is aborted with. */
export class Stopped extends Error {
  readonly reason: StopReason

  constructor(reason: StopReason) {
    super(`the hand-off stops: ${reason}`)
    this.reason = reason
  }
}

/** null: the signal is not aborted. */
export function stopReason({ aborted, reason }: AbortSignal): StopReason | null {
  if (!aborted) return null
  return reason instanceof Stopped ? reason.reason : 'cancelled'
}

export function conflict(message: string): PalimpsestError {
  return new PalimpsestError('handoff_conflict', message, { param: 'id' })
}

export function notFound(id: string, tenant?: string): PalimpsestError {
  const where = tenant === undefined ? '' : ` in tenant '${tenant}'`
  return new PalimpsestError('handoff_not_found', `There is no hand-off '${id.slice(0, 64)}'${where}.`, { param: 'id' })
}
