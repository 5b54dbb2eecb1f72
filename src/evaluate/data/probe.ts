/** What a probe can measure (DESIGN, section 3), in the order in which reports list it. */
export const KINDS = [
  'reliability', // the edit's own statement
  'generalization', // the same asked in other words
  'portability', // a question whose answer follows from the edit
  'multi_hop', // a chain of facts with an edit in it; several questions a record
  'in_scope_neighbour', // meant to be unrelated, but edited by another record: that edit is wanted
  'locality', // near the edit, and none of its business
  'traffic', // everyday questions
  'choice', // multiple choice: general ability
  'fluency', // an opening to go on with; whether an edit should fire is not said
] as const
export type Kind = (typeof KINDS)[number]

/** One question, and what the memory's edits should do with it. */
export interface Probe {
  /** "RECORD/KIND/SUB/NUMBER"; the file's name stands for the record in traffic. */
  readonly id: string
  /** 0-based position in the data file; null: traffic. */
  readonly record: number | null
  readonly kind: Kind
  /** The dataset's own name for it: "paraphrase", "relation_specificity". */
  readonly sub: string
  /** User turns; the last is asked. */
  readonly turns: readonly string[]
  /** Ids of the edits it should fire; empty: out of scope. */
  readonly wants: readonly string[]
  /** Ids of other edits that state what a wanted one states: as good. */
  readonly equals?: readonly string[]
  /** Accepted answers: the new ones in scope, the true ones out of scope. Empty: not known. The first is the one teacher forcing scores. */
  readonly answers: readonly string[]
  /** Teacher forcing: the answer that should be less likely (Meng et al. 2022: target_true in scope, target_new for neighbours). */
  readonly rival?: string
  /** What teacher forcing scores, where the published harness scores another text than a person would ask. */
  readonly forcedText?: string
}

/** What a reader makes of a record; place and number make the rest. */
export interface ProbeDraft extends Omit<Probe, 'id' | 'record' | 'turns'> {
  readonly text: string
}

/** Whether the edit is wanted, or as good as one that is. */
export function isWanted({ wants, equals = [] }: Probe, id: string): boolean {
  return wants.includes(id) || equals.includes(id)
}

/** Whether the right outcome is that an edit fires. */
export function inScope(probe: Pick<Probe, 'wants'>): boolean {
  return probe.wants.length > 0
}
