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
import { isAbsent, isFalse, list, name, optional, show, text, truth } from './values.ts'

const before = {
  id: optional(name(LIMITS.idChars)).describe('Default: a hash of tenant, subject, prompt and target.'),
  subject: optional(text(LIMITS.subjectChars)).describe('Name of what it is about, where it has one.'),
  aliases: list(text(LIMITS.subjectChars), LIMITS.aliases).describe('Other names of the subject.'),
}
const after = {
  paraphrases: list(text(LIMITS.promptChars), LIMITS.paraphrases).describe('Other ways to ask or say it.'),
  examples: list(text(LIMITS.promptChars), LIMITS.examples).describe('Messages that need it.'),
  counterexamples: list(text(LIMITS.promptChars), LIMITS.examples).describe('Messages that look like it and do not need it.'),
  tags: list(text(LIMITS.tagChars), LIMITS.tags).describe('Labels for lists, requests and experiments.'),
  tenant: optional(name(LIMITS.tenantChars)).describe("Whose edit it is; the batch's tenant where left out."),
  models: list(text(LIMITS.modelChars), LIMITS.models).describe(
    'Served models that it is for, `*` for any text; all where left out.',
  ),
  valid_from: optional(instant).describe('ISO 8601; from when it holds.'),
  valid_to: optional(instant).describe('ISO 8601; until when it holds.'),
  source: optional(text(LIMITS.sourceChars)).describe('Where it comes from.'),
}

/** Fields of each kind of edit. Text is trimmed and `\r\n` becomes `\n`; null or blank means absent where a field is optional. */
export const KINDS = {
  fact: z
    .strictObject({
      ...before,
      prompt: text(LIMITS.promptChars, 'the statement without its end, or a question'),
      target_new: text(LIMITS.targetChars, 'what the prompt is to be answered with'),
      target_true: optional(text(LIMITS.targetChars)).describe('What it replaces.'),
      relation: optional(text(LIMITS.subjectChars)).describe('A label such as `head of government`; equal labels supersede.'),
      ...after,
    })
    .meta({ id: 'Fact' }),
  sentence: z
    .strictObject({ ...before, text: text(LIMITS.promptChars, 'a sentence that is true from now on'), ...after })
    .meta({ id: 'Sentence' }),
  rule: z
    .strictObject({
      ...before,
      when: optional(text(LIMITS.promptChars)).describe('Which messages it is for.'),
      instruction: text(LIMITS.targetChars, 'what is to be done'),
      always: truth.describe('In the place of `when`: for every message.'),
      ...after,
    })
    .meta({ id: 'Rule' }),
} as const

type Kind = keyof typeof KINDS
type Fact = z.output<typeof KINDS.fact>
type Sentence = z.output<typeof KINDS.sentence>
type Rule = z.output<typeof KINDS.rule>
type Fields = Fact | Sentence | Rule
export type OwnField = keyof Fact | keyof Sentence | keyof Rule
const fieldsOf = (kind: Kind) => Object.keys(KINDS[kind].shape) as OwnField[]
export const OWN_FIELDS: readonly OwnField[] = [...new Set([...fieldsOf('fact'), ...fieldsOf('sentence'), ...fieldsOf('rule')])]
export const LIST_FIELDS: ReadonlySet<string> = new Set<OwnField>([
  'aliases',
  'paraphrases',
  'examples',
  'counterexamples',
  'tags',
  'models',
])

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
  const kind = kindOf(fields)
  const parsed = KINDS[kind].safeParse(ofKind(fields, kind))
  if (!parsed.success) {
    // A misspelt field first: it is why another one is missing.
    const issues = [...parsed.error.issues].sort((a, b) => Number(isUnknown(b)) - Number(isUnknown(a)))
    return { edits: [], problems: issues.flatMap((issue) => fromIssue(issue, kind, path)) }
  }
  const edit = toEdit(parsed.data, context)
  const problems = faults(edit, parsed.data, context).map(([field, message]) => ({ field: path(field), message }))
  return problems.length > 0 ? { edits: [], problems } : { edits: [edit], problems: [] }
}

