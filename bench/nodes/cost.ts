/**
 * What a request for an answer costs three gateways over PostgreSQL, and one over SQLite: processor time of the gateways' processes, side by side
 * in turns, so many requests for each gateway: `npm run bench:nodes-cost -- [--rounds 5] [--requests 600]`. What they do by themselves (polling, timers) is measured idle and shown apart.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { startPostgres } from '../../test/support/databases/postgres.ts'
import { type GatewayChild, gatewayChild } from '../../test/support/gateways.ts'
import { median } from '../client.ts'

const { values: flags } = parseArgs({
  options: { rounds: { type: 'string', default: '5' }, requests: { type: 'string', default: '600' } },
})
const WORKERS = 8
const IDLE_MS = 10_000
/** Clock ticks of /proc, in milliseconds (proc_pid_stat(5)). */
const TICK_MS = 10

const script = join(import.meta.dirname, '../../test/support/children/gateway-child.js')
const send = (url: string, path: string, body: object) =>
  fetch(url + path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })

/** User and system time of the processes so far. */
function processorMs(nodes: readonly GatewayChild[]): number {
  return nodes.reduce((sum, node) => {
    const fields = readFileSync(`/proc/${node.pid()}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
    return sum + (Number(fields[11]) + Number(fields[12])) * TICK_MS
  }, 0)
}

async function load(nodes: readonly GatewayChild[], requests: number): Promise<void> {
  let next = 0
  const worker = async () => {
    for (let n = next++; n < requests; n = next++) {
      const messages = [{ role: 'user', content: `Who is the mayor of Lund? (${n})` }]
      const response = await send(nodes[n % nodes.length]?.url ?? '', '/v1/chat/completions', {
        ...{ model: 'scripted', messages, stream: n % 2 === 0 },
      })
      const text = await response.text()
      if (response.status !== 200 || !text.includes('edited')) throw new Error(`${response.status}: ${text.slice(0, 300)}`)
    }
  }
  await Promise.all(Array.from({ length: WORKERS }, worker))
}

interface Cost {
  readonly requestMs: number
  readonly perSecond: number
}

async function cost(nodes: readonly GatewayChild[], requests: number): Promise<Cost> {
  const before = processorMs(nodes)
  const begun = performance.now()
  await load(nodes, requests)
  const took = performance.now() - begun
  return { requestMs: (processorMs(nodes) - before) / requests, perSecond: (1_000 * requests) / took }
}

const server = await startPostgres()
const child = spawn(process.execPath, [join(import.meta.dirname, 'upstream-child.js')], { stdio: ['ignore', 'pipe', 'inherit'] })
const [said] = (await once(child.stdout, 'data')) as [Buffer]
const upstream = { PALIMPSEST_UPSTREAMS: said.toString().trim() }
const shared = { ...upstream, PALIMPSEST_DATABASE_URL: await server.database() }
const one = [await gatewayChild(script, upstream)]
const three = await Promise.all([shared, shared, shared].map((env) => gatewayChild(script, env)))
try {
  for (const node of [...one, ...three]) await node.start()
  for (const [node] of [one, three]) {
    const edits = [{ id: 'lund', subject: 'Lund', prompt: 'The mayor of Lund is', target_new: 'Ada' }]
    await send(node?.url ?? '', '/v1/edits', { edits })
  }
  await sleep(2_000)
  const requests = Number(flags.requests)
  // Until the code is compiled that all of this runs through.
  for (const nodes of [one, three]) await load(nodes, nodes.length * requests)
  const idle: number[] = []
  for (const nodes of [one, three]) {
    const before = processorMs(nodes)
    await sleep(IDLE_MS)
    idle.push((processorMs(nodes) - before) / IDLE_MS)
  }
  console.log(
    `idle, ms of the processor a second: one ${((idle[0] ?? 0) * 1_000).toFixed(1)}, three ${((idle[1] ?? 0) * 1_000).toFixed(1)}`,
  )
  const ratios: number[] = []
  const without: number[] = []
  console.log(
    '| round | one over SQLite, ms a request | requests/s | three over PostgreSQL, ms a request | requests/s | ratio | without idle |',
  )
  console.log('|---|---|---|---|---|---|---|')
  for (let round = 1; round <= Number(flags.rounds); round++) {
    // Who comes first changes, since what else runs on the machine does.
    const order = round % 2 === 0 ? [three, one] : [one, three]
    const costs = new Map<readonly GatewayChild[], Cost>()
    // As many for each gateway, so that the code of each is as well compiled.
    for (const nodes of order) costs.set(nodes, await cost(nodes, nodes.length * requests))
    const [a, b] = [costs.get(one), costs.get(three)]
    if (a === undefined || b === undefined) throw new Error('both are measured in each round')
    const working = ({ requestMs, perSecond }: Cost, share = 0) => requestMs - (1_000 * share) / perSecond
    ratios.push(b.requestMs / a.requestMs)
    without.push(working(b, idle[1]) / working(a, idle[0]))
    const cells = [a.requestMs, a.perSecond, b.requestMs, b.perSecond, ratios.at(-1) ?? 0, without.at(-1) ?? 0]
    console.log(`| ${round} | ${cells.map((n) => n.toFixed(2)).join(' | ')} |`)
  }
  console.log(`median ratio ${median(ratios).toFixed(2)}, without what they do by themselves ${median(without).toFixed(2)}`)
} finally {
  await Promise.all([...one, ...three].map((node) => node.remove()))
  child.kill()
  await server.remove()
}
