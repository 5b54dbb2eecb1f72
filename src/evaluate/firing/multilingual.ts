/** Records with one object a language (WikiFactDiff, MzsRE, MCounterFact of Wang et al.): an edit in one, its questions in another. */
import { z } from 'zod'
import type { Located } from '../../edit/records.ts'
import type { Problem } from '../../errors.ts'
import { asked, type Case, type CaseMemory, type CasesRead } from './case.ts'
import { editOf } from './edits.ts'

/** Language codes as typed ("de", "zh"); absent: every language that the file has. */
export interface Languages {
  readonly edit?: string | undefined
  readonly ask?: string | undefined
}

const text = z.string({ error: 'expected a text' }).trim()
const texts = z
  .union([text.transform((one) => [one]), z.array(text)], { error: 'expected a text or a list of texts' })
  .default([])
const One = z.object({
  subject: text,
  src: text,
  alt: text,
  rephrase: texts,
  loc: texts,
  portability: z.object({ 'New Question': text.default('') }).nullish(),
})
const Record = z.record(z.string(), One)

export function isMultilingual(value: unknown): boolean {
  const objects = typeof value === 'object' && value !== null ? Object.values(value) : []
  return objects.length > 1 && objects.every((one) => typeof one === 'object' && one !== null && 'src' in one)
}

export function multilingual(records: readonly Located[], file: string, languages: Languages): CasesRead {
  const problems: Problem[] = []
  const memories = new Map<string, CaseMemory & { edits: ReturnType<typeof editOf>[] }>()
  const cases: Case[] = []
  let leftOut = 0
  for (const { value, line } of records) {
    const read = Record.safeParse(value)
    if (!read.success) {
      problems.push(...read.error.issues.map((i) => ({ line, field: i.path.join('.') || null, message: i.message })))
      continue
    }
    const codes = Object.keys(read.data)
    for (const [option, typed] of [
      ['--edit-language', languages.edit],
      ['--ask-language', languages.ask],
    ] as const)
      if (typed !== undefined && !codes.some((code) => isOf(code, typed)))
        problems.push({
          line,
          field: null,
          message: `has no object for ${option} ${typed}, only for ${codes.join(' and ')}; name one of these`,
        })
    for (const from of codes.filter((code) => isOf(code, languages.edit))) {
      const { subject, src, alt } = read.data[from] as z.output<typeof One>
      if (src === '' || alt === '') {
        leftOut++
        continue
      }
      const edit = editOf({ subject, prompt: src, target_new: alt })
      const memory = `${file} ${from}`
      const own = memories.get(memory) ?? { edits: [], always: [] }
      memories.set(memory, own)
      own.edits.push(edit)
      for (const to of codes.filter((code) => isOf(code, languages.ask)))
        cases.push(
          ...questions(read.data[to] as z.output<typeof One>, { memory, group: `${from}→${to}`, about: edit.id, derived: true }),
        )
    }
  }
  const notes = leftOut === 0 ? [] : [`${file}: ${leftOut} edits are left out, for a blank \`src\` or \`alt\`.`]
  return { memories, cases, notes, problems }
}

/** "zh" is also "zh-cn". */
function isOf(code: string, typed: string | undefined): boolean {
  const [own, wanted] = [code.toLowerCase(), typed?.toLowerCase()]
  return wanted === undefined || own === wanted || own.startsWith(`${wanted}-`)
}

function questions(
  { src, rephrase, loc, portability }: z.output<typeof One>,
  common: Pick<Case, 'memory' | 'group' | 'derived'> & { readonly about: string },
): Case[] {
  const make = (type: string, contents: readonly string[], wants: readonly string[]) =>
    contents.flatMap((content): Case[] =>
      content === '' ? [] : [{ ...common, type, messages: asked(content), wants, also: [] }],
    )
  return [
    ...make('question', [src], [common.about]),
    ...make('rephrase', rephrase, [common.about]),
    ...make('portability', [portability?.['New Question'] ?? ''], [common.about]),
    ...make('loc', loc, []),
  ]
}
