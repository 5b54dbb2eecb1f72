import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Handoffs } from '../../../src/handoff/queue.ts'
import { writeReports } from '../../browser/reports.ts'
import { type Served, serve } from '../fakes.ts'
import { modelOf, standInHandoffs } from '../handoff/handoff-fakes.ts'

/** A gateway that serves every route there is. */
export async function serveEverything(): Promise<Served & { readonly handoffs: Handoffs }> {
  const reportsDir = mkdtempSync(join(tmpdir(), 'palimpsest-reports-'))
  await writeReports(reportsDir)
  let handoffs: Handoffs | undefined
  const served = await serve({
    engine: modelOf('base.gguf'),
    gateway: { reportsDir },
    handoffs: (gateway, dataDir) => {
      handoffs = standInHandoffs(gateway, dataDir)
      return handoffs
    },
  })
  if (handoffs === undefined) throw new Error('hand-offs are served')
  const close = async () => {
    await served.close()
    rmSync(reportsDir, { recursive: true, force: true })
  }
  return { ...served, handoffs, close }
}
