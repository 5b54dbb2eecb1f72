import type { Edit } from '../edit/edit.ts'
import type { NameMatch } from './names.ts'

/** An edit that might be meant by a turn, with what speaks for it. */
export interface Candidate {
  readonly edit: Edit
  /** Best cosine of a part of the message and a key of the edit; null: the vector index did not offer it. */
  readonly similarity: number | null
  /** Log-odds that it is worth reading (`Nearness`), the best part of the message; null: it is not among the nearest. */
  readonly nearness: number | null
  /** Where the message names the subject; null: nowhere. */
  readonly name: NameMatch | null
  /** Only an earlier turn names the subject. */
  readonly earlier: boolean
  /** The reader's log-odds; null: it was not plausible enough to be read. */
  readonly logit: number | null
  /** What the reader read. */
  readonly read: string
  /** The key of the edit that is nearest to the message; null: not looked for. */
  readonly key: string | null
  /** The message is nearer to a counterexample of the edit than to any of its keys. */
  readonly counter: boolean
  /** The message names another subject in full, in the words that this one's name shares with it. */
  readonly otherNamed: boolean
  /** It would apply to any message, though it is not declared `always`. Absent: not asked. */
  readonly boundless?: boolean
  /** Edits of the memory that it was found among. */
  readonly among: number
}

/** An edit of which nothing is known but what the reader would read; `among`: edits of the memory. */
export function unread(edit: Edit, read: string, among = 1): Candidate {
  const evidence = { similarity: null, nearness: null, name: null, earlier: false, logit: null, key: null }
  return { edit, ...evidence, counter: false, otherNamed: false, among, read }
}

/** What speaks for an edit, by one part of a message; `read`: what the reader would read. */
type Offer = Partial<Pick<Candidate, 'similarity' | 'nearness' | 'name' | 'earlier'>> & { readonly read: string }

/** The candidates of one message, gathered: an edit that is offered again keeps the best of each evidence. */
export class Offers {
  readonly #found = new Map<string, Candidate>()
  readonly #eligible: (id: string) => Edit | undefined
  readonly #among: number

  constructor(eligible: (id: string) => Edit | undefined, among: number) {
    this.#eligible = eligible
    this.#among = among
  }

  /** Without effect where the edit is not eligible. */
  add(id: string, by: Offer): void {
    const had = this.#found.get(id) ?? this.#first(id, by.read)
    if (had === undefined) return
    const nearer = by.nearness != null && by.nearness > (had.nearness ?? Number.NEGATIVE_INFINITY)
    this.#found.set(id, {
      ...had,
      similarity: higher(by.similarity, had.similarity),
      nearness: higher(by.nearness, had.nearness),
      read: nearer && had.name === null ? by.read : had.read,
      name: had.name ?? by.name ?? null,
      earlier: had.earlier || by.earlier === true,
    })
  }

  all(): Candidate[] {
    return [...this.#found.values()]
  }

  #first(id: string, read: string): Candidate | undefined {
    const edit = this.#eligible(id)
    return edit && unread(edit, read, this.#among)
  }
}

function higher(a: number | null | undefined, b: number | null): number | null {
  return a == null ? b : b === null ? a : Math.max(a, b)
}
