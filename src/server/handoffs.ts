import { rm } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { createSnapshot, listSnapshots, snapshotsDir } from '../backup/snapshot.ts'
import type { Config } from '../config.ts'
import type { Gateway, Limits } from '../gateway.ts'
import { installedEditor } from '../handoff/editor/installation.ts'
import { FolderJobs } from '../handoff/folder-jobs.ts'
import { Handoffs } from '../handoff/queue.ts'
import { SharedJobs } from '../handoff/shared-jobs.ts'
import { findGpu, freeMemoryBytes } from '../models/hardware.ts'
import { VERSION } from './parts.ts'

const BEFORE = 'before '
/** Bits a weight of a Q4_K_M file, roughly: what is known of the model's size without reading it. */
const BYTES_A_WEIGHT = 0.62

/** The hand-offs of the data folder, or of the database that gateways share. */
export async function openHandoffs(config: Config<Limits>, gateway: Gateway): Promise<Handoffs> {
  const { home, dataDir, handoffPython, environment, threads } = config
  const { database } = gateway
  const dir = join(dataDir, 'handoffs')
  const warn = (message: string) => gateway.log.warn({}, message)
  return new Handoffs({
    gateway,
    threads,
    store: database === undefined ? new FolderJobs(dir, warn) : await SharedJobs.open({ database, dir, warn }),
    cacheDir: join(home, 'handoff', 'cache'),
    editor: async () => installedEditor(home, handoffPython, environment),
    snapshot: async (reason) => (database === undefined ? snapshotBefore(config, reason, gateway.limits.promotionSnapshots) : ''),
    machine: async () => {
      const gpu = await findGpu(process.platform, process.arch)
      return {
        freeMemoryBytes: freeMemoryBytes(process.platform),
        gpuFreeBytes: gpu?.freeVramBytes ?? null,
        parameters: await weightsOf(gateway),
        cores: availableParallelism(),
      }
    },
  })
}

async function weightsOf({ engine }: Gateway): Promise<number> {
  const { stat } = await import('node:fs/promises')
  const path = engine.loras?.basePath
  return path === undefined
    ? 0
    : await stat(path).then(
        ({ size }) => size / BYTES_A_WEIGHT,
        () => 0,
      )
}

/** What a snapshot keeps beside the data folder. */
export function configurationOf({ file, editsDir, experimentsDir }: Config<Limits>): Record<string, string> {
  return {
    ...(file !== null && { [basename(file)]: file }),
    edits: editsDir,
    experiments: experimentsDir,
  }
}

export function defaultSnapshot(dataDir: string, label: string): string {
  const stamp = new Date().toISOString().slice(0, 19).replace(/[-:]/g, '').replace('T', '-')
  return join(snapshotsDir(dataDir), `${stamp}-${label}`)
}

/** The latest `keep` of those taken before promotions stay. */
async function snapshotBefore(config: Config<Limits>, reason: string, keep: number): Promise<string> {
  const { dataDir } = config
  const to = defaultSnapshot(dataDir, 'promotion')
  await createSnapshot({ dataDir, to, configuration: configurationOf(config), reason, palimpsest: VERSION, now: Date.now })
  const own = (await listSnapshots(dirname(to))).filter(({ manifest }) => manifest?.reason.startsWith(BEFORE))
  for (const { path } of own.slice(keep)) await rm(path, { recursive: true, force: true })
  return to
}
