/**
 * Base | prompt edits | adapters of the parameter editor, side by side, each served by a running gateway over the quantised base: teacher-forced
 * scores of CounterFact records, chat answers with the target, answers that stay, MMLU, fluency, prompt tokens, first token, adapter size,
 * seconds to load and to roll back; and the same chats once it is promoted, behind the gate. Every arm is asked one request after the other, so
 * that all have the same batches.
 *
 *     npm run bench:handoff -- --base MODEL.gguf --data COUNTERFACT.json --adapters memit=FILE.gguf,lora=FILE.gguf --mmlu FILE --unrelated FILE --out FILE.json
 */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { FLUENCY_SAMPLING, fluency } from '../src/evaluate/metrics/entropy.ts'
import { clientOf, median } from './client.ts'

const { values: flags } = parseArgs({
  options: {
    url: { type: 'string', default: 'http://127.0.0.1:8080' },
    base: { type: 'string', default: '' },
    data: { type: 'string', default: '' },
    first: { type: 'string', default: '250' },
    count: { type: 'string', default: '50' },
    adapters: { type: 'string', default: '' },
    mmlu: { type: 'string', default: '' },
    unrelated: { type: 'string', default: '' },
    out: { type: 'string', default: 'bench/results/handoff.json' },
  },
})
const NEIGHBOURS = 4
/** Edits that are asked about in chats, with a paraphrase and a neighbour each. */
const CHATS = 25
const QUESTIONS = 30
const MMLU = 200
const TEXTS = 20
const TOKENS = 16
const BATCH = 'handoff-bench'

interface Record_ {
  readonly case_id: number
  readonly requested_rewrite: { prompt: string; subject: string; target_new: { str: string }; target_true: { str: string } }
  readonly paraphrase_prompts: readonly string[]
  readonly neighborhood_prompts: readonly string[]
  readonly generation_prompts: readonly string[]
}

const call = clientOf(flags.url)
const lines = (path: string, many: number) =>
  readFileSync(path, 'utf8')
    .split('\n')
    .slice(0, many)
    .map((line) => JSON.parse(line))
const seconds = async (work: () => Promise<unknown>) => {
  const start = performance.now()
  await work()
  return Math.round(performance.now() - start) / 1_000
}
const percent = (hits: number, of: number) => Math.round((1_000 * hits) / of) / 10

const bySubject = new Map<string, Record_>()
for (const record of (JSON.parse(readFileSync(flags.data, 'utf8')) as Record_[]).slice(Number(flags.first))) {
  const subject = record.requested_rewrite.subject.toLowerCase()
  if (!bySubject.has(subject)) bySubject.set(subject, record)
}
const records = [...bySubject.values()].slice(0, Number(flags.count))
const edits = records.map(({ case_id, requested_rewrite: { prompt, subject, target_new } }) => ({
  ...{ id: `cf-${case_id}`, subject, prompt: prompt.replace('{}', subject), target_new: target_new.str },
}))
const chatted = edits.slice(0, CHATS)
const subjects = edits.map(({ subject }) => subject.toLowerCase())
const near = records
  .slice(0, CHATS)
  .map((record) => record.neighborhood_prompts[4] ?? '')
  .filter((text) => !subjects.some((s) => text.toLowerCase().includes(s)))
const unrelated = lines(flags.unrelated, QUESTIONS).map(({ question }) => question as string)
const mmlu = lines(flags.mmlu, MMLU) as { question: string; choices: string[]; answer: string }[]

/** Mean log-probability a token of `target` after `prompt`, by an echoed completion. */
async function likelihood(model: string, prompt: string, target: string): Promise<number> {
  const { choices } = await call<{ choices: { logprobs: { text_offset: number[]; token_logprobs: (number | null)[] } }[] }>(
    'POST',
    '/v1/completions',
    { model, prompt: `${prompt.trimEnd()} ${target.trim()}`, max_tokens: 0, echo: true, logprobs: 1 },
  )
  const { text_offset, token_logprobs } = choices[0]?.logprobs ?? { text_offset: [], token_logprobs: [] }
  const of = token_logprobs.filter((_, i) => (text_offset[i] ?? 0) >= prompt.trimEnd().length).map((value) => value ?? 0)
  return of.reduce((sum, value) => sum + value, 0) / of.length
}

