/**
 * PostgreSQL gone for a while under load: `npm run bench:outage -- [--seconds 300] [--nodes 3]`. Gateways are processes of their own over a
 * scripted upstream; the server is killed, and started again on the same folder.
 */
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { startPostgres } from '../../test/support/databases/postgres.ts'
import { gatewayChild } from '../../test/support/gateways.ts'
import { outage } from '../../test/support/outage.ts'
import { startUpstream } from '../../test/support/stand-ins/scripted-upstream.ts'

const { values: flags } = parseArgs({
  options: { seconds: { type: 'string', default: '300' }, nodes: { type: 'string', default: '3' } },
})
const script = join(import.meta.dirname, '../../test/support/children/gateway-child.js')

const server = await startPostgres()
const upstream = await startUpstream({ words: 10, delayMs: 50 })
const env = { PALIMPSEST_DATABASE_URL: await server.database(), PALIMPSEST_UPSTREAMS: upstream.url }
const nodes = await Promise.all(Array.from({ length: Number(flags.nodes) }, () => gatewayChild(script, env)))
try {
  await Promise.all(nodes.map((node) => node.start()))
  const figures = await outage({ server, nodes, awayMs: Number(flags.seconds) * 1_000, workers: 4 })
  const { faults, otherWrites, answers, streams, refused, noticed, writableAfterMs, caughtUpAfterMs } = figures
  console.log(`PostgreSQL away for ${flags.seconds} s, ${flags.nodes} gateways:`)
  console.log(`| measure | value |\n|---|---|`)
  console.log(`| answers meanwhile, of them streams | ${answers}, ${streams} |`)
  console.log(`| failed requests for an answer | ${faults.length} |`)
  console.log(`| writes refused with 503 and Retry-After, other outcomes | ${refused}, ${otherWrites.length} |`)
  console.log(`| gateways whose /health says away | ${noticed} |`)
  console.log(
    `| back: first write taken after, in effect on all after | ${Math.round(writableAfterMs)}, ${Math.round(caughtUpAfterMs)} ms |`,
  )
  for (const fault of [...faults, ...otherWrites].slice(0, 20)) console.log(fault)
} finally {
  await Promise.all(nodes.map((node) => node.remove()))
  await upstream.close()
  await server.remove()
}