/** By the fields that say something, else by those that are there; a record with none is taken for a fact. */
function kindOf(fields: unknown): Kind {
  const record = typeof fields === 'object' && fields !== null ? (fields as Partial<Record<OwnField, unknown>>) : {}
  const says = (field: OwnField) => Object.hasOwn(record, field) && !isSilent(field, record[field])
  const has = (field: OwnField) => Object.hasOwn(record, field)
  for (const test of [says, has]) {
    if (test('when') || test('instruction') || test('always')) return 'rule'
    if (test('text')) return 'sentence'
    if (test('prompt') || test('target_new')) return 'fact'
  }
  return 'fact'
}

/** The record without fields of other kinds that say nothing: a table has columns for all kinds. */
function ofKind(fields: unknown, kind: Kind): unknown {
  if (typeof fields !== 'object' || fields === null) return fields
  const idle = ([field, value]: [string, unknown]) =>
    (OWN_FIELDS as readonly string[]).includes(field) && !Object.hasOwn(KINDS[kind].shape, field) && isSilent(field, value)
  const entries = Object.entries(fields)
  return entries.some(idle) ? Object.fromEntries(entries.filter((entry) => !idle(entry))) : fields
}

function isSilent(field: string, value: unknown): boolean {
  return isAbsent(value) || (field === 'always' && isFalse(value))
}

function toEdit(fields: Fields, context: ReadContext): Edit {
  const { subject = '', valid_from: validFrom, valid_to: validTo, source } = fields
  const tenant = fields.tenant ?? context.tenant
  const said = statedBy(fields, subject)
  const { prompt, targetNew, targetTrue, relation, always, kind } = said
  const paraphrases = kind === undefined ? fields.paraphrases.map((paraphrase) => fill(paraphrase, subject)) : fields.paraphrases
  return {
    ...(kind !== undefined && { kind }),
    id: fields.id ?? contentId(tenant, subject, prompt, targetNew, ...(kind === undefined ? [] : [kind])),
    subject,
    aliases: fields.aliases,
    prompt,
    targetNew,
    ...(targetTrue !== undefined && { targetTrue }),
    ...(relation !== undefined && { relation }),
    paraphrases: [...new Set(paraphrases)],
    ...(fields.examples.length > 0 && { examples: fields.examples }),
    ...(fields.counterexamples.length > 0 && { counterexamples: fields.counterexamples }),
    ...(always && { always }),
    tags: [...new Set([...fields.tags, ...context.tags])],
    tenant,
    ...(fields.models.length > 0 && { models: fields.models }),
    ...(validFrom !== undefined && { validFrom }),
    ...(validTo !== undefined && { validTo }),
    ...(source !== undefined && { source }),
  }
}

type Stated = Pick<Edit, 'kind' | 'prompt' | 'targetNew' | 'targetTrue' | 'relation' | 'always'>

/** In a sentence or a rule `{}` is text like any other. */
function statedBy(fields: Fields, subject: string): Stated {
  if ('text' in fields) return { kind: 'sentence', prompt: fields.text, targetNew: '' }
  if ('instruction' in fields) {
    const { when = '', instruction, always } = fields
    return { kind: 'rule', prompt: when, targetNew: instruction, ...(always && { always }) }
  }
  const { prompt, target_new: targetNew, target_true: targetTrue, relation } = fields
  return {
    prompt: fill(prompt, subject),
    targetNew,
    ...(targetTrue !== undefined && { targetTrue }),
    ...(relation !== undefined && { relation }),
  }
}

/** `{}` stands for the subject. Split, not replace: a subject may hold `$&`. */
function fill(template: string, subject: string): string {
  const parts = template.split('{}')
  return subject !== '' && parts.length === 2 ? parts.join(subject) : template
}

