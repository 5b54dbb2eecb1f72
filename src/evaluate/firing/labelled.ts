/** JSON lines of one edit each, with messages that need it and messages that do not: the trial's, DUnE's in that shape, and our corpus. */
import { z } from 'zod'
import type { Edit } from '../../edit/edit.ts'
import type { Located } from '../../edit/records.ts'
import type { Problem } from '../../errors.ts'
import type { Case, CaseMemory, CasesRead } from './case.ts'
import { EditFields, editOf, filled } from './edits.ts'

const Messages = z
  .array(z.object({ role: z.enum(['system', 'user', 'assistant']), content: filled }), { error: 'expected a list of messages' })
  .refine((messages) => messages.at(-1)?.role === 'user', { error: 'must end with a message of the role `user`' })
const Ids = z.array(filled, { error: 'expected a list of edit ids' }).default([])
const Item = z.object({ type: filled, messages: Messages, language: filled.optional(), also: Ids, is: Ids })
const Items = z.array(Item, { error: 'expected a list of {type, messages}' }).default([])
const Line = z.object({
  id: filled.optional(),
  team: filled.optional(),
  kind: filled.default('edits'),
  language: filled.default('en'),
  scope: z.string().nullish(),
  always: z.boolean().default(false),
  edit: EditFields.nullable(),
  keys: z.array(z.array(filled).min(1), { error: 'expected a list of lists of wordings' }).default([]),
  in_scope: Items,
  near_miss: Items,
})
type Line = z.output<typeof Line>

/** Kind of HalluEditBench's lines, whose questions a model wrote. */
const DERIVED = 'H'
/** Kind of edits that are asked about in other languages: an item's type names its language. */
const ACROSS = 'X'

interface Placed {
  readonly line: Line
  readonly at: number
  readonly memory: string
  readonly edit: Edit | null
}

export function labelled(records: readonly Located[], file: string): CasesRead {
  const problems: Problem[] = []
  const placed: Placed[] = []
  for (const { value, line: at } of records) {
    const read = Line.safeParse(value)
    if (!read.success)
      problems.push(...read.error.issues.map((i) => ({ line: at, field: i.path.join('.') || null, message: i.message })))
    else placed.push({ line: read.data, at, ...where(read.data, file) })
  }
  const memories = memoriesOf(placed)
  const held = new Map(placed.map((one) => [one.line.id ?? one.edit?.id, one]))
  const cases = placed.flatMap((one) => (one.edit === null ? unrelated(one, placed) : about(one, one.edit, held, problems)))
  return { memories, cases, notes: [], problems }
}

function where({ id, team, kind, language, edit }: Line, file: string): Pick<Placed, 'memory' | 'edit'> {
  return { memory: team ?? `${file} ${kind} ${language}`, edit: edit === null ? null : editOf(edit, id) }
}

function memoriesOf(placed: readonly Placed[]): Map<string, CaseMemory> {
  const memories = new Map<string, { edits: Edit[]; always: string[] }>()
  for (const { line, memory, edit } of placed) {
    if (edit === null) continue
    const own = memories.get(memory) ?? { edits: [], always: [] }
    memories.set(memory, own)
    own.edits.push(edit)
    if (line.always || line.scope === 'global' || edit.always === true) own.always.push(edit.id)
  }
  return memories
}

function groupOf({ kind, language }: Line, item: z.output<typeof Item>): string {
  if (kind === ACROSS) return `${kind} ${item.type}`
  return item.language === undefined || item.language === language
    ? `${kind} ${language}`
    : `${kind} ${language}→${item.language}`
}

/** A near miss that needs another edit (`is`) is asked on that edit's behalf. */
function about(
  { line, at, memory }: Placed,
  edit: Edit,
  held: ReadonlyMap<string | undefined, Placed>,
  problems: Problem[],
): Case[] {
  const known = (ids: readonly string[], field: string) => {
    for (const id of ids.filter((id) => held.get(id)?.memory !== memory))
      problems.push({
        line: at,
        field,
        message: `names the edit ${id}, which no line of its memory has; write the id of one that is there`,
      })
  }
  const common = { memory, about: edit.id, ...(line.kind === DERIVED && { derived: true as const }) }
  const near = line.near_miss.map((item, i): Case => {
    known(item.is, `near_miss.${i}.is`)
    known(item.also, `near_miss.${i}.also`)
    const owner = item.is[0] === undefined ? line : (held.get(item.is[0])?.line ?? line)
    const [type, wants] = [item.is.length > 0 ? `${item.type}, is` : item.type, item.is]
    return { ...common, group: groupOf(owner, item), type, messages: item.messages, wants, also: item.also }
  })
  const answered = line.keys.length > 0 && { keys: line.keys }
  const inside = line.in_scope.map((item, i): Case => {
    known(item.also, `in_scope.${i}.also`)
    const { type, messages, also } = item
    return { ...common, ...answered, group: groupOf(line, item), type, messages, wants: [edit.id], also }
  })
  return [...inside, ...near]
}

/** Asked of every memory of its file in its language, or of all where that language has none. */
function unrelated({ line }: Placed, placed: readonly Placed[]): Case[] {
  const withEdits = placed.filter(({ edit }) => edit !== null)
  const same = withEdits.filter((one) => one.line.language === line.language)
  const memories = new Set((same.length > 0 ? same : withEdits).map(({ memory }) => memory))
  return line.near_miss.flatMap((item) =>
    [...memories].map(
      (memory): Case => ({ memory, group: groupOf(line, item), type: item.type, messages: item.messages, wants: [], also: [] }),
    ),
  )
}
