import { lstatSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Request, Response } from 'express'
import { z } from 'zod'
import { PalimpsestError } from '../errors.ts'
import type { Gateway } from '../gateway.ts'
import { listOf } from '../wire/palimpsest/replies.ts'
import { pathParam, tenantOf, tenantOnly } from './request/query.ts'
import { type Routes, route } from './routes.ts'

const figure = z.object({ value: z.number(), low: z.number(), high: z.number(), n: z.number() })
const row = z.object({
  id: z.string().max(200),
  label: z.string().max(200),
  unit: z.enum(['share', 'number', 'tokens', 'ms', 'probability']),
  values: z.record(z.string().max(64), figure.nullable()),
})
const totals = z.object({ precision: figure.nullable(), recall: figure.nullable(), falseAlarms: figure.nullable() })
const MOST_ROWS = 1_000

/** `results.json` of `palimpsest eval`, as far as it is shown; whatever else it holds is left aside. */
const results = z.object({
  about: z.object({
    version: z.string(),
    at: z.iso.datetime({ offset: true }),
    data: z.string(),
    format: z.string(),
    records: z.number(),
    recordsAsked: z.number(),
    probes: z.record(z.string(), z.number()),
    editsLive: z.number(),
    methods: z.array(z.string().max(64)).max(64),
    model: z.string().nullable(),
    device: z.string(),
    threads: z.number(),
    template: z.string(),
    seed: z.number(),
    minutes: z.number(),
  }),
  notes: z.array(z.string()).max(MOST_ROWS),
  generated: z.array(row).max(MOST_ROWS),
  forced: z.array(row).max(MOST_ROWS),
  selection: z.object({ gate: totals, cosine: totals, medianMs: figure.nullable() }).nullable(),
})

const evaluationReply = z
  .object({
    object: z.literal('evaluation'),
    id: z.string(),
    ...results.shape.about.omit({ recordsAsked: true, editsLive: true, probes: true }).shape,
    records_asked: z.number(),
    edits_live: z.number(),
    rows: z.array(row.extend({ protocol: z.enum(['generated', 'forced', 'selection']) })),
  })
  .meta({ id: 'Evaluation' })
const listReply = listOf(evaluationReply).extend({
  broken: z.array(z.object({ id: z.string(), message: z.string() })),
  folder: z.string(),
  left_out: z.int(),
})
const reportReply = z.object({ ...evaluationReply.shape, notes: z.array(z.string()), probes: z.record(z.string(), z.number()) })

type Results = z.output<typeof results>
type WireRow = z.output<typeof row> & { readonly protocol: 'generated' | 'forced' | 'selection' }

const SAVED = { results: 'results.json', page: 'report.html' } as const

/** A report's page was written by us, of questions and answers that were not: it may run and load nothing. */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; sandbox"

/** Measures shown of every report in the list; one report shows all of its own. */
const HEADLINE = new RegExp(
  `^(${[
    'harmonic/(identical|kept)',
    'reliability',
    'generalization',
    'locality/(identical|kept)',
    'portability/[^/]+',
    'multi_hop',
    'in_scope_neighbour',
    '(tokens_added|latency|fluency)',
    '[^/]+/[^/]+/success',
    'selection/.+',
  ].join('|')})$`,
)

/** `/v1/evaluations`: the reports that lie in the folder of reports, one a folder. The operator's, so of no tenant. */
export function evaluationRoutes(gateway: Gateway): Routes {
  const { reportsDir } = gateway
  if (reportsDir === undefined) return {}
  const read = reader(gateway.limits.reportBytes)
  const list = (req: Request) => {
    tenantOf(req)
    const { names, more } = foldersOf(reportsDir, gateway.limits.reports)
    const found = names.map((id) => ({ id, ...read(join(reportsDir, id)) }))
    const data = found
      .flatMap(({ id, results }) => (results === undefined ? [] : [wire(id, results, (rows) => rows.filter(isHeadline))]))
      .sort((a, b) => b.at.localeCompare(a.at))
    const broken = found.flatMap(({ id, fault }) => (fault === undefined ? [] : [{ id, message: fault }]))
    return { object: 'list', data, broken, folder: reportsDir, left_out: more }
  }
  const one = (req: Request) => {
    tenantOf(req)
    const id = existing(req, reportsDir)
    const { results, fault } = read(join(reportsDir, id))
    if (results === undefined)
      throw new PalimpsestError('evaluation_broken', `${id}: ${fault}. Make it anew with: palimpsest eval`, { param: 'id' })
    return { ...wire(id, results, (rows) => rows), notes: results.notes, probes: results.about.probes }
  }
  const page = (req: Request, res: Response) => {
    const file = join(reportsDir, existing(req, reportsDir), SAVED.page)
    const size = statSync(file, { throwIfNoEntry: false })?.size
    if (size === undefined || size > gateway.limits.reportBytes)
      throw new PalimpsestError(
        'evaluation_not_found',
        `There is no ${SAVED.page} of at most ${gateway.limits.reportBytes} bytes.`,
      )
    res.set({ 'Content-Security-Policy': POLICY, 'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer' })
    res.set('Cache-Control', 'no-cache').type('html').send(readFileSync(file))
  }
  return {
    '/v1/evaluations': {
      get: route(
        { summary: 'List reports of evaluations, with their main figures.', query: tenantOnly, reply: listReply },
        (req, res) => void res.json(list(req)),
      ),
    },
    '/v1/evaluations/:id': {
      get: route(
        { summary: 'Read all figures of a report.', query: tenantOnly, reply: reportReply, errors: ['evaluation_broken'] },
        (req, res) => void res.json(one(req)),
      ),
    },
    '/v1/evaluations/:id/report': {
      get: route({ summary: "A report's own page.", query: tenantOnly, reply: 'text/html' }, page),
    },
  }
}

