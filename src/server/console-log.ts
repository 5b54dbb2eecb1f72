import { type DestinationStream, type Logger, pino } from 'pino'
import { withoutKeyShapes } from '../access/key.ts'
import { printable } from '../terminal/table.ts'

/** Logs to stderr: lines of JSON for a collector, or plain sentences for a person at a terminal. `secrets` appear in none of them. */
export function openLog(level: string, secrets: readonly (string | undefined)[] = []): Logger {
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, withoutKeys(output(), secrets))
}

function output(): DestinationStream {
  return process.stderr.isTTY ? sentences : pino.destination(2)
}

/**
 * `to`, with known secrets and whatever looks like a key struck out. An error of a library's may quote a header, one of a server's a key.
 * Secrets may be added later.
 */
export function withoutKeys(to: DestinationStream, secrets: readonly (string | undefined)[]): DestinationStream {
  return {
    write: (line) => {
      // As they look in a line of JSON.
      const known = secrets.flatMap((secret) => (secret ? [JSON.stringify(secret).slice(1, -1)] : []))
      const cleaned = known.reduce((text, secret) => text.replaceAll(secret, '[key]'), line)
      to.write(withoutKeyShapes(cleaned))
    },
  }
}

interface Line {
  readonly level: number
  readonly msg?: string
  readonly err?: { readonly message?: string }
}

const sentences: DestinationStream = {
  write: (line) => {
    process.stderr.write(`${sentence(line)}\n`)
  },
}

/** A line of the log for a terminal: one line, lest a text that somebody sent pass for another. */
export function sentence(line: string): string {
  const { level, msg = '', err } = JSON.parse(line) as Line
  const said = `${pino.levels.labels[level] ?? level}: ${msg}${err?.message ? `: ${err.message}` : ''}`
  return printable(said).replace(/\s*\n\s*/g, ' ⏎ ')
}
