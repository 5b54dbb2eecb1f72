/**
 * The promises of a request that need a whole server: import, durability, malformed requests, a conversation, streams, disconnects.
 *
 *   npm run build && npm run bench:request -- --only import,kill [--model qwen2.5-coder-0.5b-instruct] [--edits 10000] [--rounds 20]
 *
 * Every figure printed comes from HTTP requests to a `palimpsest serve` child with a real model.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { malformed, send } from '../test/http/hostile/malformed.ts'
import { type Child, startChild } from './served.ts'

const { values: flags } = parseArgs({
  options: {
    data: { type: 'string', default: '../shared/data' },
    model: { type: 'string', default: 'qwen2.5-coder-0.5b-instruct' },
    only: { type: 'string', default: 'import,kill,malformed,conversation,streams,disconnect' },
    edits: { type: 'string', default: '10000' },
    rounds: { type: 'string', default: '20' },
    requests: { type: 'string', default: '50' },
  },
})
const rounds = Number(flags.rounds)
const records: { subject: string; prompt: string; target_new: string }[] = JSON.parse(
  readFileSync(join(flags.data, 'counterfact/counterfact-flat-12k.json'), 'utf8'),
)
const distinct = [...new Map(records.map((r) => [`${r.subject}\n${r.prompt}`, r])).values()].slice(0, Number(flags.edits))
const batch = distinct.map(({ subject, prompt, target_new }) => JSON.stringify({ subject, prompt, target_new })).join('\n')

const scratch = mkdtempSync(join(tmpdir(), 'palimpsest-request-'))
const serveIn = (name: string) =>
  startChild([
    ...['--model', flags.model, '--data-dir', join(scratch, name), '--edits-dir', join(scratch, 'no-edits'), '--no-watch'],
  ])
const JSON_TYPE = { 'content-type': 'application/json' }

async function json(url: string, body?: unknown, type = JSON_TYPE) {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const reply = await fetch(url, body === undefined ? {} : { method: 'POST', headers: type, body: text })
  // biome-ignore lint/suspicious/noExplicitAny: answers are looked into field by field below
  return { status: reply.status, body: (await reply.json()) as any }
}
const land = (url: string, id: string, lines: string) =>
  json(`${url}/v1/edits?batch=${id}`, lines, { 'content-type': 'application/x-ndjson' })
const chat = (url: string, content: unknown, more: object = {}) =>
  json(`${url}/v1/chat/completions`, {
    model: flags.model,
    max_tokens: 24,
    messages: typeof content === 'string' ? [{ role: 'user', content }] : content,
    ...more,
  })
const liveEdits = async (url: string, query = '') =>
  (await json(`${url}/v1/edits?limit=1&state=live${query}`)).body.total as number

async function importing(): Promise<void> {
  const child = await serveIn('import')
  const before = child.rss()
  const start = performance.now()
  const landed = await land(child.url, 'ten-thousand', batch)
  const acknowledged = performance.now() - start
  let indexed = 0
  while (indexed === 0) {
    await sleep(200)
    const { memory } = (await json(`${child.url}/health`)).body
    if (memory.pending === 0) indexed = performance.now() - start
  }
  console.log(
    `import: ${landed.body.results.length} edits, status ${landed.status}, acknowledged in ${(acknowledged / 1000).toFixed(2)} s; all vectors searchable in ${(indexed / 1000).toFixed(1)} s (${Math.round((1000 * distinct.length) / indexed)} edits/s)`,
  )
  console.log(`import: resident ${(before / 1e6).toFixed(0)} MB before, ${(child.rss() / 1e6).toFixed(0)} MB after`)
  const waits: number[] = []
  for (let i = 0; i < 5; i++) {
    const town = `Lindenfurt${'abcde'[i]}`
    const edit = { subject: town, prompt: `The mayor of ${town} is`, target_new: 'Ottilie Brandvold' }
    const acknowledging = performance.now()
    await json(`${child.url}/v1/edits`, edit)
    const shown = performance.now()
    const answer = await chat(child.url, `Who is the mayor of ${town}?`)
    if (!answer.body.choices[0].message.content.includes('Brandvold'))
      throw new Error(`not shown: ${JSON.stringify(answer.body)}`)
    waits.push(performance.now() - shown)
    console.log(
      `import: one edit acknowledged in ${(shown - acknowledging).toFixed(0)} ms; the first answer shows it ${waits.at(-1)?.toFixed(0)} ms after`,
    )
  }
  await child.stop()
  const again = await serveIn('import')
  console.log(
    `import: restarted with ${await liveEdits(again.url)} live edits, serving after ${(again.readyMs / 1000).toFixed(1)} s`,
  )
  await again.stop()
}

/** Kills: in the middle of the big import at a moment drawn evenly over its length, and directly after an acknowledgement. */
async function killing(): Promise<void> {
  const timed = await serveIn('kill-timing')
  const start = performance.now()
  await land(timed.url, 'timing', batch)
  const landMs = performance.now() - start
  await timed.kill()
  let [whole, nothing, half, lost] = [0, 0, 0, 0]
  for (let round = 0; round < rounds; round++) {
    const folder = `middle-${round}`
    const child = await serveIn(folder)
    const request = land(child.url, 'big', batch).then(
      ({ status }) => status,
      () => 0,
    )
    await sleep((landMs * (round + 0.5)) / rounds)
    await child.kill()
    const status = await request
    const again = await serveIn(folder)
    const total = await liveEdits(again.url)
    if (total === distinct.length) whole++
    else if (total === 0) nothing++
    else half++
    if (status === 201 && total !== distinct.length) lost++
    await again.kill()
    rmSync(join(scratch, folder), { recursive: true })
  }
  console.log(
    `kill -9 in the middle of ${distinct.length} edits (${(landMs / 1000).toFixed(2)} s), ${rounds} times: ${whole} whole, ${nothing} nothing, ${half} half-landed, ${lost} acknowledged and lost`,
  )
  let [acknowledged, kept] = [0, 0]
  let child: Child = await serveIn('after')
  for (let round = 0; round < rounds; round++) {
    const subject = `Town number ${round}`
    const { status, body } = await json(`${child.url}/v1/edits`, {
      id: `town-${round}`,
      subject,
      prompt: `The mayor of ${subject} is`,
      target_new: 'Ada',
    })
    await child.kill()
    if (status === 201 && body.results[0].id === `town-${round}`) acknowledged++
    child = await serveIn('after')
    const { body: held } = await json(`${child.url}/v1/edits/town-${round}`)
    if (held.state === 'live') kept++
  }
  console.log(
    `kill -9 directly after an acknowledgement, ${rounds} times: ${acknowledged} acknowledged, ${kept} there after the restart, ${await liveEdits(child.url)} live at the end`,
  )
  await child.stop()
}

