import { join } from 'node:path'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import { afterAll, beforeAll, expect, test } from 'vitest'
import list from '../../../docs/project/openai-fields.json' with { type: 'json' }
import type { Prompt } from '../../../src/engine/engine.ts'
import type { Sampling } from '../../../src/request.ts'
import {
  CHAT_FIELDS,
  COMPLETION_FIELDS,
  type Decision,
  EMBEDDING_FIELDS,
  RESPONSE_FIELDS,
} from '../../../src/wire/openai/fields.ts'
import { MODEL, type Served, serve } from '../fakes.ts'

/**
 * Every request field of OpenAI's four endpoints, from the list in docs/project/openai-fields.json, is sent: it must change what the engine is asked
 * or what is answered (honoured), or be a label that changes nothing and is still read (accepted), or be refused with a 400 that names it.
 * Writes docs/project/conformance.md; `npx vitest run -u test/http/contract/conformance.test.ts` renews it.
 */
const PATIENCE_MS = 180_000

interface Probe {
  /** What asks for something: a value to honour, or one to refuse. */
  readonly value: unknown
  /** Sent besides, with and without the field. */
  readonly beside?: object
  /** Where an honoured field shows; absent: in what the engine is asked. */
  readonly shows?: 'reply' | 'calls'
  /** A value of the wrong kind; absent: 5. */
  readonly wrong?: unknown
  /** `value` is what would be done anyway. */
  readonly neutral?: true
  /** What is refused under this name, though the field is honoured. */
  readonly refused?: { readonly value: unknown; readonly param: string; readonly note: string }
}

const tool = { type: 'function', function: { name: 'f', parameters: { type: 'object' } } }
const ownTool = { type: 'function', name: 'f', parameters: { type: 'object' } }
const schema = { type: 'json_schema', name: 's', schema: { type: 'object' } }
const sampled: Record<string, Probe> = {
  frequency_penalty: { value: 0.5 },
  logit_bias: { value: { 7: -5 } },
  max_tokens: { value: 3 },
  model: { value: `${MODEL}@base`, shows: 'reply' },
  n: { value: 2, shows: 'calls' },
  presence_penalty: { value: 0.5 },
  seed: { value: 3 },
  stop: { value: 'END' },
  stream: { value: true, shows: 'reply' },
  stream_options: { value: { include_usage: true }, beside: { stream: true }, shows: 'reply' },
  temperature: { value: 0.7 },
  top_p: { value: 0.5 },
  user: { value: 'u' },
}

const CHAT: Record<string, Probe> = {
  ...sampled,
  audio: { value: { voice: 'alloy', format: 'wav' } },
  function_call: { value: 'auto' },
  functions: { value: [{ name: 'f' }] },
  logprobs: { value: true, shows: 'reply' },
  max_completion_tokens: { value: 3 },
  messages: { value: [{ role: 'user', content: 'other' }] },
  metadata: { value: { a: 'b' } },
  modalities: { value: ['audio'] },
  moderation: { value: { model: 'm' } },
  parallel_tool_calls: { value: false, beside: { tools: [tool] } },
  prediction: { value: { type: 'content', content: 'x' } },
  prompt_cache_key: { value: 'k' },
  prompt_cache_options: { value: { ttl: '30m' } },
  prompt_cache_retention: { value: '24h' },
  reasoning_effort: { value: 'high' },
  response_format: { value: { type: 'json_object' } },
  safety_identifier: { value: 's' },
  service_tier: { value: 'priority' },
  store: { value: true },
  tool_choice: { value: 'required', beside: { tools: [tool] } },
  tools: { value: [tool] },
  top_logprobs: { value: 2, beside: { logprobs: true } },
  verbosity: { value: 'high' },
  web_search_options: { value: {} },
}

const COMPLETION: Record<string, Probe> = {
  ...sampled,
  best_of: { value: 3, shows: 'calls' },
  echo: { value: true, shows: 'reply' },
  logprobs: { value: 2 },
  prompt: { value: 'other' },
  suffix: { value: 'x' },
}

const EMBEDDING: Record<string, Probe> = {
  dimensions: {
    value: 16,
    neutral: true,
    refused: { value: 8, param: 'dimensions', note: 'the embedder’s own number, others refused' },
  },
  encoding_format: { value: 'base64', shows: 'reply' },
  input: { value: 'other', shows: 'reply', refused: { value: [1, 2], param: 'input', note: 'texts; token ids refused' } },
  model: { value: 'fake', neutral: true, refused: { value: 'other', param: 'model', note: 'the embedder served' } },
  user: { value: 'u' },
}

