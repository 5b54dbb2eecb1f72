/** Readers of bytes that somebody else made, and beginnings for a fuzzer. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { ParseError } from 'eventsource-parser'
import { createSnapshot, restoreSnapshot } from '../../src/backup/snapshot.ts'
import { parseBatch } from '../../src/edit/batch.ts'
import { headerIn } from '../../src/engine/gguf/header.ts'
import { AnswerStream } from '../../src/engine/output/answer-stream.ts'
import { openUpstream } from '../../src/engine/upstream/engine.ts'
import { eventData } from '../../src/engine/upstream/sse-parser.ts'
import { CallPlaces, chunkOf, refusal, unstreamed } from '../../src/engine/upstream/wire.ts'
import { PalimpsestError } from '../../src/errors.ts'
import { openMemory } from '../../src/memory/store.ts'
import { Trace } from '../../src/trace.ts'
import { MODEL, serve } from '../http/fakes.ts'
import { send } from '../http/hostile/malformed.ts'
import { loraBytes } from '../support/lora-file.ts'
import { fakeEmbedder } from '../support/memory-data.ts'
import type { Dice } from './mutations.ts'

/** Takes bytes; throws what it must not. `share`: of all cases. */
export interface Target {
  readonly name: string
  readonly share: number
  readonly seeds: readonly Buffer[]
  readonly most: number
  readonly run: (bytes: Buffer, dice: Dice) => unknown
  readonly close?: () => Promise<void>
}

const texts = (...all: string[]) => all.map((text) => Buffer.from(text))

/** What a reader may throw: a refusal of ours, for which the client is to blame, or whom we asked. */
function refusalOnly(work: () => unknown, others: (error: unknown) => boolean = () => false): void {
  try {
    work()
  } catch (error) {
    if (!isRefusal(error) && !others(error)) throw error
  }
}

const isRefusal = (error: unknown) => error instanceof PalimpsestError && (error.status < 500 || error.code === 'upstream_failed')

const gguf: Target = {
  name: 'GGUF',
  share: 20,
  most: 8_192,
  seeds: [
    loraBytes({ weights: { 'blk.0.ffn_down.weight': [8, 4] }, architecture: 'qwen2', rank: 2, seed: 1, strength: 1 }),
    loraBytes({
      weights: { 'a.weight': [4, 4] },
      architecture: 'llama',
      rank: 1,
      seed: 2,
      strength: 1,
      extra: [['tokenizer.ggml.tokens', { type: 'strings', value: ['a', 'b'] }]],
    }),
  ],
  // It says what is wrong in an Error of its own; any other kind is a slip.
  run: (bytes) =>
    refusalOnly(
      () => headerIn(bytes, bytes.length),
      (error) => error instanceof Error && error.constructor === Error,
    ),
}

const EVENTS = texts(
  'data: {"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}\n\ndata: [DONE]\n\n',
  'event: error\ndata: {"error":{"message":"no"}}\n\n: comment\n\ndata:a\ndata: b\r\n\r\nid: 1\nretry: 5\n\n',
  'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n',
)

function cut(bytes: Buffer, dice: Dice): Buffer[] {
  const parts: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const to = at + 1 + dice.below(40)
    parts.push(bytes.subarray(at, to))
    at = to
  }
  return parts
}

const sse: Target = {
  name: 'event streams',
  share: 10,
  most: 4_096,
  seeds: EVENTS,
  run: async (bytes, dice) => {
    try {
      for await (const data of eventData(Readable.from(cut(bytes, dice))))
        if (typeof data !== 'string') throw new Error('no text')
    } catch (error) {
      if (!(error instanceof ParseError)) throw error
    }
  },
}

