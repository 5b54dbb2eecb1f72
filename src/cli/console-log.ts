import { type DestinationStream, type Logger, pino } from 'pino'
import { printable } from './table.ts'

/** Logs to stderr: lines of JSON for a collector, or plain sentences for a person at a terminal. */
export function openLog(level: string): Logger {
  return pino(
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime },
    process.stderr.isTTY ? sentences : pino.destination(2),
  )
}

interface Line {
  readonly level: number
  readonly msg?: string
  readonly err?: { readonly message?: string }
}

const sentences: DestinationStream = {
  write: (line) => {
    const { level, msg = '', err } = JSON.parse(line) as Line
    process.stderr.write(
      `${printable(`${pino.levels.labels[level] ?? level}: ${msg}${err?.message ? `: ${err.message}` : ''}`)}\n`,
    )
  },
}