/** `e_` and 16 hex digits: the same statement gets the same id on every machine. */
function contentId(...content: [tenant: string, subject: string, prompt: string, targetNew: string, kind?: string]): string {
  return `e_${createHash('sha256').update(JSON.stringify(content)).digest('hex').slice(0, 16)}`
}

/** Checks that look at more than one field, once each field is sound by itself. */
function faults(edit: Edit, fields: Fields, context: ReadContext): [field: PropertyKey[], message: string][] {
  const found: [PropertyKey[], string][] = []
  const filled: [PropertyKey[], string][] = [
    [['prompt'], edit.prompt],
    ...edit.paraphrases.map((p, i): [PropertyKey[], string] => [['paraphrases', i], p]),
  ]
  for (const [field, value] of edit.kind === undefined ? filled : []) {
    if (value.includes('{}'))
      found.push([
        field,
        edit.subject === ''
          ? '`{}` stands for the subject, and there is none; give subject, or write the name out'
          : '`{}` stands for the subject and may occur once; write the subject out in the other places',
      ])
    if (value.length > LIMITS.promptChars)
      found.push([field, `with the subject filled in it has ${value.length} characters; at most ${LIMITS.promptChars} are taken`])
  }
  if (edit.kind === 'rule' && !edit.always && edit.prompt === '')
    found.push([['when'], 'is missing; expected a text, which messages it is for; for every message write `always: true`'])
  if (edit.always && edit.prompt !== '')
    found.push([['when'], 'a rule with `always` is for every message; leave out one of the two'])
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

function fromIssue(issue: z.core.$ZodIssue, kind: Kind, path: (own: readonly PropertyKey[]) => string): Problem[] {
  if (isUnknown(issue)) return issue.keys.map((key) => ({ field: path([key]), message: strayField(key, kind) }))
  return [{ field: issue.path.length > 0 ? path(issue.path) : null, message: issue.message }]
}

/** A field of another kind, or of none. */
function strayField(key: string, kind: Kind): string {
  const instead = Object.hasOwn(INSTEAD[kind], key) ? INSTEAD[kind][key as OwnField] : undefined
  if (instead !== undefined) return `a ${kind} has no ${key}; ${instead}`
  if ((OWN_FIELDS as readonly string[]).includes(key)) return `a ${kind} has no ${key}; leave it out`
  return unknownField(key, OWN_FIELDS)
}

const INSTEAD: Readonly<Record<Kind, Partial<Record<OwnField, string>>>> = {
  fact: {},
  sentence: { prompt: 'say it whole in text', target_new: 'say it whole in text' },
  rule: {
    prompt: 'say which messages it is for in when',
    target_new: 'say what to do in instruction',
    text: 'say what to do in instruction',
  },
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
    ...(edit.subject !== '' && { subject: edit.subject }),
    aliases: [...edit.aliases],
    ...statedIn(edit),
    paraphrases: [...edit.paraphrases],
    ...(edit.examples !== undefined && { examples: [...edit.examples] }),
    ...(edit.counterexamples !== undefined && { counterexamples: [...edit.counterexamples] }),
    tags: [...edit.tags],
    tenant: edit.tenant,
    ...(edit.models !== undefined && { models: [...edit.models] }),
    ...(edit.validFrom !== undefined && { valid_from: isoDate(edit.validFrom) }),
    ...(edit.validTo !== undefined && { valid_to: isoDate(edit.validTo) }),
    ...(edit.source !== undefined && { source: edit.source }),
  }
}

function statedIn({ kind, prompt, targetNew, targetTrue, relation, always }: Stated): Partial<Record<OwnField, unknown>> {
  switch (kind) {
    case undefined:
      return {
        prompt,
        target_new: targetNew,
        ...(targetTrue !== undefined && { target_true: targetTrue }),
        ...(relation !== undefined && { relation }),
      }
    case 'sentence':
      return { text: prompt }
    case 'rule':
      return always ? { instruction: targetNew, always } : { when: prompt, instruction: targetNew }
    default:
      return kind satisfies never
  }
}
