import type { JobFault } from './job.ts'

/** A stop of the stages, with a code for programs and an advice for people. */
export class HandoffFault extends Error {
  readonly fault: JobFault

  constructor(code: string, message: string, change: string) {
    super(`${message} ${change}`)
    this.fault = { code, message, change }
  }
}