const RESPONSE: Record<string, Probe> = {
  background: { value: true },
  context_management: { value: [{ type: 'compaction' }] },
  conversation: { value: 'conv_1' },
  include: { value: ['message.output_text.logprobs'] },
  input: { value: 'other' },
  instructions: { value: 'Be brief.' },
  max_output_tokens: { value: 3 },
  max_tool_calls: { value: 3, wrong: 'x' },
  metadata: { value: { a: 'b' } },
  model: { value: `${MODEL}@base`, shows: 'reply' },
  moderation: { value: { model: 'm' } },
  parallel_tool_calls: { value: false, beside: { tools: [ownTool] } },
  previous_response_id: { value: 'set below' },
  prompt: { value: { id: 'p' } },
  prompt_cache_key: { value: 'k' },
  prompt_cache_options: { value: { ttl: '30m' } },
  prompt_cache_retention: { value: '24h' },
  reasoning: {
    value: { effort: 'none', summary: 'auto' },
    neutral: true,
    refused: { value: { effort: 'high' }, param: 'reasoning.effort', note: 'none; effort refused' },
  },
  safety_identifier: { value: 's' },
  service_tier: { value: 'priority' },
  store: { value: false, shows: 'reply' },
  stream: { value: true, shows: 'reply' },
  stream_options: { value: { include_obfuscation: true }, beside: { stream: true }, shows: 'reply' },
  temperature: { value: 0.7 },
  text: { value: { format: schema } },
  tool_choice: { value: 'required', beside: { tools: [ownTool] } },
  tools: { value: [ownTool] },
  top_logprobs: { value: 2 },
  top_p: { value: 0.5 },
  truncation: { value: 'auto' },
  user: { value: 'u' },
}

interface Endpoint {
  readonly name: keyof typeof list.endpoints
  readonly decisions: Readonly<Record<string, Decision>>
  readonly probes: Readonly<Record<string, Probe>>
  readonly body: object
  /** Of the body, in the OpenAPI document. */
  readonly schema: string
}

const ENDPOINTS: readonly Endpoint[] = [
  {
    name: 'POST /v1/chat/completions',
    decisions: CHAT_FIELDS,
    probes: CHAT,
    body: { model: MODEL, messages: [{ role: 'user', content: 'x' }] },
    schema: 'ChatCompletionRequest',
  },
  {
    name: 'POST /v1/completions',
    decisions: COMPLETION_FIELDS,
    probes: COMPLETION,
    body: { model: MODEL, prompt: 'x' },
    schema: 'CompletionRequest',
  },
  {
    name: 'POST /v1/embeddings',
    decisions: EMBEDDING_FIELDS,
    probes: EMBEDDING,
    body: { model: 'fake', input: 'x' },
    schema: 'EmbeddingsRequest',
  },
  {
    name: 'POST /v1/responses',
    decisions: RESPONSE_FIELDS,
    probes: RESPONSE,
    body: { model: MODEL, input: 'x' },
    schema: 'ResponseRequest',
  },
]

let served: Served
let seen: unknown[] = []
/** What the OpenAPI document says of a body, by endpoint. */
const documented = new Map<string, ValidateFunction>()
const CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
beforeAll(async () => {
  const reply = (prompt: Prompt, sampling: Sampling) => {
    seen.push({ prompt, sampling })
    return prompt.tools === undefined ? 'An answer of some words' : `A word.\n${CALL}`
  }
  served = await serve({ script: { reply } })
  const { engine } = served.gateway
  const complete = engine.text?.complete
  if (engine.text === undefined || complete === undefined) throw new Error('the scripted engine completes texts')
  Object.assign(engine.text, {
    complete: (...asked: Parameters<typeof complete>) => {
      seen.push({ prompt: asked[0], sampling: asked[1] })
      return complete(...asked)
    },
  })
})
afterAll(() => served.close())

interface Document {
  readonly paths: Readonly<Record<string, unknown>>
  readonly components: { readonly schemas: Readonly<Record<string, { readonly properties: Readonly<Record<string, unknown>> }>> }
}
let document: Document
beforeAll(async () => {
  document = (await (await fetch(`${served.base}/openapi.json`)).json()) as Document
  const ajv = new Ajv2020({ strict: false, validateFormats: false })
  ajv.addSchema({ $id: 'gateway', ...document })
  for (const { name, schema } of ENDPOINTS) documented.set(name, ajv.compile({ $ref: `gateway#/components/schemas/${schema}` }))
})

interface Reply {
  readonly status: number
  // biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
  readonly json: any
  readonly text: string
  readonly asked: readonly unknown[]
}