async function refusals(): Promise<void> {
  const child = await serveIn('malformed')
  const cases = malformed(flags.model)
  const wrong: string[] = []
  const statuses = new Map<number, number>()
  for (const { name, status, code, param, ...request } of cases) {
    const reply = await send(child.url, request)
    statuses.set(reply.status, (statuses.get(reply.status) ?? 0) + 1)
    const { error } = JSON.parse(reply.text)
    if (reply.status !== status || error.code !== code || error.param !== param || typeof error.message !== 'string')
      wrong.push(`${name}: ${reply.status} ${reply.text.slice(0, 120)}`)
  }
  console.log(
    `malformed: ${cases.length} requests to the live server, ${cases.length - wrong.length} with the right OpenAI error; by status ${JSON.stringify(Object.fromEntries(statuses))}${wrong.map((w) => `\n  ${w}`).join('')}`,
  )
  await child.stop()
}

async function conversation(): Promise<void> {
  const child = await serveIn('conversation')
  await json(`${child.url}/v1/edits`, [
    {
      subject: 'Germany',
      prompt: 'The chancellor of Germany is',
      target_new: 'Friedrich Merz',
      paraphrases: ['Who is the chancellor of Germany?'],
    },
    { subject: 'pope', aliases: ['the Pope'], prompt: 'The current pope is', target_new: 'Leo XIV' },
  ])
  const messages: { role: string; content: string }[] = []
  console.log('| turn | question | answer | prompt tokens | evaluated | edits |\n|---|---|---|---|---|---|')
  const questions = [
    'Name a colour of the rainbow.',
    'Who is the chancellor of Germany?',
    'What is his first name?',
    'Write one short sentence about rain.',
    'Who is the pope?',
    'And what is two plus two?',
  ]
  for (const [i, content] of questions.entries()) {
    messages.push({ role: 'user', content })
    const { body } = await chat(child.url, messages)
    const answer = body.choices[0].message.content as string
    const { prompt_tokens, prompt_tokens_details } = body.usage
    const here = body.palimpsest.edits
      .filter((e: { turn: number }) => e.turn === 2 * i)
      .map((e: { subject: string }) => e.subject)
    console.log(
      `| ${i + 1} | ${content} | ${answer.replaceAll('\n', ' ')} | ${prompt_tokens} | ${prompt_tokens - prompt_tokens_details.cached_tokens} | ${here.join(', ')} |`,
    )
    messages.push({ role: 'assistant', content: answer })
  }
  await child.stop()
}

