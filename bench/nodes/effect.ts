/**
 * How soon an edit acknowledged by one gateway is in effect on all, and how soon it is acknowledged: `npm run bench:effect -- [--edits 300]
 * [--nodes 3] [--clients 4]`. Gateways are processes of their own over one PostgreSQL, with stand-ins for embedder, reader and upstream.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { startPostgres } from '../../test/support/databases/postgres.ts'
import { gatewayChild } from '../../test/support/gateways.ts'
import { startUpstream } from '../../test/support/stand-ins/scripted-upstream.ts'
import { at } from '../client.ts'

const { values: flags } = parseArgs({
  options: {
    edits: { type: 'string', default: '300' },
    nodes: { type: 'string', default: '3' },
    clients: { type: 'string', default: '4' },
    batch: { type: 'string', default: '10000' },
  },
})
const EFFECT_MS = 30_000
const BATCHES = 3
const script = join(import.meta.dirname, '../../test/support/children/gateway-child.js')

const fact = (id: string) => ({ id, subject: `Town ${id}`, prompt: `The mayor of Town ${id} is`, target_new: 'Ada' })
const post = (url: string, path: string, body: object) =>
  fetch(url + path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })

/** Milliseconds from now until the gateway applies the edit. */
async function inEffect(url: string, id: string): Promise<number> {
  const start = performance.now()
  while (performance.now() - start < EFFECT_MS) {
    const { status } = await fetch(`${url}/v1/edits/${id}`)
    if (status === 200) return performance.now() - start
    await sleep(1)
  }
  throw new Error(`${url} has no edit ${id} after ${EFFECT_MS} ms`)
}

/** Lands `count` edits one by one, each on the next gateway. */
async function measured(urls: readonly string[], name: string, count: number) {
  const acknowledged: number[] = []
  const effect: number[] = []
  for (let i = 0; i < count; i++) {
    const id = `${name.replace(' ', '-')}-${i}`
    const own = urls[i % urls.length] ?? ''
    const start = performance.now()
    const response = await post(own, '/v1/edits', { edits: [fact(id)] })
    if (response.status !== 201) throw new Error(`${response.status}: ${await response.text()}`)
    await response.text()
    acknowledged.push(performance.now() - start)
    effect.push(Math.max(...(await Promise.all(urls.filter((url) => url !== own).map((url) => inEffect(url, id))))))
    await sleep(20)
  }
  const row = (what: string, list: readonly number[]) =>
    console.log(`| ${what}, ${name} | ${[0.5, 0.99, 1].map((p) => at(list, p).toFixed(1)).join(' | ')} | ${list.length} |`)
  row('one edit acknowledged', acknowledged)
  row('acknowledged → in effect on all others', effect)
}

const server = await startPostgres()
const upstream = await startUpstream({ words: 10, delayMs: 20 })
const env = { PALIMPSEST_DATABASE_URL: await server.database(), PALIMPSEST_UPSTREAMS: upstream.url }
const nodes = await Promise.all(Array.from({ length: Number(flags.nodes) }, () => gatewayChild(script, env)))
try {
  await Promise.all(nodes.map((node) => node.start()))
  const urls = nodes.map(({ url }) => url)
  console.log('| milliseconds | p50 | p99 | most | n |\n|---|---|---|---|---|')
  await measured(urls, 'idle', Number(flags.edits))
  let isOver = false
  const messages = [{ role: 'user', content: 'Who is the mayor of Town idle-1?' }]
  let answers = 0
  const clients = Array.from({ length: Number(flags.clients) }, async (_, n) => {
    for (let i = n; !isOver; i++) {
      const response = await post(urls[i % urls.length] ?? '', '/v1/chat/completions', { model: 'scripted', messages })
      await response.text()
      if (response.status !== 200) throw new Error(`an answer of ${response.status}`)
      answers++
    }
  })
  const began = performance.now()
  const load = Promise.all(clients)
  await Promise.race([load, measured(urls, 'under load', Number(flags.edits))])
  const rate = (1_000 * answers) / (performance.now() - began)
  isOver = true
  await load
  console.log(`Load: ${flags.clients} clients, ${rate.toFixed(0)} answers a second.`)
  for (let n = 0; n < BATCHES; n++) {
    const edits = Array.from({ length: Number(flags.batch) }, (_, i) => fact(`batch-${n}-${i}`))
    const start = performance.now()
    const response = await post(urls[n % urls.length] ?? '', '/v1/edits', { edits })
    await response.text()
    const seconds = (performance.now() - start) / 1_000
    const last = `batch-${n}-${edits.length - 1}`
    const others = Math.max(...(await Promise.all(urls.map((url) => inEffect(url, last)))))
    console.log(
      `A batch of ${edits.length}: ${response.status} after ${seconds.toFixed(2)} s, on all ${others.toFixed(0)} ms later.`,
    )
  }
} finally {
  await Promise.all(nodes.map((node) => node.remove()))
  await upstream.close()
  await server.remove()
}
