import { isJson, type Json, type Taken, take } from '../../edit/formats/draft.ts'
import { show } from '../../edit/values.ts'
import type { Problem } from '../../errors.ts'

type Path = readonly [string, ...string[]]

/** Reads fields of a published record by dotted path, and notes what is wrong with them. Of several paths the first that is there counts. */
export class Fields {
  readonly record: Json
  readonly problems: Problem[] = []

  constructor(record: Json) {
    this.record = record
  }

  has(...paths: Path): boolean {
    return take(this.record, ...paths).value !== undefined
  }

  isList(...paths: Path): boolean {
    return Array.isArray(take(this.record, ...paths).value)
  }

  /** A text that must be there; published files leave some blank, and then there is no such probe. */
  text(...paths: Path): string {
    const taken = take(this.record, ...paths)
    if (typeof taken.value === 'string') return taken.value.trim()
    this.#wrong(taken, 'a text')
    return ''
  }

  /** A list of texts that must be there. */
  texts(...paths: Path): readonly string[] {
    return this.#list(take(this.record, ...paths), 'a list of texts').flatMap((value, i) => {
      if (typeof value === 'string') return value.trim() === '' ? [] : [value.trim()]
      this.#wrong({ path: `${paths[0]}.${i}`, value }, 'a text')
      return []
    })
  }

  /** As `texts`, but may be left out. */
  optionalTexts(...paths: Path): readonly string[] {
    return this.has(...paths) ? this.texts(...paths) : []
  }

  /** A text, a list of equivalents, or a list of such lists (KnowEdit's answers), without repetitions. Absent: none. */
  answers(...paths: Path): readonly string[] {
    const taken = take(this.record, ...paths)
    return taken.value === undefined ? [] : [...new Set(this.#flatten(taken))]
  }

  /** Paths of the entries of a list that may be left out. */
  entries(path: string): readonly string[] {
    const taken = take(this.record, path)
    return taken.value === undefined ? [] : this.#list(taken, 'a list').map((_, i) => `${path}.${i}`)
  }

  /** Keys of an object that may be left out. */
  keys(path: string): readonly string[] {
    const taken = take(this.record, path)
    if (taken.value === undefined) return []
    if (isJson(taken.value)) return Object.keys(taken.value)
    this.#wrong(taken, 'an object')
    return []
  }

  #flatten(taken: Taken): string[] {
    const { path, value } = taken
    if (Array.isArray(value)) return value.flatMap((one, i) => this.#flatten({ path: `${path}.${i}`, value: one }))
    if (typeof value === 'string') return value.trim() === '' ? [] : [value.trim()]
    if (typeof value === 'number') return [String(value)]
    this.#wrong(taken, 'a text or a list of texts')
    return []
  }

  #list({ path, value }: Taken, what: string): readonly unknown[] {
    if (Array.isArray(value)) return value
    this.#wrong({ path, value }, what)
    return []
  }

  #wrong({ path, value }: Taken, what: string): void {
    const message = value === undefined ? `is missing; expected ${what}` : `expected ${what}, got ${show(value)}`
    this.problems.push({ field: path, message })
  }
}