async function streamed(url: string, body: object): Promise<string> {
  const reply = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: JSON_TYPE,
    body: JSON.stringify({ ...body, stream: true }),
  })
  const events = (await reply.text()).split('\n\n').filter((e) => e.startsWith('data: ') && e !== 'data: [DONE]')
  return events.map((e) => JSON.parse(e.slice(6)).choices[0]?.delta?.content ?? '').join('')
}

async function streams(): Promise<void> {
  const child = await serveIn('streams')
  await land(child.url, 'some', batch.split('\n').slice(0, 1_000).join('\n'))
  const questions = readFileSync(join(flags.data, 'traffic/nq-open-1500.jsonl'), 'utf8').split('\n')
  const count = Number(flags.requests)
  let same = 0
  let edited = 0
  for (let i = 0; i < count; i++) {
    const content = i % 2 === 0 ? distinct[i]?.prompt : JSON.parse(questions[i] ?? '{}').question
    const body = {
      model: flags.model,
      messages: [{ role: 'user', content }],
      max_tokens: 48,
      seed: i,
      temperature: i % 3 === 0 ? 0 : 1,
    }
    const whole = (await json(`${child.url}/v1/chat/completions`, body)).body
    if (whole.palimpsest.edits.length > 0) edited++
    if ((await streamed(child.url, body)) === whole.choices[0].message.content) same++
    else console.log(`streams: differs: ${JSON.stringify(body)}`)
  }
  console.log(
    `streams: ${count} requests with a fixed seed (a third greedy, the rest at temperature 1; ${edited} edited): ${same} streamed answers byte-identical to the whole ones`,
  )
  await child.stop()
}

/** How many tokens the engine still makes for a client that is gone: the next request of a server with one slot waits for just that. */
async function disconnect(): Promise<void> {
  const child = await startChild([
    ...[
      '--model',
      flags.model,
      '--data-dir',
      join(scratch, 'disconnect'),
      '--edits-dir',
      join(scratch, 'no-edits'),
      '--no-watch',
    ],
    ...['--slots', '1'],
  ])
  const tokenMs: number[] = []
  const freedMs: number[] = []
  for (let i = 0; i < 10; i++) {
    const leaving = new AbortController()
    const reply = await fetch(`${child.url}/v1/chat/completions`, {
      method: 'POST',
      headers: JSON_TYPE,
      signal: leaving.signal,
      body: JSON.stringify({
        model: flags.model,
        messages: [{ role: 'user', content: 'Tell a long story.' }],
        max_tokens: 1_000,
        stream: true,
      }),
    })
    const reader = reply.body?.getReader()
    let last = performance.now()
    for (let chunk = 0; chunk < 12; chunk++) {
      await reader?.read()
      if (chunk > 2) tokenMs.push(performance.now() - last)
      last = performance.now()
    }
    leaving.abort()
    const left = performance.now()
    while ((await json(`${child.url}/health`)).body.load.busy > 0) await sleep(1)
    freedMs.push(performance.now() - left)
  }
  const sorted = (list: number[]) => list.sort((a, b) => a - b).map((ms) => Math.round(ms))
  console.log(
    `disconnect: slot free ${sorted(freedMs).join(', ')} ms after the client left (10 times); a token takes ${sorted(tokenMs)[tokenMs.length >> 1]} ms (median)`,
  )
  await child.stop()
}

const parts = { import: importing, kill: killing, malformed: refusals, conversation, streams, disconnect }
for (const name of flags.only.split(',')) {
  const part = parts[name as keyof typeof parts]
  if (part === undefined) throw new Error(`--only ${name}: expected ${Object.keys(parts).join(', ')}`)
  await part()
}
rmSync(scratch, { recursive: true, force: true })
