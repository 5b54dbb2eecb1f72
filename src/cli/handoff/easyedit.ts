import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { z } from 'zod'
import type { Edit } from '../../edit/edit.ts'
import { PalimpsestError } from '../../errors.ts'
import { readDatasetFile } from '../../evaluate/data/dataset.ts'
import type { Probe } from '../../evaluate/data/probe.ts'
import { hparamsFiles, passes, readmeText, refuseOthers, requestOf, SCRIPT } from '../../handoff/exchange/easyedit-export.ts'
import { count } from '../../terminal/table.ts'
import { type Client, query } from '../client/client.ts'
import type { Typed } from '../client/command.ts'
import { bootWithModel } from '../client/local.ts'
import type { WireEdit, WirePage } from '../wire.ts'
import { add, editsQuery } from './command.ts'

const PAGE = 1_000

/** A fact, unless it says otherwise. */

export function addEasyEditCommands(handoff: Command): void {
  add(handoff, 'export', 'the edits as requests, hyper-parameters and a script for EasyEdit', exportEdits)
    .option('--to <tool>', 'easyedit', 'easyedit')
    .requiredOption('--out <folder>', 'a folder that is not there yet')
    .option(
      '--edits <query>',
      'which edits: ids, or tag=T, batch=B, subject=S, q=WORDS, with commas between; default: all live ones',
    )
    .option('--data <file>', 'CounterFact, zsRE, KnowEdit … whose rephrases, locality and portability of these edits go along')
    .option('--for <name>', 'model whose layers and strengths are taken: llama-2-7b, qwen2.5-0.5b, qwen2.5-1.5b', 'llama-2-7b')
    .option('--hf-model <path>', 'its Hugging Face folder, as the files are to name it', './hugging_cache/llama-2-7b')
  add(
    handoff,
    'import <path>',
    'a PEFT folder, a GGUF LoRA, or saved deltas of MEMIT or PMET, as an adapter',
    importAdapter,
    bootWithModel,
  )
    .requiredOption('--id <name>', 'of the adapter')
    .option('--method <name>', 'how it was made', 'imported')
    .option('--edits <ids>', 'ids of the edits that it holds, with commas between')
    .option('--edits-of <file>', 'the requests.json of an export: the edits in it')
}

interface ExportTyped extends Typed {
  readonly to: string
  readonly out: string
  readonly edits?: string
  readonly data?: string
  readonly for: string
  readonly hfModel: string
}

async function exportEdits(client: Client, _args: readonly string[], options: ExportTyped) {
  if (options.to !== 'easyedit') throw new PalimpsestError('invalid_value', `Expected --to to be easyedit, got '${options.to}'.`)
  const out = resolve(options.out)
  if (existsSync(out)) throw new PalimpsestError('invalid_value', `${out} is there already: name another folder.`)
  const edits = await liveEdits(client, options.edits)
  refuseOthers(edits)
  const probes = probesById(edits, options.data)
  const requests = edits.map((edit) => ({ edit, request: requestOf(edit, probes.get(edit.id) ?? []) }))
  const kept = requests.flatMap(({ request }) => (request === null ? [] : [request]))
  const leftOut = requests.filter(({ request }) => request === null).map(({ edit }) => edit.id)
  if (kept.length === 0)
    throw new PalimpsestError(
      'invalid_value',
      'No live edit names its subject in its prompt, so there is nothing that EasyEdit would take.',
    )
  const split = passes(kept)
  const files = hparamsFiles(options.for, options.hfModel, Math.max(...split.map((pass) => pass.length)))
  mkdirSync(join(out, 'hparams'), { recursive: true })
  writeFileSync(join(out, 'requests.json'), `${JSON.stringify(split, null, 1)}\n`)
  for (const [name, text] of files) writeFileSync(join(out, 'hparams', `${name}.yaml`), text)
  writeFileSync(join(out, 'run.py'), SCRIPT)
  writeFileSync(join(out, 'README.md'), readmeText(options.for, options.hfModel, kept.length, split.length, leftOut))
  const value = { out, edits: kept.length, passes: split.length, left_out: leftOut, hparams: [...files.keys()] }
  const passText = split.length === 1 ? 'one pass' : `${split.length} passes, since subjects occur more than once`
  const besides =
    leftOut.length === 0 ? '' : `\n${count(leftOut.length, 'edit')} left out: their prompt does not name their subject.`
  return {
    text: `${count(kept.length, 'edit')} in ${passText}, hyper-parameters for ${[...files.keys()].join(', ')}: ${out}\nRead its README.md, then: python ${join(out, 'run.py')} MEMIT${besides}`,
    value,
  }
}