interface Answer {
  readonly choices: { message: { content: string } }[]
  readonly usage: { prompt_tokens: number }
}
const ask = (model: string, content: string) =>
  call<Answer>('POST', '/v1/chat/completions', {
    model,
    temperature: 0,
    max_tokens: TOKENS,
    messages: [{ role: 'user', content }],
  })
const said = async (model: string, content: string) => (await ask(model, content)).choices[0]?.message.content ?? ''

async function firstToken(model: string, content: string): Promise<number> {
  const start = performance.now()
  const body = { model, stream: true, max_tokens: 2, messages: [{ role: 'user', content }] }
  const response = await fetch(`${flags.url}/v1/chat/completions`, {
    ...{ method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) },
  })
  let at = Number.NaN
  for await (const piece of response.body ?? [])
    if (Number.isNaN(at) && Buffer.from(piece).includes('"content":"') && !Buffer.from(piece).includes('"content":""'))
      at = performance.now() - start
  return at
}

/** Teacher-forced success, per cent, by kind of probe. */
async function forced(model: string): Promise<Record<string, number>> {
  const success = { efficacy: { hits: 0, of: 0 }, paraphrase: { hits: 0, of: 0 }, neighbourhood: { hits: 0, of: 0 } }
  for (const [i, { requested_rewrite: of, paraphrase_prompts, neighborhood_prompts }] of records.entries())
    for (const [kind, prompts] of [
      ['efficacy', [edits[i]?.prompt ?? '']],
      ['paraphrase', paraphrase_prompts],
      ['neighbourhood', neighborhood_prompts.slice(0, NEIGHBOURS)],
    ] as const)
      for (const prompt of prompts) {
        const [next, before] = [
          await likelihood(model, prompt, of.target_new.str),
          await likelihood(model, prompt, of.target_true.str),
        ]
        success[kind].hits += (kind === 'neighbourhood' ? before > next : next > before) ? 1 : 0
        success[kind].of++
      }
  return Object.fromEntries(Object.entries(success).map(([kind, { hits, of }]) => [kind, percent(hits, of)]))
}

interface Said {
  readonly near: string[]
  readonly unrelated: string[]
}

/** What is said in a chat: the targets, and what is to stay as the base says it. */
async function chats(model: string, base: Said | null) {
  const shown = { prompt: 0, paraphrase: 0 }
  let tokens = 0
  for (const [i, { target_new, prompt }] of chatted.entries()) {
    const answer = await ask(model, prompt)
    tokens += answer.usage.prompt_tokens
    shown.prompt += answer.choices[0]?.message.content.toLowerCase().includes(target_new.toLowerCase()) ? 1 : 0
    const other = await said(model, records[i]?.paraphrase_prompts[0] ?? '')
    shown.paraphrase += other.toLowerCase().includes(target_new.toLowerCase()) ? 1 : 0
  }
  const answers = { near: [] as string[], unrelated: [] as string[] }
  for (const text of near) answers.near.push(await said(model, text))
  for (const text of unrelated) answers.unrelated.push(await said(model, text))
  const kept = (kind: 'near' | 'unrelated') => answers[kind].filter((text, i) => text === (base ?? answers)[kind][i]).length
  const first: number[] = []
  for (const { prompt } of edits.slice(0, 10)) first.push(await firstToken(model, `${prompt}?`))
  return {
    answers,
    row: {
      chat_prompt: percent(shown.prompt, chatted.length),
      chat_paraphrase: percent(shown.paraphrase, chatted.length),
      unchanged_near: percent(kept('near'), near.length),
      unchanged_unrelated: percent(kept('unrelated'), unrelated.length),
      prompt_tokens: Math.round((10 * tokens) / chatted.length) / 10,
      first_token_ms: Math.round(median(first)),
    },
  }
}