const upstreamPieces: Target = {
  name: 'pieces of upstream answers',
  share: 20,
  most: 4_096,
  seeds: texts(
    ...EVENTS.map((event) => event.toString().split('data: ')[1] ?? ''),
    '{"object":"error","message":"x","code":400}',
    '{"choices":[{"logprobs":{"content":[{"token":"a","logprob":-1,"bytes":[97],"top_logprobs":[]}]},"delta":{}}]}',
  ),
  run: (bytes) => {
    const text = bytes.toString()
    refusal(500, text, text, 'http://x', 0)
    refusal(400, text, text, 'http://x', 0)
    unstreamed(text, 'http://x')
    refusalOnly(() => {
      const chunk = chunkOf(text, 'http://x')
      const places = new CallPlaces('http://x')
      for (const call of chunk?.calls ?? []) {
        const { index } = places.place(call)
        if (!Number.isSafeInteger(index) || index < 0 || index >= 128) throw new Error(`a call at ${index}`)
      }
      for (const count of Object.values(chunk?.usage ?? {}))
        if (!Number.isSafeInteger(count) || count < 0) throw new Error(`a usage of ${count}`)
    })
  },
}

const answers: Target = {
  name: 'answers of a model',
  share: 10,
  most: 2_048,
  seeds: texts(
    'Hello <tool_call>\n{"name": "f", "arguments": {"a": [1, "}"]}}\n</tool_call> and so on',
    '```json\n{"name": "f", "arguments": {}}\n```',
    '{"name": "f", "arguments": "x"}',
  ),
  run: (bytes, dice) => {
    const whole = (parts: readonly Buffer[]) => {
      const stream = new AnswerStream({ stops: ['END'], tools: ['f'] })
      const pieces = [...parts.map((part) => stream.push(part)), stream.end()]
      return pieces.map((piece) => piece?.text ?? '').join('')
    }
    whole(cut(bytes, dice))
    whole([bytes])
  },
}

const BATCHES: readonly (readonly [type: string, ...seeds: string[]])[] = [
  [
    'application/json',
    '[{"subject":"A","prompt":"A is","target_new":"B","aliases":["C"]}]',
    '{"edits":["A sentence."],"tags":["x"]}',
    '{"requested_rewrite":{"prompt":"{} is","subject":"A","target_new":{"str":"B"},"target_true":{"str":"C"}}}',
  ],
  ['application/x-ndjson', '{"subject":"A","prompt":"A is","target_new":"B"}\n{"text":"It rains."}\n'],
  [
    'application/yaml',
    '- subject: A\n  prompt: "A is"\n  target_new: B\n  aliases: [C, D]\n- when: asked\n  instruction: >\n    say\n    so\n',
    'edits: &x\n  - {text: a}\ntags: [b]\n',
    '? a\n: b\n',
  ],
  ['text/csv', 'subject,prompt,target_new\nA,A is,"B, ""C"""\n', 'subject;prompt;target_new;aliases\nA;A is;B;C|D\n'],
  ['text/plain', '# comment\nIt rains.\n\nThe fee is 5.\n'],
  ['', 'subject: A\nprompt: A is\ntarget_new: B\n'],
]

const batches = BATCHES.map(
  ([contentType, ...seeds]): Target => ({
    name: `batches of ${contentType || 'no type'}`,
    share: 5,
    most: 4_096,
    seeds: texts(...seeds),
    run: (bytes) => refusalOnly(() => parseBatch(bytes, { tenant: 'default', ...(contentType !== '' && { contentType }) })),
  }),
)

/** A snapshot as a file, changed: it is restored whole, or refused, and then nothing has changed. */
async function tar(): Promise<Target> {
  const root = mkdtempSync(join(tmpdir(), 'palimpsest-fuzz-'))
  const [dataDir, file] = [join(root, 'data'), join(root, 'snapshot.tar')]
  const log = { info: () => {}, warn: () => {}, error: () => {} }
  const memory = await openMemory({ dataDir, embedder: fakeEmbedder(), now: Date.now, log })
  await memory.close()
  await createSnapshot({ dataDir, to: file, configuration: {}, reason: 'fuzz', palimpsest: '1', now: Date.now })
  const bytes = readFileSync(file)
  return {
    name: 'snapshots as tar',
    share: 0.05,
    most: bytes.length + 4_096,
    seeds: [bytes],
    run: async (changed) => {
      writeFileSync(file, changed)
      await restoreSnapshot(file, dataDir, Date.now).catch((error: unknown) => {
        if (!(error instanceof PalimpsestError)) throw error
      })
    },
    close: async () => rmSync(root, { recursive: true, force: true }),
  }
}

