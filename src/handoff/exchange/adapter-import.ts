import { createReadStream } from 'node:fs'
import { rm, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Adapter, Adapters } from '../../adapters/registry.ts'
import { PalimpsestError } from '../../errors.ts'
import type { WorkerJob, WorkerResult } from '../editor/protocol.ts'
import { HandoffFault } from '../fault.ts'
import type { ImportRequest } from '../request.ts'

export interface TakeIn {
  readonly request: ImportRequest
  readonly tenant: string
  readonly base: WorkerJob['base']
  readonly folder: string
  readonly cacheDir: string
  readonly threads: number
  readonly edit: (job: WorkerJob) => Promise<WorkerResult>
  readonly adapters: Adapters
  readonly now: () => number
}

/**
 * Registers what another tool made as an adapter: a GGUF LoRA as it is; a PEFT folder, or saved deltas, by way of the editor, which factors
 * dense ones and writes a GGUF. Throws HandoffFault, `invalid_value`, `adapter_mismatch`.
 */
export async function takeIn({
  request,
  tenant,
  base,
  folder,
  cacheDir,
  threads,
  edit,
  adapters,
  now,
}: TakeIn): Promise<Adapter> {
  const { id, path, method, edits } = request
  const source = resolve(path)
  const found = await stat(source).catch(() => null)
  if (found === null)
    throw new PalimpsestError(
      'invalid_value',
      `Expected \`path\` to name a file or folder on the gateway's machine, got '${path.slice(0, 200)}'.`,
      { param: 'path' },
    )
  const made = { id, tenant, baseSha256: base.sha256, method, edits: [...new Set(edits)], created: Math.round(now()), scale: 1 }
  const keep = async (file: string) => {
    const adapter = await adapters.register(createReadStream(file), made)
    return adapters.load(adapter.id, tenant).catch(async (error) => {
      await adapters.remove(adapter.id, tenant)
      throw error
    })
  }
  if (found.isFile() && /\.gguf$/i.test(source)) return keep(source)
  try {
    const { adapter } = await edit({
      task: 'import',
      base,
      source,
      work_dir: join(folder, 'work'),
      out_dir: join(folder, 'out'),
      cache_dir: cacheDir,
      device: 'cpu',
      dtype: 'auto',
      threads,
      seed: 0,
      limits: {},
      export: { name: 'adapter' },
    })
    if (adapter === undefined) throw new HandoffFault('malformed_event', 'The editor took nothing in.', 'See its log.')
    return await keep(adapter.gguf)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