async function liveEdits(client: Client, typed: string | undefined): Promise<Edit[]> {
  const wanted = editsQuery(typed)
  const wire: WireEdit[] = []
  if (Array.isArray(wanted))
    for (const id of wanted) wire.push(await client.json<WireEdit>('GET', `/v1/edits/${encodeURIComponent(id)}`))
  else {
    let cursor: string | undefined
    do {
      const page = await client.json<WirePage<WireEdit>>(
        'GET',
        `/v1/edits${query({ ...wanted, state: 'live', limit: String(PAGE), cursor })}`,
      )
      wire.push(...page.data)
      cursor = page.next_cursor ?? undefined
    } while (cursor !== undefined)
    wire.reverse()
  }
  return wire.map(editOf)
}

/** Of an edit's fields on the wire, those that a request needs; the fields present tell the kind. */
function editOf({ target_new: target, target_true: targetTrue, text, when, instruction, ...edit }: WireEdit): Edit {
  const { id, subject = '', aliases, paraphrases, tags, tenant } = edit
  const common = { id, subject, aliases, paraphrases, tags, tenant }
  if (text !== undefined) return { ...common, kind: 'sentence', prompt: text, targetNew: '' }
  if (instruction !== undefined) return { ...common, kind: 'rule', prompt: when ?? '', targetNew: instruction }
  return { ...common, prompt: edit.prompt ?? '', targetNew: target ?? '', ...(targetTrue !== undefined && { targetTrue }) }
}

/** The data file's probes, by the id of the edit with the same prompt and target. */
function probesById(edits: readonly Edit[], file: string | undefined): Map<string, readonly Probe[]> {
  if (file === undefined) return new Map()
  const fact = ({ prompt, targetNew }: Edit) => `${prompt.trim()}\n${targetNew.trim()}`
  const known = new Map(
    readDatasetFile(file, 'auto').records.flatMap(({ edits: own, probes }) => own.map((edit) => [fact(edit), probes] as const)),
  )
  return new Map(edits.map((edit) => [edit.id, known.get(fact(edit)) ?? []]))
}

interface ImportTyped extends Typed {
  readonly id: string
  readonly method: string
  readonly edits?: string
  readonly editsOf?: string
}

const exported = z.array(
  z.array(z.object({ case_id: z.string(), subject: z.string().default(''), target_new: z.string().default('') })),
)

/** Ids of the facts in an export's requests; throws `invalid_value` naming each that lacks a subject or a target. */
function exportedIds(file: string): string[] {
  const requests = exported.parse(JSON.parse(readFileSync(file, 'utf8'))).flat()
  const others = requests.filter(({ subject, target_new: target }) => subject.trim() === '' || target.trim() === '')
  if (others.length > 0)
    throw new PalimpsestError(
      'invalid_value',
      `EasyEdit takes facts with a subject. Not taken from ${file}: ${others.map((one) => one.case_id).join(', ')}.`,
    )
  return requests.map((one) => one.case_id)
}

async function importAdapter(client: Client, [path = '']: readonly string[], { id, method, edits, editsOf }: ImportTyped) {
  const ids = [
    ...(edits
      ?.split(',')
      .map((one) => one.trim())
      .filter(Boolean) ?? []),
    ...(editsOf === undefined ? [] : exportedIds(editsOf)),
  ]
  const value = await client.json<{ id: string; rank: number; bytes: number; edits: string[] }>('POST', '/v1/handoffs/import', {
    id,
    method,
    path: resolve(path),
    edits: ids,
  })
  const held =
    ids.length === 0 ? 'It is not known which edits it holds: they stay in the prompt.' : `It holds ${count(ids.length, 'edit')}.`
  return {
    text: `${value.id}: rank ${value.rank}, ${(value.bytes / 1e6).toFixed(1)} MB, registered and not promoted. ${held}`,
    value,
  }
}
