/**
 * Our own shape of an edit on the wire and in files (snake_case), and the one place where an Edit is made: readers of outside
 * formats fill in these same fields, so that every edit passes the same checks and every problem names the field its user wrote.
 */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import type { Problem } from '../errors.ts'
import { type Edit, LIMITS } from './edit.ts'
import { instant, isoDate } from './instant.ts'
import { unknownField } from './spelling.ts'
import { list, name, optional, show, text } from './values.ts'

/** Fields of one edit. Text is trimmed and `\r\n` becomes `\n`; null or blank means absent where a field is optional. */
export const OwnRecord = z.strictObject({
  id: optional(name(LIMITS.idChars)),
  subject: text(LIMITS.subjectChars, 'the name of what the edit is about'),
  aliases: list(text(LIMITS.subjectChars), LIMITS.aliases),
  prompt: text(LIMITS.promptChars, 'the statement without its end, or a question'),
  target_new: text(LIMITS.targetChars, 'what the prompt is to be answered with'),
  target_true: optional(text(LIMITS.targetChars)),
  relation: optional(text(LIMITS.subjectChars)),
  paraphrases: list(text(LIMITS.promptChars), LIMITS.paraphrases),
  tags: list(text(LIMITS.tagChars), LIMITS.tags),
  tenant: optional(name(LIMITS.tenantChars)),
  models: list(text(LIMITS.modelChars), LIMITS.models),
  valid_from: optional(instant),
  valid_to: optional(instant),
  source: optional(text(LIMITS.sourceChars)),
})

type Fields = z.output<typeof OwnRecord>
export type OwnField = keyof Fields
export const OWN_FIELDS = Object.keys(OwnRecord.shape) as readonly OwnField[]
export const LIST_FIELDS: ReadonlySet<string> = new Set<OwnField>(['aliases', 'paraphrases', 'tags', 'models'])

/** What a record is read into. */
export interface ReadContext {
  /** Tenant of records that name none. */
  readonly tenant: string
  /** Added to every edit's own tags. */
  readonly tags: readonly string[]
  /** `one`: a record of another tenant is refused, so that nobody writes across a partition by naming it. `any`: records may say. */
  readonly tenants: 'one' | 'any'
}

export interface Reading {
  readonly edits: readonly Edit[]
  readonly problems: readonly Problem[]
}

/** Read fields of our own shape; `path` gives a field its name in the user's record. Never throws. */
export function readFields(
  fields: unknown,
  context: ReadContext,
  path: (own: readonly PropertyKey[]) => string = dotted,
): Reading {
  const parsed = OwnRecord.safeParse(fields)
  if (!parsed.success) {
    // A misspelt field first: it is why another one is missing.
    const issues = [...parsed.error.issues].sort((a, b) => Number(isUnknown(b)) - Number(isUnknown(a)))
    return { edits: [], problems: issues.flatMap((issue) => fromIssue(issue, path)) }
  }
  const edit = toEdit(parsed.data, context)
  const problems = faults(edit, parsed.data, context).map(([field, message]) => ({ field: path(field), message }))
  return problems.length > 0 ? { edits: [], problems } : { edits: [edit], problems: [] }
}

function toEdit(fields: Fields, context: ReadContext): Edit {
  const {
    subject,
    target_new: targetNew,
    target_true: targetTrue,
    relation,
    valid_from: validFrom,
    valid_to: validTo,
    source,
  } = fields
  const tenant = fields.tenant ?? context.tenant
  const prompt = fill(fields.prompt, subject)
  return {
    id: fields.id ?? contentId(tenant, subject, prompt, targetNew),
    subject,
    aliases: fields.aliases,
    prompt,
    targetNew,
    ...(targetTrue !== undefined && { targetTrue }),
    ...(relation !== undefined && { relation }),
    paraphrases: [...new Set(fields.paraphrases.map((paraphrase) => fill(paraphrase, subject)))],
    tags: [...new Set([...fields.tags, ...context.tags])],
    tenant,
    ...(fields.models.length > 0 && { models: fields.models }),
    ...(validFrom !== undefined && { validFrom }),
    ...(validTo !== undefined && { validTo }),
    ...(source !== undefined && { source }),
  }
}

