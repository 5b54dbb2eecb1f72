import { readFile } from 'node:fs/promises'
import { basename, extname } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { PalimpsestError } from '../errors.ts'
import { Bar } from '../terminal/progress-bar.ts'
import { type Client, query } from './client/client.ts'
import { landingText } from './text/edits-text.ts'
import { lines } from './text/lines.ts'
import type { WireLanding } from './wire.ts'

export interface ImportOptions {
  readonly format: string
  readonly dryRun?: boolean
  readonly batch?: string
  readonly tags?: string
  readonly tenant?: string
  readonly json?: boolean
}

const MEDIA_TYPES: Readonly<Record<string, string>> = {
  '.jsonl': 'application/x-ndjson',
  '.ndjson': 'application/x-ndjson',
  '.json': 'application/json',
  '.yaml': 'application/yaml',
  '.yml': 'application/yaml',
  '.csv': 'text/csv',
  '.txt': 'text/plain',
}
/** Imports that end sooner show no bar. */
const BAR_AFTER_MS = 1_000
/** Its notation is then told from the text. */
const UNKNOWN_TYPE = 'application/octet-stream'

/** Posts each file as one batch. Stops at the first that is refused: those before it have landed, and the message says which was refused. */
export async function importFiles(client: Client, files: readonly string[], options: ImportOptions): Promise<string> {
  if (options.batch !== undefined && files.length > 1)
    throw new PalimpsestError('invalid_value', 'With --batch, import one file at a time: one id names one batch.')
  const landings: { file: string; landing: WireLanding }[] = []
  for (const file of files) landings.push({ file, landing: await importFile(client, file, options) })
  if (options.json)
    return JSON.stringify(
      landings.map(({ landing }) => landing),
      null,
      2,
    )
  return landings.map(({ file, landing }) => landingText(landing, sourceOf(file))).join('\n')
}

async function importFile(client: Client, file: string, options: ImportOptions): Promise<WireLanding> {
  return postFile(client, file, await contentOf(file), options)
}

/** Posts what was read from a file as one batch. */
export async function postFile(
  client: Client,
  file: string,
  content: Uint8Array<ArrayBuffer>,
  { format, dryRun, batch, tags }: ImportOptions,
): Promise<WireLanding> {
  const source = sourceOf(file)
  const asked = query({ format, dry_run: dryRun ? 'true' : undefined, batch, tags, source })
  const headers = { Accept: 'application/x-ndjson', 'Content-Type': MEDIA_TYPES[extname(file).toLowerCase()] ?? UNKNOWN_TYPE }
  try {
    const response = await client.send(`/v1/edits${asked}`, { method: 'POST', body: content, headers })
    return await landingOf(response, source)
  } catch (error) {
    throw error instanceof PalimpsestError ? inFile(error, file) : error
  }
}

export const sourceOf = (file: string): string => (file === '-' ? 'standard input' : basename(file))

export async function contentOf(file: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return new Uint8Array(file === '-' ? await buffer(process.stdin) : await readFile(file))
  } catch (cause) {
    throw new PalimpsestError('invalid_value', `${file} can't be read: ${(cause as Error).message}`, { cause })
  }
}

/** Draws the progress lines; the last line is the result. */
export async function landingOf(response: Response, label: string): Promise<WireLanding> {
  const bar = new Bar(process.stderr, () => performance.now())
  const startedMs = performance.now()
  for await (const line of lines(response.body ?? [])) {
    const said = JSON.parse(line) as WireLanding | { object: 'edit.batch.progress' | 'edit.batch.check' }
    if (said.object === 'edit.batch') {
      bar.clear()
      return said as WireLanding
    }
    if (said.object !== 'edit.batch.progress') continue
    const { indexed, total } = said as unknown as { indexed: number; total: number }
    const elapsedMs = performance.now() - startedMs
    const perSecond = (indexed * 1000) / Math.max(1, elapsedMs)
    if (total > 0 && elapsedMs >= BAR_AFTER_MS)
      bar.update({
        label: `indexing ${label}`,
        done: indexed,
        total,
        unit: 'edits',
        perSecond,
        secondsLeft: perSecond > 0 ? (total - indexed) / perSecond : null,
      })
  }
  bar.clear()
  throw new PalimpsestError(
    'network',
    'The gateway went away before it had said what it did. Import again: what has landed does not land twice.',
  )
}

/** The gateway does not know what the file is called here. */
function inFile(error: PalimpsestError, file: string): PalimpsestError {
  const { code, message, param, problems } = error
  return new PalimpsestError(code, message.replace(/^The batch/, file), {
    param,
    problems: problems.map((problem) => ({ ...problem, file })),
  })
}
