/** A real `palimpsest serve` as a child process, for benches that kill it, fill it and watch it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

export interface Child {
  readonly url: string
  readonly process: ChildProcess
  /** Milliseconds from its start to the printed URL. */
  readonly readyMs: number
  /** Resident memory, bytes (Linux). */
  rss(): number
  /** SIGKILL, and the end waited for. */
  kill(): Promise<void>
  /** SIGTERM, and the end waited for. */
  stop(): Promise<void>
}

/** Starts `dist/main.js serve` on a free port; resolves once it has printed its URL. Throws with what it said when it ends before. */
export function startChild(flags: readonly string[]): Promise<Child> {
  return startProgram(['dist/main.js', 'serve', '--no-build', '--port', '0', '--log-level', 'error', ...flags])
}

/** Starts any script that prints the URL of a gateway as `serve` does. */
export async function startProgram(script: readonly string[]): Promise<Child> {
  const start = performance.now()
  const child = spawn(process.execPath, script, { stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const end = (signal: NodeJS.Signals) => {
    child.kill(signal)
    return ended
  }
  for await (const line of createInterface({ input: child.stdout })) {
    const url = / URL\s+(http:\/\/\S+)\/v1/.exec(line)?.[1]
    if (url === undefined) continue
    child.stdout.resume()
    return {
      url,
      process: child,
      readyMs: performance.now() - start,
      rss: () => 1024 * Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1] ?? 0),
      kill: () => end('SIGKILL'),
      stop: () => end('SIGTERM'),
    }
  }
  await ended
  throw new Error(`the server ended before it served: ${said.slice(-2_000)}`)
}
