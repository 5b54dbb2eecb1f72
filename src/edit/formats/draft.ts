/** What a reader of an outside format takes from a record: for each field of ours, a value and where the user wrote it. */
import type { OwnField } from '../own.ts'

export type Json = Readonly<Record<string, unknown>>

export interface Taken {
  /** Dotted path in the user's record. */
  readonly path: string
  readonly value: unknown
  /** Why no edit can be made of it, where its reader knows better than the field's own check. */
  readonly fault?: string
}

export type Draft = Readonly<Partial<Record<OwnField, Taken>>>

/**
 * A reader takes an edit's own statement and nothing else. Evaluation probes (paraphrase, rephrase, neighbourhood, generation,
 * attribute, portability and locality prompts) are left unread, always: an edit that carried its paraphrases into the memory
 * would be measured on texts it had seen. Fields a format does not define are ignored, as benchmark files carry many.
 */
export interface Reader {
  /** For the reference: whose format it is, what is taken of a record, and what is left unread. */
  readonly about: { readonly of: string; readonly takes: string; readonly leaves: string }
  recognises(record: Json): boolean
  drafts(record: Json): readonly Draft[]
}

export function isJson(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function has(record: Json, ...keys: readonly string[]): boolean {
  return keys.every((key) => Object.hasOwn(record, key))
}

export function hasAny(record: Json, ...keys: readonly string[]): boolean {
  return keys.some((key) => Object.hasOwn(record, key))
}

/** The first of the dotted paths that holds something; else nothing, under the first path's name. */
export function take(record: Json, ...paths: readonly [string, ...string[]]): Taken {
  for (const path of paths) {
    const value = at(record, path)
    if (value !== undefined && value !== null) return { path, value: plain(value) }
  }
  return { path: paths[0], value: undefined }
}

function at(record: unknown, path: string): unknown {
  let value = record
  for (const key of path.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined
    value = (value as Json)[key]
  }
  return value
}

/** Benchmark files write years and counts as numbers now and then; a whole number has one spelling, so nothing is lost. */
function plain(value: unknown): unknown {
  return Number.isSafeInteger(value) ? String(value) : value
}

/** A text or a number as text; nothing for what is neither: an object may say what its text is, and throw. */
export function written(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value).trim() : ''
}

/** Answers come as a text, a list of equivalents, or a list of such lists: the first text. */
export function first(taken: Taken): Taken {
  let { path, value } = taken
  while (Array.isArray(value)) {
    value = value[0]
    path += '.0'
  }
  return { path, value: plain(value) }
}

/** EasyEdit writes this where no old answer is known. */
const NO_ANSWER = '<|endoftext|>'

/** The old answer: optional everywhere. */
export function oldAnswer(taken: Taken): Taken {
  const answer = first(taken)
  return answer.value === NO_ANSWER ? { ...answer, value: undefined } : answer
}