/** `{}` stands for the subject. Split, not replace: a subject may hold `$&`. */
function fill(template: string, subject: string): string {
  const parts = template.split('{}')
  return parts.length === 2 ? parts.join(subject) : template
}

/** `e_` and 16 hex digits: the same statement gets the same id on every machine. */
function contentId(...content: [tenant: string, subject: string, prompt: string, targetNew: string]): string {
  return `e_${createHash('sha256').update(JSON.stringify(content)).digest('hex').slice(0, 16)}`
}

/** Checks that look at more than one field, once each field is sound by itself. */
function faults(edit: Edit, fields: Fields, context: ReadContext): [field: PropertyKey[], message: string][] {
  const found: [PropertyKey[], string][] = []
  const filled: [PropertyKey[], string][] = [
    [['prompt'], edit.prompt],
    ...edit.paraphrases.map((p, i): [PropertyKey[], string] => [['paraphrases', i], p]),
  ]
  for (const [field, value] of filled) {
    if (value.includes('{}'))
      found.push([field, '`{}` stands for the subject and may occur once; write the subject out in the other places'])
    if (value.length > LIMITS.promptChars)
      found.push([field, `with the subject filled in it has ${value.length} characters; at most ${LIMITS.promptChars} are taken`])
  }
  if (edit.validFrom !== undefined && edit.validTo !== undefined && edit.validFrom >= edit.validTo)
    found.push([['valid_to'], `must be later than valid_from (${isoDate(edit.validFrom)}), got ${isoDate(edit.validTo)}`])
  if (edit.tags.length > LIMITS.tags)
    found.push([['tags'], `with the batch's own tags there are ${edit.tags.length}; at most ${LIMITS.tags} are taken`])
  if (context.tenants === 'one' && fields.tenant !== undefined && fields.tenant !== context.tenant)
    found.push([
      ['tenant'],
      `this batch is for tenant ${show(context.tenant)}, but the record names ${show(fields.tenant)}; send it as that tenant`,
    ])
  return found
}

function fromIssue(issue: z.core.$ZodIssue, path: (own: readonly PropertyKey[]) => string): Problem[] {
  if (isUnknown(issue)) return issue.keys.map((key) => ({ field: key, message: unknownField(key, OWN_FIELDS) }))
  return [{ field: issue.path.length > 0 ? path(issue.path) : null, message: issue.message }]
}

function isUnknown(issue: z.core.$ZodIssue): issue is z.core.$ZodIssueUnrecognizedKeys {
  return issue.code === 'unrecognized_keys'
}

function dotted(path: readonly PropertyKey[]): string {
  return path.map(String).join('.')
}

/** The edit in our own shape: what `readFields` reads back to an equal edit. Dates are ISO 8601 in UTC; absent fields are left out. */
export function toWire(edit: Edit): Record<string, unknown> {
  return {
    id: edit.id,
    subject: edit.subject,
    aliases: [...edit.aliases],
    prompt: edit.prompt,
    target_new: edit.targetNew,
    ...(edit.targetTrue !== undefined && { target_true: edit.targetTrue }),
    ...(edit.relation !== undefined && { relation: edit.relation }),
    paraphrases: [...edit.paraphrases],
    tags: [...edit.tags],
    tenant: edit.tenant,
    ...(edit.models !== undefined && { models: [...edit.models] }),
    ...(edit.validFrom !== undefined && { valid_from: isoDate(edit.validFrom) }),
    ...(edit.validTo !== undefined && { valid_to: isoDate(edit.validTo) }),
    ...(edit.source !== undefined && { source: edit.source }),
  }
}
