/** What bench/proxy.ts and bench/quick.ts have in common: a stub upstream, a load, and servers between them, each in a process of its own. */
import { type ChildProcess, fork, spawn } from 'node:child_process'
import { mkdirSync, openSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Done, Load } from '../gateway/load.ts'

export const EDITS = 100
const START_MS = 180_000

const children: ChildProcess[] = []
const nowhere = openSync('/dev/null', 'w')

/** Those that were started here. */
export function endChildren(): void {
  for (const child of children) child.kill()
}

export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const { port } = server.address() as { port: number }
  await new Promise((closed) => server.close(closed))
  return port
}

/** A server that is measured; without a process where the stub itself is asked. */
export interface Contender {
  readonly name: string
  readonly port: number
  readonly pid: number | null
  readonly headers: Readonly<Record<string, string>>
}

/** As users start it; what it says goes nowhere. Resolves when it answers a chat. */
export async function serve(
  scratch: string,
  name: string,
  port: number,
  command: string,
  args: readonly string[],
  headers: Readonly<Record<string, string>> = {},
): Promise<Contender> {
  const child = spawn(command, args, { cwd: scratch, stdio: ['ignore', nowhere, nowhere] })
  children.push(child)
  const body = chat('Hello', {})
  const until = performance.now() + START_MS
  for (;;) {
    const asked = { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body }
    const ok = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, asked).then(
      async (response) => (await response.text()) !== '' && response.ok,
      () => false,
    )
    if (ok) break
    if (child.exitCode !== null || performance.now() > until) throw new Error(`${name} does not serve`)
    await sleep(200)
  }
  return { name, port, pid: child.pid ?? null, headers }
}

export function palimpsest(scratch: string, upstream: string, port: number): Promise<Contender> {
  const edits = Array.from(
    { length: EDITS },
    (_, i) => `- prompt: "The mayor of Town${i} is"\n  subject: Town${i}\n  target_new: Person${i}\n`,
  )
  mkdirSync(join(scratch, 'edits'), { recursive: true })
  writeFileSync(join(scratch, 'edits', 'towns.yaml'), edits.join(''))
  const where = ['--no-build', '--data-dir', join(scratch, 'data'), '--edits-dir', join(scratch, 'edits')]
  const main = resolve('dist/main.js')
  return serve(scratch, 'palimpsest', port, process.execPath, [
    main,
    'serve',
    '--model',
    upstream,
    '--port',
    String(port),
    ...where,
  ])
}

/** About none of the edits: a number would be taken for a town's. */
export const QUESTIONS = (
  'harbour bridge market chapel orchard station lighthouse mill quarry theatre bakery garden ' +
  'tower barn school inn canal forge abbey pier'
)
  .split(' ')
  .map((place) => `Write one short sentence about rain in an old ${place}.`)
/** Each about one of the edits. */
export const FIRING = QUESTIONS.map((_, i) => `Who is the mayor of Town${i}?`)
export const chat = (content: string, more: object) =>
  JSON.stringify({
    model: 'stub',
    messages: [
      { role: 'system', content: 'You are a helpful assistant.' },
      { role: 'user', content },
    ],
    ...{ max_tokens: 64, temperature: 0, ...more },
  })
export const OFF = { palimpsest: { edits: 'off' } }

/** Of `bench/proxy/stub.ts`; resolves to its port. */
export async function startStub(): Promise<number> {
  const stub = fork(join(import.meta.dirname, 'stub.js'), { stdio: 'ignore' })
  children.push(stub)
  return new Promise<number>((ready) => stub.once('message', (value) => ready((value as { port: number }).port)))
}

export function startLoad(): ChildProcess {
  const load = fork(join(import.meta.dirname, '../gateway/load.js'), { stdio: 'ignore' })
  children.push(load)
  return load
}

export function told(child: ChildProcess, load: Load): Promise<Done> {
  return new Promise((done, failed) => {
    const lost = (code: number | null) => failed(new Error(`the load ended with ${code}`))
    child.once('exit', lost)
    child.once('message', (value) => {
      child.off('exit', lost)
      const { failed: said } = value as { failed?: unknown }
      if (typeof said === 'string') failed(new Error(said))
      else done(value as Done)
    })
    child.send(load)
  })
}
