import type { Request, Response } from 'express'
import { z } from 'zod'
import type { Batch } from '../../edit/batch.ts'
import { parseBatchApart } from '../../edit/batch-thread.ts'
import { FORMATS } from '../../edit/formats.ts'
import { KINDS } from '../../edit/own.ts'
import { PalimpsestError } from '../../errors.ts'
import type { Gateway } from '../../gateway.ts'
import type { Landing } from '../../memory/memory.ts'
import { landingReport, REFUSED } from '../../selection/landing-check.ts'
import { type Preview, wireLanding } from '../../wire/palimpsest/edits.ts'
import { landingReply, progressLine } from '../../wire/palimpsest/replies.ts'
import { oneTenant, tenant, text } from '../../wire/palimpsest/selection.ts'
import { drained } from '../reply/sse.ts'
import { isDeep, mediaType } from '../request/body.ts'
import { flag, query } from '../request/query.ts'
import { goneSignal, tenantHeader } from '../request/request-context.ts'
import { writtenAt } from '../request/version.ts'
import type { About } from '../routes.ts'

const batchName = z.string().regex(/^[\x21-\x7e]{1,128}$/, { error: '1 to 128 printable ASCII characters without spaces' })

const importQuery = z.strictObject({
  format: z
    .enum(['auto', ...FORMATS])
    .optional()
    .describe("Of the records; `auto`, the default: each record's own."),
  dry_run: flag.optional().describe('Nothing lands; the reply says what would happen.'),
  verify: flag.optional().describe('A batch that contradicts itself, or does not apply as it should, is refused.'),
  batch: batchName.optional().describe('Names the batch, so that it lands once.'),
  source: text.min(1).max(2_048).optional().describe('Where the batch comes from, for the log.'),
  tags: z.string().optional().describe('Tags for every edit, with commas between.'),
  tenant: tenant.optional(),
})

const written = z.string()

/** What the reference says of `POST /v1/edits`. */
export function importAbout(): About {
  const record = z.union([
    z.string().min(1),
    ...Object.values(KINDS),
    z.looseObject({}).describe('A record of an outside format.'),
  ])
  const envelope = z.strictObject({ edits: z.array(record), tenant: tenant.optional(), tags: z.array(z.string()).optional() })
  return {
    summary: 'Land edits: all of them, or none.',
    description: [
      'The same batch (by `batch` or `Idempotency-Key`, or else by content) lands once; 201 where something changed, else 200.',
      'Small batches are answered when their vectors are searchable too.',
    ].join(' '),
    query: importQuery,
    headers: { 'Idempotency-Key': 'Names the batch, as `batch` does.' },
    body: {
      'application/json': z.union([record, z.array(record), envelope]),
      'application/x-ndjson': written.describe('A record a line.'),
      'application/yaml': written.describe('A list of records, or `edits:` and a list.'),
      'text/csv': written.describe('Columns are the fields of an edit; lists are split at `|`.'),
      'text/plain': written.describe('A sentence a line; `#` begins a comment.'),
    },
    status: [200, 201],
    reply: landingReply,
    stream: {
      type: 'application/x-ndjson',
      when: 'With `Accept: application/x-ndjson`: progress lines, and the landing as the last.',
      each: progressLine,
    },
    errors: ['invalid_batch', 'engine_failed', 'storage_full'],
    writes: true,
  }
}

/**
 * `POST /v1/edits`: one edit, an array, `{"edits": […]}`, NDJSON, CSV or YAML, in our shape or an outside format. Lands whole or not at
 * all; the same batch (by `batch` or `Idempotency-Key`, or else by content) lands once. Small batches are answered when their vectors
 * are searchable too; with `Accept: application/x-ndjson` progress lines come first, for batches of any length.
 */
export async function importEdits(req: Request, res: Response, gateway: Gateway): Promise<void> {
  const { memory, limits } = gateway
  const asked = query(req, importQuery)
  const tenant = oneTenant(asked.tenant, tenantHeader(req), 'tenant')
  const batchId = batchIdOf(req, asked.batch)
  const gone = goneSignal(res)
  const batch = await readEdits(req, tenant, asked, limits.jsonDepthLevels, gone)
  const { edits } = batch
  const dryRun = asked.dry_run ?? false
  if (asked.verify === true && !dryRun) await verify(gateway, tenant, batch, gone)
  const landing = await memory.land(edits, {
    source: asked.source ?? 'http',
    tenant,
    dryRun,
    ...(batchId !== undefined && { batchId }),
  })
  const changed = !dryRun && landing.results.some(({ outcome }) => outcome !== 'unchanged')
  res.status(changed && !landing.replayed ? 201 : 200)
  const written = dryRun ? {} : writtenAt(res, landing.version)
  if (req.accepts(['json', 'application/x-ndjson']) === 'application/x-ndjson') {
    const say = speaker(res, limits.stalledMs)
    const preview = dryRun ? await checked(gateway, { tenant, batch, landing, gone, say }) : undefined
    if (!dryRun) await indexing(gateway, { tenant, gone, say })
    if (gone.aborted) return
    await say({ ...wireLanding(landing, preview), ...written })
    return void res.end()
  }
  const preview = dryRun ? { report: await report(gateway, { tenant, batch, landing, gone }), batch } : undefined
  if (changed && edits.length <= limits.awaitIndexEdits) await within(limits.awaitIndexMs, memory.indexed(landing.version))
  res.json({ ...wireLanding(landing, preview), ...written })
}

interface Checked {
  readonly tenant: string
  readonly batch: Batch
  readonly landing: Landing
  readonly gone: AbortSignal
  readonly progress?: (done: number, total: number) => void
}

