/** What `serve` prints once it serves; pure. */
import type { ModelInfo } from '../../engine/engine.ts'
import type { Faster } from '../../engine/own-model.ts'
import type { FolderCount } from '../../memory/files/watcher.ts'
import type { HeldEdit } from '../../memory/memory.ts'
import { count, printable } from '../../terminal/table.ts'

export interface Served {
  readonly version: string
  readonly url: string
  readonly model: ModelInfo
  readonly slots: number
  /** Whether a faster engine is to be had. */
  readonly faster: Faster
  readonly buildLog: string
  readonly dataDir: string
  readonly editsDir: string
  /** Live edits of the default tenant. */
  readonly liveEdits: number
  readonly files: readonly FolderCount[]
  readonly problems: number
  /** An edit to ask about, where there is one. */
  readonly sample: string | null
}

/** Files of edits named one by one. */
const FILES_NAMED = 4

export function banner(served: Served): string {
  const { version, url, model, slots, dataDir, sample } = served
  const where = model.device === 'remote' ? 'another server' : `${model.device}, ${count(model.threads, 'thread')}`
  const lines = [
    `Palimpsest ${version}`,
    `  model   ${model.name} on ${where}; ${count(slots, 'slot')} of ${model.contextTokens.toLocaleString('en')} tokens`,
    ...fasterText(served).map((text) => `          (${text})`),
    `  edits   ${count(served.liveEdits, 'edit')} live; ${filesText(served)}`,
    `  data    ${dataDir}`,
    `  URL     ${url}/v1`,
    `  console ${url}/`,
    '',
    `${sample === null ? 'Try it' : 'Try it, edited and then as the model was'}:`,
    curl(url, model.name, sample ?? 'Who are you?'),
    ...(sample === null ? [] : [curl(url, `${model.name}@base`, sample)]),
  ]
  return lines.map(printable).join('\n')
}

function fasterText({ faster, buildLog }: Served): readonly string[] {
  switch (faster) {
    case 'no':
      return []
    case 'being built':
      return ['the faster engine is being built in the background: about 5 minutes, at low priority; --no-build leaves it out']
    case 'by hand':
      return ['about 1.4 times as fast after 5 minutes of: palimpsest engine build --server']
    case 'failed lately':
      return [`the faster engine failed within the last day, see ${buildLog}; by hand: palimpsest engine build --server --force`]
    default:
      return faster satisfies never
  }
}

function filesText({ files, editsDir, problems }: Served): string {
  const named = files.slice(0, FILES_NAMED).map(({ file, edits }) => `${edits.toLocaleString('en')} from ${file}`)
  const more = files.length > FILES_NAMED ? [`and ${count(files.length - FILES_NAMED, 'more file')}`] : []
  const faults = problems === 0 ? [] : [`${count(problems, 'problem')} in ${editsDir}, see above`]
  return files.length + problems === 0 ? `none in ${editsDir}` : [...named, ...more, ...faults].join(', ')
}

const ANSWER_TOKENS = 60

/** One line for a POSIX shell. */
export function curl(url: string, model: string, question: string): string {
  const body = JSON.stringify({ model, max_tokens: ANSWER_TOKENS, messages: [{ role: 'user', content: question }] })
  return `  curl -s ${url}/v1/chat/completions -H 'Content-Type: application/json' -d '${body.replaceAll("'", "'\\''")}'`
}

/** A question that shows an edit at work: of the edit that landed first and has one, as its author put it. `held` is latest first. */
export function sampleQuestion(held: readonly HeldEdit[]): string | null {
  const edits = held.toReversed().map(({ edit }) => edit)
  const prompts = edits.flatMap(({ kind, prompt }) => (kind === undefined ? [prompt] : []))
  const questions = edits.flatMap(({ kind, prompt, paraphrases, examples = [] }) =>
    [...(kind === undefined ? [prompt] : []), ...paraphrases, ...examples].filter((text) => /\?\s*$/.test(text)).slice(0, 1),
  )
  return questions[0]?.trim() ?? prompts[0] ?? null
}
