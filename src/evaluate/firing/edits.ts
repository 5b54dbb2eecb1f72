/** Edits as data sets write them: a fact, a sentence or a rule. */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import type { Edit } from '../../edit/edit.ts'

export const filled = z.string({ error: 'expected a text' }).trim().min(1, { error: 'must not be empty' })

export const EditFields = z
  .object({
    subject: z.string().trim().optional(),
    prompt: filled.optional(),
    target_new: filled.optional(),
    aliases: z.array(filled, { error: 'expected a list of names' }).optional(),
    text: filled.optional(),
    when: filled.optional(),
    always: z.boolean({ error: 'expected true or false' }).optional(),
    instruction: filled.optional(),
  })
  .superRefine(({ prompt, target_new, text, when, always, instruction }, check) => {
    const fact = prompt !== undefined && target_new !== undefined
    const rule = instruction !== undefined && (when !== undefined || always === true)
    if ([fact, rule, text !== undefined].filter(Boolean).length === 1) return
    const message =
      'expected a fact (`prompt`, `target_new`), a sentence (`text`) or a rule (`instruction` with `when` or `always`), one of them; write its fields'
    check.addIssue({ code: 'custom', message })
  })
export type EditFields = z.output<typeof EditFields>

/** `tenant` is set when it lands. */
export function editOf(fields: EditFields, id?: string): Edit {
  const { subject = '', aliases = [], prompt = '', target_new: targetNew = '', text, when = '', instruction } = fields
  const common = { aliases, paraphrases: [], tags: [], tenant: '' }
  if (text !== undefined) return { ...common, kind: 'sentence', id: id ?? idOf(text), subject, prompt: text, targetNew: '' }
  if (instruction === undefined)
    return {
      ...common,
      id: id ?? idOf(subject, prompt, targetNew),
      subject,
      prompt: prompt.replaceAll('{}', () => subject),
      targetNew,
    }
  const rule = {
    ...common,
    kind: 'rule' as const,
    id: id ?? idOf(when, instruction),
    subject,
    prompt: when,
    targetNew: instruction,
  }
  return fields.always === true ? { ...rule, always: true } : rule
}

function idOf(...content: readonly string[]): string {
  return `e_${createHash('sha256').update(JSON.stringify(content)).digest('hex').slice(0, 16)}`
}
