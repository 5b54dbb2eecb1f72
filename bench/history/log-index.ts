import type { LogRow } from './operations.ts'

/** An edit as the log has it up to some position. */
interface EditAt {
  readonly version: number
  readonly batch: string
  readonly target: string
  readonly withdrawn: boolean
}

export const keyOf = (tenant: string, name: string) => `${tenant}\n${name}`

/** The log by edit and by subject, for the question what it amounted to at a position. Written from the documents, not from `src`. */
export class LogIndex {
  readonly head: number
  readonly #byEdit = new Map<string, LogRow[]>()
  readonly #bySubject = new Map<string, LogRow[]>()
  readonly #subjectOf = new Map<string, string>()
  readonly #idsOf = new Map<string, Set<string>>()
  readonly #together = new Map<string, readonly LogRow[]>()

  constructor(log: readonly LogRow[]) {
    this.head = log.at(-1)?.seq ?? 0
    for (const row of log) {
      const edit = keyOf(row.tenant, row.id)
      if (row.subject !== null) this.#subjectOf.set(edit, keyOf(row.tenant, row.subject))
      append(this.#byEdit, edit, row)
      const subject = this.#subjectOf.get(edit) ?? ''
      append(this.#bySubject, subject, row)
      this.#idsOf.set(subject, (this.#idsOf.get(subject) ?? new Set()).add(row.id))
    }
  }

  ofEdit(tenant: string, id: string): readonly LogRow[] {
    return this.#byEdit.get(keyOf(tenant, id)) ?? []
  }

  ofSubject(tenant: string, subject: string): readonly LogRow[] {
    return this.#bySubject.get(keyOf(tenant, subject)) ?? []
  }

  /** Of several edits, in the order of the log. */
  ofEdits(tenant: string, ids: readonly string[]): readonly LogRow[] {
    const key = keyOf(tenant, ids.join('\n'))
    const rows = this.#together.get(key) ?? ids.flatMap((id) => this.ofEdit(tenant, id)).sort((a, b) => a.seq - b.seq)
    this.#together.set(key, rows)
    return rows
  }

  edits(tenant: string): string[] {
    return [...this.#byEdit.keys()].filter((key) => key.startsWith(keyOf(tenant, ''))).map((key) => key.slice(tenant.length + 1))
  }

  at(tenant: string, id: string, position: number): EditAt | undefined {
    const rows = this.ofEdit(tenant, id)
    const last = countUpTo(rows, position) - 1
    for (let i = last; i >= 0; i--) {
      const row = rows[i]
      if (row?.kind !== 'add') continue
      return { version: row.seq, batch: row.batch, target: row.target ?? '', withdrawn: rows[last]?.kind === 'withdraw' }
    }
    return undefined
  }

  /** The edit of a subject that applies: the latest content that is not withdrawn. */
  applying(tenant: string, subject: string, position: number): { readonly id: string; readonly target: string } | undefined {
    let latest: (EditAt & { readonly id: string }) | undefined
    for (const id of this.#idsOf.get(keyOf(tenant, subject)) ?? []) {
      const edit = this.at(tenant, id, position)
      if (edit !== undefined && !edit.withdrawn && edit.version > (latest?.version ?? 0)) latest = { id, ...edit }
    }
    return latest
  }

  state(tenant: string, id: string, position: number): string {
    const edit = this.at(tenant, id, position)
    if (edit === undefined) return 'unknown'
    if (edit.withdrawn) return 'withdrawn'
    const [, subject = ''] = this.#subjectOf.get(keyOf(tenant, id))?.split('\n') ?? []
    return this.applying(tenant, subject, position)?.id === id ? 'live' : 'superseded'
  }
}

/** Rows up to a position; they are in its order. */
export function countUpTo(rows: readonly LogRow[], position: number): number {
  let [low, high] = [0, rows.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if ((rows[middle]?.seq ?? 0) <= position) low = middle + 1
    else high = middle
  }
  return low
}

function append(map: Map<string, LogRow[]>, key: string, row: LogRow): void {
  const rows = map.get(key)
  if (rows === undefined) map.set(key, [row])
  else rows.push(row)
}
