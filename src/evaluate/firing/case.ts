/** What is asked where selection is measured alone: messages, the memory they meet, and the edits that should fire. */
import type { Edit } from '../../edit/edit.ts'
import type { Problem } from '../../errors.ts'
import type { Message } from '../../request.ts'

export interface Case {
  /** Key of the memory it is asked of. */
  readonly memory: string
  /** Reports keep groups apart: "A en", "en→de". */
  readonly group: string
  /** The data's own name for this kind of message. */
  readonly type: string
  /** Ends with a user turn, which is the one that is judged. */
  readonly messages: readonly Message[]
  /** Ids of the edits it needs, all of them; empty: a near miss, at which nothing may fire. */
  readonly wants: readonly string[]
  /** Ids of edits that state what the wanted one states: as good. */
  readonly equals?: readonly string[]
  /** Ids of edits that may fire too. */
  readonly also: readonly string[]
  /** Wordings of which an answer must hold one of each group. Absent: answers are not judged. */
  readonly keys?: readonly (readonly string[])[]
  /** Id of the edit it was made about. */
  readonly about?: string
  /** Made by a program, so that another edit of the memory may answer it without its maker having noticed (see `settle`). */
  readonly derived?: true
  /** Its neighbours have the edit's own relation, by construction of the data. */
  readonly sameRelation?: true
}

export interface CaseMemory {
  readonly edits: readonly Edit[]
  /** Ids of edits that hold for every message. */
  readonly always: readonly string[]
}

export interface Cases {
  readonly memories: ReadonlyMap<string, CaseMemory>
  readonly cases: readonly Case[]
  /** What a reader of the figures must know. */
  readonly notes: readonly string[]
}

/** What a reader of one data set makes of a file. */
export interface CasesRead extends Cases {
  readonly problems: readonly Problem[]
}

/** Memories of the same key become one. */
export function merged(all: readonly Cases[]): Cases {
  const memories = new Map<string, CaseMemory>()
  for (const [key, { edits, always }] of all.flatMap((one) => [...one.memories])) {
    const had = memories.get(key)
    memories.set(key, { edits: [...(had?.edits ?? []), ...edits], always: [...(had?.always ?? []), ...always] })
  }
  return { memories, cases: all.flatMap(({ cases }) => cases), notes: all.flatMap(({ notes }) => notes) }
}

/** For a single wanted edit, another that states the same will do. */
export function isFound({ wants, equals = [] }: Case, selected: readonly string[]): boolean {
  return wants.every((id) => selected.includes(id)) || (wants.length === 1 && equals.some((id) => selected.includes(id)))
}

export const asked = (content: string): readonly Message[] => [{ role: 'user', content }]