/** Folders that hold a report or what should be one, the latest first; a name that no URL would carry back is left aside. */
function foldersOf(dir: string, most: number): { names: string[]; more: number } {
  const entries = statSync(dir, { throwIfNoEntry: false })?.isDirectory() ? readdirSync(dir, { withFileTypes: true }) : []
  const names = entries
    .filter((entry) => entry.isDirectory() && isName(entry.name) && isThere(join(dir, entry.name, SAVED.results)))
    .map(({ name }) => ({ name, at: statSync(join(dir, name, SAVED.results), { throwIfNoEntry: false })?.mtimeMs ?? 0 }))
    .sort((a, b) => b.at - a.at)
    .map(({ name }) => name)
  return { names: names.slice(0, most), more: Math.max(0, names.length - most) }
}

/** No separators and no dot in front: nothing outside the folder can be named. */
const isName = (name: string) => /^[^./\\\0][^/\\\0]{0,199}$/.test(name)
/** A folder itself, and no link to one elsewhere. */
const isFolder = (path: string) => lstatSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
const isThere = (file: string) => statSync(file, { throwIfNoEntry: false })?.isFile() ?? false

function existing(req: Request, dir: string): string {
  const id = pathParam(req, 'id')
  if (isName(id) && isFolder(join(dir, id)) && isThere(join(dir, id, SAVED.results))) return id
  throw new PalimpsestError(
    'evaluation_not_found',
    `There is no evaluation '${id.slice(0, 128)}'. List them with GET /v1/evaluations.`,
    { param: 'id' },
  )
}

interface Read {
  readonly results?: Results
  /** Why there are none. */
  readonly fault?: string
}

/** Reads a report's figures, once for each state of its file. */
function reader(mostBytes: number): (folder: string) => Read {
  const held = new Map<string, { readonly stamp: string; readonly read: Read }>()
  return (folder) => {
    const stat = statSync(join(folder, SAVED.results), { throwIfNoEntry: false })
    const stamp = `${stat?.mtimeMs} ${stat?.size}`
    const known = held.get(folder)
    if (known?.stamp === stamp) return known.read
    const read = stat === undefined ? { fault: `${SAVED.results} is gone` } : readOnce(folder, stat.size, mostBytes)
    held.set(folder, { stamp, read })
    return read
  }
}

function readOnce(folder: string, size: number, mostBytes: number): Read {
  if (size > mostBytes) return { fault: `${SAVED.results} has ${size} bytes, more than the ${mostBytes} that are read` }
  let content: unknown
  try {
    content = JSON.parse(readFileSync(join(folder, SAVED.results), 'utf8'))
  } catch (error) {
    return { fault: `${SAVED.results} is no JSON (${(error as Error).message.slice(0, 120)})` }
  }
  const parsed = results.safeParse(content)
  if (parsed.success) return { results: parsed.data }
  const [issue] = parsed.error.issues
  return { fault: `${SAVED.results} is not what palimpsest eval writes (${issue?.path.join('.')}: ${issue?.message})` }
}

const isHeadline = ({ id }: WireRow) => HEADLINE.test(id)

function wire(id: string, { about, generated, forced, selection }: Results, choose: (rows: WireRow[]) => WireRow[]) {
  const rows: WireRow[] = [
    ...generated.map((one) => ({ ...one, protocol: 'generated' as const })),
    ...forced.map((one) => ({ ...one, protocol: 'forced' as const })),
    ...selectionRows(selection),
  ]
  const { at, data, format, model, version, methods, device, threads, template, seed, minutes } = about
  return {
    object: 'evaluation',
    id,
    at,
    data,
    format,
    model,
    version,
    methods,
    device,
    threads,
    template,
    seed,
    minutes,
    records: about.records,
    records_asked: about.recordsAsked,
    edits_live: about.editsLive,
    rows: choose(rows),
  }
}

/** Selection alone has two rules, which stand where methods stand elsewhere. */
function selectionRows(selection: Results['selection']): WireRow[] {
  if (selection === null) return []
  const { gate, cosine, medianMs } = selection
  const of = (key: keyof typeof gate, label: string): WireRow => ({
    id: `selection/${key}`,
    label: `selection: ${label}`,
    unit: 'share',
    protocol: 'selection',
    values: { palimpsest: gate[key], cosine: cosine[key] },
  })
  return [
    of('precision', 'precision'),
    of('recall', 'recall'),
    of('falseAlarms', 'false alarms out of scope'),
    {
      id: 'selection/latency',
      label: 'selection: gate and retrieval',
      unit: 'ms',
      protocol: 'selection',
      values: { palimpsest: medianMs },
    },
  ]
}