function report(
  { memory, retriever, calibration }: Gateway,
  { tenant, batch: { edits }, landing: { results }, gone, progress }: Checked,
) {
  return landingReport({
    edits,
    results,
    calibration,
    read: (pairs) => retriever.read(pairs, gone, 'import'),
    embed: (texts) => retriever.embed(texts, gone, 'import'),
    search: (vector, k) => memory.search(tenant, vector, k),
    held: (id) => memory.get(tenant, id),
    ...(progress && { progress }),
  })
}

/** Problems listed of a batch that is refused. */
const PROBLEMS_SHOWN = 100

/** Throws `invalid_batch` where the batch contradicts itself, or holds edits that miss their own words or fire on others'. Nothing lands. */
async function verify(gateway: Gateway, tenant: string, batch: Batch, gone: AbortSignal): Promise<void> {
  const landing = await gateway.memory.land(batch.edits, { source: 'http', tenant, dryRun: true })
  const { findings, fault } = await report(gateway, { tenant, batch, landing, gone })
  if (fault !== null)
    throw new PalimpsestError('engine_failed', `The batch could not be verified, and nothing landed: ${fault}`, {
      param: 'verify',
    })
  const wrong = findings.filter(({ kind }) => REFUSED.has(kind))
  if (wrong.length === 0) return
  const problems = wrong.slice(0, PROBLEMS_SHOWN).map(({ kind, edit: { index }, message }) => {
    const line = batch.lines[index]
    return { index, ...(line !== undefined && { line }), field: null, message: `${kind}: ${message}` }
  })
  throw new PalimpsestError(
    'invalid_batch',
    `Expected a batch that passes its check, but ${wrong.length} ${wrong.length === 1 ? 'thing was' : 'things were'} found; nothing landed. Mend them, or send it without \`verify\`.`,
    { param: 'verify', problems },
  )
}

type Say = (value: object) => Promise<void>

/** The report, with lines `{"object":"edit.batch.check","checked","total"}` (texts whose wording is compared) while it is made. */
async function checked(gateway: Gateway, { say, ...batch }: Checked & { say: Say }): Promise<Preview> {
  const at = { checked: 0, total: 0 }
  const making = report(gateway, { ...batch, progress: (checked, total) => void Object.assign(at, { checked, total }) })
  const over = making.then(
    () => {},
    () => {},
  )
  while (!(await within(gateway.limits.progressMs, over)) && !batch.gone.aborted) await say({ object: 'edit.batch.check', ...at })
  return { report: await making, batch: batch.batch }
}

function batchIdOf(req: Request, named: string | undefined): string | undefined {
  const key = req.get('idempotency-key')
  if (key !== undefined && !batchName.safeParse(key).success) {
    throw new PalimpsestError(
      'invalid_value',
      'Expected the header Idempotency-Key to be 1 to 128 printable ASCII characters without spaces.',
      { param: 'batch' },
    )
  }
  if (key !== undefined && named !== undefined && key !== named) {
    throw new PalimpsestError('invalid_value', '`batch` and the header Idempotency-Key name the batch differently: send one.', {
      param: 'batch',
    })
  }
  return named ?? key
}

async function readEdits(
  req: Request,
  tenant: string,
  { format = 'auto', tags = '' }: z.output<typeof importQuery>,
  depthLevels: number,
  gone: AbortSignal,
): Promise<Batch> {
  const contentType = mediaType(req)
  const input: Buffer = Buffer.isBuffer(req.body) ? req.body : Buffer.alloc(0)
  // The YAML reader is recursive, and slow long before it runs out of stack.
  if (contentType.endsWith('yaml') && isDeep(input.toString('latin1'), depthLevels)) throw tooDeep()
  const labels = tags.split(',').map((tag) => tag.trim())
  try {
    const options = { format, tenant, tags: labels.filter((tag) => tag !== ''), tenants: 'one' } as const
    return await parseBatchApart(input, { ...options, ...(contentType !== '' && { contentType }) }, gone)
  } catch (error) {
    if (error instanceof RangeError) throw tooDeep()
    throw error
  }
}

function tooDeep(): PalimpsestError {
  return new PalimpsestError(
    'invalid_batch',
    'The batch is nested too deeply to be read, and nothing of it was taken. An edit has no levels but its lists.',
  )
}

/** Writes lines of JSON. */
function speaker(res: Response, stalledMs: number): Say {
  res.set({
    'Content-Type': 'application/x-ndjson; charset=utf-8',
    'Cache-Control': 'no-cache, no-transform',
    'X-Accel-Buffering': 'no',
  })
  return async (value) => {
    if (!res.write(`${JSON.stringify(value)}\n`)) await drained(res, stalledMs)
  }
}

/** Lines `{"object":"edit.batch.progress","indexed","total"}` while vectors are made. A client that leaves stops only the lines. */
async function indexing({ memory, limits }: Gateway, { tenant, gone, say }: { tenant: string; gone: AbortSignal; say: Say }) {
  const pending = () => memory.status().find((status) => status.tenant === tenant)?.pending ?? 0
  const total = pending()
  let left = total
  while (left > 0 && !gone.aborted) {
    await say({ object: 'edit.batch.progress', indexed: total - left, total })
    const settled = await within(limits.progressMs, memory.indexed())
    // Edits of other batches may join the queue meanwhile: progress never runs backwards. What failed to be embedded stays pending.
    left = settled ? 0 : Math.min(left, pending())
  }
  if (!gone.aborted) await say({ object: 'edit.batch.progress', indexed: total, total })
}

/** Waits for `work`, but not longer than `ms`. True when it was done by then. */
async function within(ms: number, work: Promise<void>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ms)
  })
  return Promise.race([work.then(() => true), timeout]).finally(() => clearTimeout(timer))
}