/** MMLU without examples, by the likeliest letter after "Answer:", and the n-gram entropy of continuations. */
async function ability(model: string) {
  let right = 0
  for (const { question, choices, answer } of mmlu) {
    const listed = choices.map((choice, i) => `${'ABCD'[i]}. ${choice}`).join('\n')
    const { choices: made } = await call<{ choices: { logprobs: { top_logprobs: Record<string, number>[] } }[] }>(
      'POST',
      '/v1/completions',
      { model, prompt: `${question}\n${listed}\nAnswer:`, max_tokens: 1, temperature: 0, logprobs: 5 },
    )
    const letters = Object.entries(made[0]?.logprobs.top_logprobs[0] ?? {})
      .filter(([token]) => /^ ?[ABCD]$/.test(token))
      .sort((a, b) => b[1] - a[1])
    right += letters[0]?.[0].trim() === answer ? 1 : 0
  }
  const texts: number[] = []
  for (const { generation_prompts } of records.slice(0, TEXTS)) {
    const prompt = generation_prompts[0] ?? ''
    const { choices } = await call<{ choices: { text: string }[] }>('POST', '/v1/completions', {
      model,
      prompt,
      max_tokens: 80,
      temperature: FLUENCY_SAMPLING.temperature,
      top_k: FLUENCY_SAMPLING.topK,
      seed: 0,
    })
    texts.push(fluency(choices[0]?.text ?? ''))
  }
  return {
    mmlu: percent(right, mmlu.length),
    fluency: Math.round(10 * (texts.reduce((a, b) => a + b, 0) / texts.length)) / 10,
  }
}

async function measure(model: string, base: Said | null) {
  const { answers, row } = await chats(model, base)
  return { answers, row: { ...(await forced(model)), ...row, ...(await ability(model)) } }
}

const name = (await call<{ data: { id: string }[] }>('GET', '/v1/models')).data[0]?.id ?? ''
await call('POST', `/v1/edits?batch=${BATCH}`, edits)
while ((await call<{ memory: { pending: number } }>('GET', '/health')).memory.pending > 0)
  await new Promise((r) => setTimeout(r, 200))
const found = existsSync(flags.out) ? JSON.parse(readFileSync(flags.out, 'utf8')) : {}
const keep = (arm: string, row: object) => {
  found[arm] = { ...found[arm], ...row }
  writeFileSync(flags.out, JSON.stringify(found, null, 1))
  console.log(arm, JSON.stringify(found[arm]))
}
const sha256 = createHash('sha256').update(readFileSync(flags.base)).digest('hex')
const base = found.base === undefined ? await measure(`${name}@base`, null) : { ...(await chats(`${name}@base`, null)), row: {} }
keep('base', base.row)
if (found.prompt === undefined) keep('prompt', (await measure(`${name}@edited`, base.answers)).row)
for (const [arm = '', file = ''] of flags.adapters.split(',').map((one) => one.split('='))) {
  if (found[arm] !== undefined) continue
  const query = new URLSearchParams({ id: arm, method: arm, base_sha256: sha256, edits: edits.map(({ id }) => id).join(',') })
  const kept = await seconds(() => call('POST', `/v1/adapters?${query}`, readFileSync(file)))
  const loaded = await seconds(() => call('POST', `/v1/adapters/${arm}/load`, {}))
  const { row } = await measure(`${name}@adapter:${arm}`, base.answers)
  const promoted = await seconds(() => call('POST', `/v1/adapters/${arm}/promote`, {}))
  const gated = await chats(name, base.answers)
  const back = await seconds(() => call('POST', `/v1/adapters/${arm}/rollback`, {}))
  const again: string[] = []
  for (const text of unrelated) again.push(await said(`${name}@base`, text))
  const same = again.filter((text, i) => text === base.answers.unrelated[i]).length
  keep(arm, {
    ...row,
    ...{
      megabytes: Math.round(statSync(file).size / 1e5) / 10,
      keep_s: kept,
      load_s: loaded,
      promote_s: promoted,
      rollback_s: back,
    },
    ...{ gated: gated.row, base_again: percent(same, unrelated.length) },
  })
  await call('DELETE', `/v1/adapters/${arm}`)
}