/** Of every body sent, whether the document takes it as the gateway does. */
const verdicts = new Map<string, { agreeing: number; differing: string[] }>()

async function send({ name }: Pick<Endpoint, 'name'>, body: object): Promise<Reply> {
  seen = []
  const response = await fetch(served.base + name.replace('POST ', ''), {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  const text = await response.text()
  // A name that is not served is no fault of the body's.
  if (response.status !== 404) {
    const taken = documented.get(name)?.(body) ?? false
    const all = verdicts.get(name) ?? { agreeing: 0, differing: [] }
    if (taken === (response.status === 200)) all.agreeing++
    else all.differing.push(`${name} ${JSON.stringify(body)}: the gateway answers ${response.status}`)
    verdicts.set(name, all)
  }
  const json = response.headers.get('content-type')?.startsWith('application/json') ? JSON.parse(text) : undefined
  return { status: response.status, json, text, asked: seen }
}

/** A reply without what differs from one to the next, to be compared. */
function shown({ asked, text }: Reply, shows: Probe['shows']): string {
  if (shows === 'calls') return String(asked.length)
  const plain = (_: string, value: unknown) => (value instanceof Map ? [...value] : value)
  if (shows === undefined) return JSON.stringify(asked, plain)
  return text.replace(/(chatcmpl|cmpl|resp|msg)[-_][0-9a-f]+|"c\w+(_at)?":\d+|"obfuscation":"[^"]*"|"cached_tokens":\d+/g, '$1')
}

function differs(from: Reply, to: Reply, shows: Probe['shows']): boolean {
  const obfuscated = (text: string) => text.includes('"obfuscation"')
  return shown(from, shows) !== shown(to, shows) || obfuscated(from.text) !== obfuscated(to.text)
}

/** '' where the field is treated as decided; else what is wrong. */
async function fault(endpoint: Endpoint, field: string, decision: Decision, probe: Probe): Promise<string> {
  const base = { ...endpoint.body, ...probe.beside }
  const without = await send(endpoint, base)
  const refused = async (value: unknown, param: string, codes: readonly string[]) => {
    const { status, json } = await send(endpoint, { ...base, [field]: value })
    const right = [400, 404].includes(status) && json?.error?.param === param && codes.includes(json.error.code)
    return right ? '' : `${JSON.stringify(value)} is not refused by name: ${status} ${JSON.stringify(json?.error)}`
  }
  const value = field === 'previous_response_id' ? without.json.id : probe.value
  const same = async (neutral: unknown) => {
    const reply = await send(endpoint, { ...base, [field]: neutral })
    return reply.status === 200 && !differs(without, reply, undefined) ? '' : `${JSON.stringify(neutral)} changes the answer`
  }
  if (typeof decision === 'object') {
    for (const neutral of decision.only) {
      const wrong = await same(neutral)
      if (wrong !== '') return wrong
    }
    return refused(value, field, ['unsupported_field'])
  }
  if (decision === 'accepted') return (await same(value)) || refused(probe.wrong ?? 5, field, ['invalid_value'])
  if (probe.refused !== undefined) {
    const wrong = await refused(probe.refused.value, probe.refused.param, ['unsupported_field', 'model_not_found'])
    if (wrong !== '') return wrong
    if (probe.neutral) return same(value)
  }
  const reply = await send(endpoint, { ...base, [field]: value })
  if (reply.status !== 200) return `refused: ${reply.text.slice(0, 200)}`
  return differs(without, reply, probe.shows) ? '' : 'changes nothing: it is ignored'
}

/** Whether `path` ("choices[].message.role") is there, in every entry of every array on the way. */
function has(value: unknown, path: string): boolean {
  const [step = '', ...rest] = path.split('.')
  const name = step.replace('[]', '')
  if (typeof value !== 'object' || value === null || !(name in value)) return false
  const next = (value as Record<string, unknown>)[name]
  if (rest.length === 0) return true
  return step.endsWith('[]')
    ? Array.isArray(next) && next.length > 0 && next.every((one) => has(one, rest.join('.')))
    : has(next, rest.join('.'))
}

/** Required fields of responses and of stream events that are missing. */
async function missing(endpoint: Endpoint): Promise<{ missing: string[]; total: number }> {
  const { response, stream } = list.endpoints[endpoint.name]
  const { json } = await send(endpoint, endpoint.body)
  const absent = response.filter((path) => !has(json, path)).map((path) => `response: ${path}`)
  const wanted = Object.entries(stream as Record<string, readonly string[]>)
  if (wanted.length > 0) {
    const beside = endpoint.name === 'POST /v1/responses' ? { tools: [ownTool] } : {}
    const { text } = await send(endpoint, { ...endpoint.body, ...beside, stream: true })
    const events = text
      .split('\n')
      .flatMap((line) => (line.startsWith('data: {') ? [JSON.parse(line.slice('data: '.length))] : []))
    for (const [kind, paths] of wanted) {
      const of = events.filter(({ type, object }) => (type ?? object) === kind)
      absent.push(
        ...paths.filter((path) => of.length === 0 || !of.every((event) => has(event, path))).map((path) => `${kind}: ${path}`),
      )
    }
  }
  return { missing: absent, total: response.length + wanted.reduce((sum, [, paths]) => sum + paths.length, 0) }
}

test(
  'every field of OpenAI’s specification is honoured or refused by name, and every required field is answered',
  async () => {
    const faults: string[] = []
    const scores: string[] = []
    const tables: string[] = []
    for (const endpoint of ENDPOINTS) {
      const { name, decisions, probes } = endpoint
      const { request } = list.endpoints[name]
      expect(Object.keys(decisions).sort()).toEqual(request)
      expect(Object.keys(probes).sort()).toEqual(request)
      const counts = { honoured: 0, accepted: 0, refused: 0, faulty: 0 }
      const rows: string[] = []
      for (const field of request) {
        const [decision, probe] = [decisions[field], probes[field]]
        if (decision === undefined || probe === undefined) throw new Error(field)
        const wrong = await fault(endpoint, field, decision, probe)
        if (wrong !== '') faults.push(`${name} ${field}: ${wrong}`)
        counts[wrong !== '' ? 'faulty' : typeof decision === 'object' ? 'refused' : decision]++
        rows.push(`| \`${field}\` | ${said(decision, probe)} |`)
      }
      const answered = await missing(endpoint)
      faults.push(...answered.missing.map((one) => `${name} lacks ${one}`))
      const properties = Object.keys(document.components.schemas[endpoint.schema]?.properties ?? {})
      const named = request.filter((field) => properties.includes(field)).length
      const { agreeing, differing } = verdicts.get(name) ?? { agreeing: 0, differing: [] }
      faults.push(...differing)
      const { honoured, accepted, refused, faulty } = counts
      const score = `${(((request.length - faulty) / request.length) * 100).toFixed(1)} %`
      const there = answered.total - answered.missing.length
      scores.push(
        `| \`${name.replace('POST ', '')}\` | ${request.length} | ${honoured} | ${accepted} | ${refused} | ${faulty} | ${score} | ${there} of ${answered.total} | ${named} of ${request.length} | ${agreeing} of ${agreeing + differing.length} |`,
      )
      tables.push(`## ${name}\n\n| field | |\n|---|---|\n${rows.join('\n')}\n`)
    }
    const table = `| POST | fields | honoured | labels | refused | ignored | score | reply | documented | verdicts |\n|---|---|---|---|---|---|---|---|---|---|\n${scores.join('\n')}\n`
    console.log(table)
    expect(faults).toEqual([])
    await expect(page(table, tables)).toMatchFileSnapshot(join(import.meta.dirname, '../../../docs/project/conformance.md'))
  },
  PATIENCE_MS,
)

function said(decision: Decision, { refused }: Probe): string {
  if (typeof decision === 'object') {
    const values = decision.only.map((value) => `\`${JSON.stringify(value)}\``).join(', ')
    return values === '' ? 'refused' : `refused, but for ${values}`
  }
  const what = decision === 'accepted' ? 'label: read, asks nothing of the answer' : 'honoured'
  return refused === undefined ? what : `${what}: ${refused.note}`
}

function page(table: string, tables: readonly string[]): string {
  return `# Conformance to OpenAI's specification

Written by \`test/http/contract/conformance.test.ts\`, which sends every field; do not edit. The fields are those of ${list.specification}, listed by
hand in \`openai-fields.json\`; the decisions are those of \`src/wire/openai/fields.ts\`. *Honoured*: with it, the engine is asked something else or the
reply differs. *Label*: it changes no answer at OpenAI either; a value of the wrong kind is refused. *Refused by name*: a 400 whose \`param\` names
it. \`null\` counts as absent. *Reply*: required fields of the reply that are there.

Our OpenAPI document (\`GET /openapi.json\`, [reference](../reference/http.md)) names every field (*documented*).
*Verdicts*: every body that this test sends is checked against the document.
The document must take what the gateway takes, and refuse what it refuses with a 400.

${table}
${tables.join('\n')}`
}