/** What an upstream server sends, over a socket. */
async function upstream(): Promise<Target> {
  let said: Buffer = Buffer.alloc(0)
  const server = createServer((_req, res) => {
    // The first byte says how it answers.
    const [way = 0] = said
    res.writeHead([200, 200, 200, 400, 429, 500][way % 6] ?? 200, {
      'content-type': way % 2 === 0 ? 'text/event-stream' : 'application/json',
    })
    res.end(said)
  }).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    name: 'answers of upstream servers',
    share: 0.5,
    most: 4_096,
    seeds: [...EVENTS, ...texts('{"error":{"message":"no","code":"context_length_exceeded"}}')],
    run: async (bytes) => {
      said = bytes
      const engine = await openUpstream({ servers: [{ url, model: 'm', apiKey: 'sk-0123456789abcdef' }], healthMs: 0, tries: 1 })
      const sampling = { temperature: 0, topP: 1, stop: ['END'] }
      const prompt = { messages: [{ role: 'user' as const, content: 'Hello' }] }
      try {
        for await (const piece of engine.generate(prompt, sampling, new Trace('t', () => 0), AbortSignal.timeout(10_000)))
          if (typeof piece.text !== 'string') throw new Error('no text')
      } catch (error) {
        if (!(error instanceof PalimpsestError)) throw error
        if (error.message.includes('sk-0123456789abcdef')) throw new Error('the key was told', { cause: error })
      } finally {
        await engine.close(0)
      }
    },
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

const ROUTES = [
  ...[
    '/v1/chat/completions',
    '/v1/responses',
    '/v1/completions',
    '/v1/embeddings',
    '/v1/edits',
    '/v1/edits?dry_run=1',
    '/v1/edits/explain',
  ],
  ...[
    '/v1/edits/search',
    '/v1/compare',
    '/tokenize',
    '/detokenize',
    '/v1/feedback',
    '/v1/adapters',
    '/v1/experiments',
    '/v1/rollouts',
  ],
]
const TYPES = [
  'application/json',
  'application/x-ndjson',
  'application/yaml',
  'text/csv',
  'text/plain',
  'multipart/form-data; boundary=x',
  'application/octet-stream',
]

/** The whole gateway, over a socket. */
async function http(): Promise<Target> {
  const served = await serve()
  return {
    name: 'the gateway over HTTP',
    share: 1,
    most: 4_096,
    seeds: texts(
      `{"model":"${MODEL}","messages":[{"role":"user","content":"Hello"}],"stream":true,"tools":[{"type":"function","function":{"name":"f"}}]}`,
      `{"model":"${MODEL}","input":[{"type":"message","role":"user","content":"Hello"}],"text":{"format":{"type":"json_object"}}}`,
      `{"model":"${MODEL}","prompt":["a","b"],"echo":true,"logprobs":1,"max_tokens":2}`,
      '{"question":"Hello","tags":["x"],"as_of":"2026-01-01"}',
      '--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\nContent-Type: text/csv\r\n\r\nsubject,prompt,target_new\r\nA,A is,B\r\n--x--\r\n',
      ...BATCHES.flatMap(([, ...seeds]) => seeds),
    ),
    run: async (bytes, dice) => {
      const headers = [['Content-Type', dice.of(TYPES)]] as const
      const path = dice.of(ROUTES)
      const { status, text } = await send(served.base, { method: 'POST', path, headers, body: bytes })
      if (status >= 500) throw new Error(`${path} as ${headers[0][1]}: ${status} ${text.slice(0, 300)}`)
      if (status >= 400 && typeof JSON.parse(text).error?.code !== 'string') throw new Error(`${path}: ${text.slice(0, 300)}`)
    },
    close: () => served.close(),
  }
}

export async function byteTargets(): Promise<Target[]> {
  return [gguf, sse, upstreamPieces, answers, ...batches, await upstream(), await tar(), await http()]
}
