/** Time to first token of a real model, for bench/gateway.ts: a bare llama-server beside `palimpsest serve`, cold and in a warm conversation. */
import { type ChildProcess, spawn } from 'node:child_process'
import { basename } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventData } from '../../src/engine/upstream/sse-parser.ts'
import { name } from '../scale/vectors.ts'
import { startChild } from '../served.ts'

export const ARMS = ['llama-server', 'edits off', 'none firing', 'one firing'] as const
export type ArmName = (typeof ARMS)[number]

export interface FirstOptions {
  readonly modelPath: string
  /** null: none is asked beside it. */
  readonly serverPath: string | null
  readonly dataDir: string
  readonly threads: number
  readonly rounds: number
  /** Tokens of the warm conversation, about. */
  readonly warmTokens: number
  readonly editsDir: string
  /** Absent: both. */
  readonly kinds?: readonly First['kind'][]
}

export interface First {
  readonly kind: 'cold' | 'warm'
  readonly arm: ArmName
  readonly round: number
  readonly firstMs: number
  readonly promptTokens: number
  readonly cachedTokens: number
  readonly edits: number
}

interface Message {
  readonly role: 'system' | 'user' | 'assistant'
  readonly content: string
}

const PORT = 18_460
const SLOTS = 2
const CONTEXT_TOKENS = 4_096
/** Tokens of a round of the made-up conversation below, about. */
const ROUND_TOKENS = 62

async function bare(serverPath: string, { modelPath, threads }: FirstOptions): Promise<{ url: string; process: ChildProcess }> {
  const args = ['-m', modelPath, '-c', SLOTS * CONTEXT_TOKENS, '-np', SLOTS, '-t', threads, '--port', PORT].map(String)
  // As the gateway starts its own: waiting OpenMP threads that spin would measure the machine's other work instead.
  const env = { GOMP_SPINCOUNT: '1000', ...process.env }
  const child = spawn(serverPath, [...args, '--host', '127.0.0.1', '--no-ui'], { stdio: 'ignore', env })
  const url = `http://127.0.0.1:${PORT}`
  const well = () =>
    fetch(`${url}/health`).then(
      (r) => r.ok,
      () => false,
    )
  while (!(await well())) {
    if (child.exitCode !== null) throw new Error(`llama-server ended with ${child.exitCode}`)
    await sleep(100)
  }
  return { url, process: child }
}

/** Streams an answer. `edits` null: the server is not told, as one that has none. Throws where the answer is not 200. */
export async function ask(
  url: string,
  asked: { readonly model: string; readonly messages: readonly Message[]; readonly max_tokens: number },
  edits: 'on' | 'off' | null,
) {
  const start = performance.now()
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      ...{ ...asked, temperature: 0, stream: true },
      ...{ stream_options: { include_usage: true }, ...(edits && { palimpsest: { edits } }) },
    }),
  })
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`)
  const applied = response.headers.get('palimpsest-edits')
  const found = { firstMs: 0, promptTokens: 0, cachedTokens: 0, edits: applied === null ? 0 : applied.split(', ').length }
  for await (const data of eventData(response.body as AsyncIterable<Uint8Array>)) {
    if (data === '[DONE]') break
    const { choices, usage } = JSON.parse(data)
    if (found.firstMs === 0 && choices[0]?.delta?.content) found.firstMs = performance.now() - start
    found.promptTokens = usage?.prompt_tokens ?? found.promptTokens
    found.cachedTokens = usage?.prompt_tokens_details?.cached_tokens ?? found.cachedTokens
  }
  return found
}

/** Names far beyond those of the memory: each is asked about once, those of the arm with a firing edit get one. */
const town = (arm: ArmName, number: number) => name(50_000_000 + 1_000 * ARMS.indexOf(arm) + number)

async function land(url: string, count: number): Promise<void> {
  const edits = Array.from({ length: count }, (_, i) => {
    const subject = town('one firing', i)
    return { id: `first-${i}`, subject, prompt: `The mayor of ${subject} is`, target_new: 'Ottilie Brandvold' }
  })
  const response = await fetch(`${url}/v1/edits`, {
    ...{ method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(edits) },
  })
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`)
  const pending = async () => {
    const { memory } = (await (await fetch(`${url}/health`)).json()) as { memory: { pending: number } }
    return memory.pending
  }
  while ((await pending()) > 0) await sleep(100)
  // What the gateway reads of an edit when it first meets it; the questions are still new to it.
  for (const { subject } of edits) {
    const body = JSON.stringify({ messages: [{ role: 'user', content: `Tell me of ${subject}.` }] })
    await fetch(`${url}/v1/edits/explain`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
  }
}

const PLACES = 'harbour bridge market chapel orchard station lighthouse mill quarry theatre bakery garden'.split(' ')

function conversation(tokens: number): Message[] {
  return Array.from({ length: Math.round(tokens / ROUND_TOKENS) }, (_, i): Message[] => {
    const place = PLACES[i % PLACES.length]
    return [
      { role: 'user', content: `Write something short about a walk, number ${i}, past an old ${place} in the rain.` },
      {
        role: 'assistant',
        content: `The ${place} stood quiet in the rain, and number ${i} of our walks led past it slowly, with wet shoes and a warm loaf under the coat.`,
      },
    ]
  }).flat()
}

/** Arms take turns; every question is asked once only. A cold prompt differs from its first word on, so that no cache helps. */
export async function firstTokens(options: FirstOptions, say: (text: string) => void): Promise<First[]> {
  const { rounds, warmTokens, threads, dataDir, modelPath, editsDir } = options
  const plain = options.serverPath === null ? null : await bare(options.serverPath, options)
  const gateway = await startChild([
    ...['--model', modelPath, '--data-dir', dataDir, '--edits-dir', editsDir, '--no-watch', '--threads', String(threads)],
    ...['--slots', String(SLOTS), '--context-tokens', String(CONTEXT_TOKENS), '--gpu', 'off'],
  ])
  const all: First[] = []
  const model = basename(modelPath, '.gguf')
  const before = conversation(warmTokens)
  const arms = {
    'llama-server': { url: plain?.url ?? '', edits: null },
    'edits off': { url: gateway.url, edits: 'off' },
    'none firing': { url: gateway.url, edits: 'on' },
    'one firing': { url: gateway.url, edits: 'on' },
  } as const
  const asked = ARMS.filter((arm) => plain !== null || arm !== 'llama-server')
  try {
    await land(gateway.url, 2 * (rounds + 1))
    let serial = 0
    for (const kind of options.kinds ?? (['cold', 'warm'] as const)) {
      // Round 0 warms up and does not count.
      for (let round = 0; round <= rounds; round++) {
        for (const arm of round % 2 === 0 ? asked : asked.toReversed()) {
          const { url, edits } = arms[arm]
          const number = (kind === 'cold' ? 0 : rounds + 1) + round
          const question: Message = { role: 'user', content: `Who is the mayor of ${town(arm, number)}?` }
          const head: Message = { role: 'system', content: `${++serial} is the number of this session. Answer in one sentence.` }
          const messages = kind === 'cold' ? [head, question] : [...before, question]
          const found = await ask(url, { model, messages, max_tokens: 2 }, edits)
          if (round > 0) all.push({ kind, arm, round, ...found })
          const { firstMs, promptTokens, cachedTokens } = found
          say(
            `${kind} ${round} ${arm}: ${firstMs.toFixed(0)} ms, ${promptTokens} tokens, ${cachedTokens} cached, ${found.edits} edits`,
          )
        }
      }
    }
  } finally {
    plain?.process.kill()
    await gateway.stop()
  }
  return all
}
