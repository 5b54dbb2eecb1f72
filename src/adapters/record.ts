import { open, rename } from 'node:fs/promises'
import { z } from 'zod'

/** An adapter as it is on record: `adapters/ID/adapter.json`, beside its `adapter.gguf`. */
export interface Adapter {
  readonly id: string
  /** Whose edits it holds, and who is answered through it once it is promoted. */
  readonly tenant: string
  /** Of the model file it was made from. */
  readonly baseSha256: string
  readonly architecture: string
  /** How it was made: "memit", say. */
  readonly method: string
  /** Ids of the edits that it holds. */
  readonly edits: readonly string[]
  /** When it was made, in milliseconds since the epoch: what those edits said then is what it says. */
  readonly created: number
  readonly scale: number
  readonly sha256: string
  readonly rank: number
  readonly bytes: number
  /** When it was made the default, in milliseconds since the epoch; null: it is not. */
  readonly promotedAt: number | null
  /** Promoted, it answers only where an edit that it holds was selected; else every request of its tenant. */
  readonly gated: boolean
}

export const ADAPTER_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/

export const adapterRecord = z.object({
  id: z.string().regex(ADAPTER_ID),
  // Records from before adapters had tenants are the default tenant's.
  tenant: z.string().default('default'),
  base_sha256: z.string(),
  architecture: z.string(),
  method: z.string(),
  edits: z.array(z.string()),
  created: z.iso.datetime(),
  scale: z.number(),
  sha256: z.string(),
  rank: z.number(),
  bytes: z.number(),
  promoted_at: z.iso.datetime().nullable(),
  // Records from before there was a choice were promoted for every request.
  gated: z.boolean().default(false),
})

/** Throws where the text is no such record. */
export function readRecord(text: string): Adapter {
  const { base_sha256: baseSha256, created, promoted_at: promotedAt, ...rest } = adapterRecord.parse(JSON.parse(text))
  return { ...rest, baseSha256, created: Date.parse(created), promotedAt: promotedAt === null ? null : Date.parse(promotedAt) }
}

/** As `adapter.json` and the wire have it. */
export function wireRecord(adapter: Adapter): z.output<typeof adapterRecord> {
  const { id, tenant, baseSha256, architecture, method, edits, created, scale, sha256, rank, bytes, promotedAt, gated } = adapter
  const iso = (at: number) => new Date(at).toISOString()
  return {
    id,
    tenant,
    base_sha256: baseSha256,
    architecture,
    method,
    edits: [...edits],
    created: iso(created),
    scale,
    sha256,
    rank,
    bytes,
    promoted_at: promotedAt === null ? null : iso(promotedAt),
    gated,
  }
}

export function recordText(adapter: Adapter): string {
  return `${JSON.stringify(wireRecord(adapter), null, 2)}\n`
}

/** The whole text is on the disk under this name, or what was there before. */
export async function writeDurably(path: string, text: string): Promise<void> {
  const file = await open(`${path}.part`, 'w')
  try {
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(`${path}.part`, path)
}
