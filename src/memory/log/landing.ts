import { createHash } from 'node:crypto'
import { type Edit, LIMITS } from '../../edit/edit.ts'
import { supersessionKey } from '../../edit/relation.ts'
import { PalimpsestError, type Problem } from '../../errors.ts'
import type { LandingResult } from '../memory.ts'
import { contentOf, type LiveView, type Revision } from './timeline.ts'

/** Conflicts named per edit; a batch of thousands on one fact would otherwise list each thousands of times. */
const CONFLICTS_SHOWN = 10
/** Edits of another target looked at for it, the last ones: those may all be of other times. */
const CONFLICTS_SOUGHT = 100

/** Throws `invalid_batch` when the batch is too long, has an edit of another tenant, or an id that is empty. */
export function assertLandable(edits: readonly Edit[], tenant: string): void {
  if (edits.length > LIMITS.batchEdits) {
    throw new PalimpsestError(
      'invalid_batch',
      `A batch takes at most ${LIMITS.batchEdits} edits; this one has ${edits.length}. Split it.`,
    )
  }
  const problems: Problem[] = []
  for (const [index, edit] of edits.entries()) {
    if (edit.tenant !== tenant)
      problems.push({ index, field: 'tenant', message: `belongs to tenant "${edit.tenant}", the batch to "${tenant}"` })
    if (edit.id === '') problems.push({ index, field: 'id', message: 'is empty' })
  }
  if (problems.length > 0) {
    throw new PalimpsestError(
      'invalid_batch',
      `${problems.length} of ${edits.length} edits cannot land in this batch; nothing landed.`,
      { problems },
    )
  }
}

/** Hash of ids and contents in order: equal for batches that say the same. */
export function digestOf(edits: readonly Edit[]): string {
  const hash = createHash('sha256')
  for (const edit of edits) hash.update(`${JSON.stringify(edit.id)}${contentOf(edit)}\n`)
  return hash.digest('hex')
}

/** Edits of the batch that the memory does not hold, in order: their content is new, or they were withdrawn and are said again. */
export function newContents(view: LiveView, edits: readonly Edit[]): Edit[] {
  const said = new Map<string, string>()
  return edits.filter((edit) => {
    const content = contentOf(edit)
    const before = said.get(edit.id) ?? heldContent(view, edit.id)
    said.set(edit.id, content)
    return content !== before
  })
}

/** An unnamed batch goes by its content. Where that landed before and is not all held any more, the batch is another one. */
export function idByContent(
  view: LiveView,
  batches: ReadonlyMap<string, unknown>,
  edits: readonly Edit[],
  digest: string,
): string {
  const first = `b_${digest.slice(0, 16)}`
  let id = first
  for (let landing = 2; batches.has(`${first}-${landing}`); landing++) id = `${first}-${landing}`
  if (!batches.has(id) || isHeld(view, edits)) return id
  return `${first}-${id === first ? 2 : Number(id.slice(first.length + 1)) + 1}`
}

/** Whether landing the batch would leave every edit as it is. */
function isHeld(view: LiveView, edits: readonly Edit[]): boolean {
  const last = new Map(edits.map((edit) => [edit.id, edit]))
  return [...last.values()].every((edit) => contentOf(edit) === heldContent(view, edit.id))
}

/** What the memory holds under the id, also where another edit supersedes it; undefined where it is withdrawn or unknown. */
function heldContent(view: LiveView, id: string): string | undefined {
  const newest = view.newest(id)
  return newest === undefined || view.withdrawal(id) !== undefined ? undefined : contentOf(newest.edit)
}

/** True where both may be true at one time. */
export function overlap(a: Edit, b: Edit): boolean {
  const from = Math.max(a.validFrom ?? Number.NEGATIVE_INFINITY, b.validFrom ?? Number.NEGATIVE_INFINITY)
  const to = Math.min(a.validTo ?? Number.POSITIVE_INFINITY, b.validTo ?? Number.POSITIVE_INFINITY)
  return from < to
}

/** An edit of a group of those on one (subject, relation), in the batch's order. */
interface Rival {
  readonly edit: Edit
  readonly target: string
  /** The last one before it with another target. */
  readonly other: Rival | undefined
  readonly before: Rival | undefined
}

/** For each edit, ids of the last others in the batch that say something else of the same (subject, relation) and time. */
function conflicts(edits: readonly Edit[]): string[][] {
  const keys = edits.map(supersessionKey)
  const last = new Map<string, Rival>()
  for (const [i, edit] of edits.entries()) {
    const before = last.get(keys[i] ?? '')
    const target = edit.targetNew.trim()
    last.set(keys[i] ?? '', { edit, target, before, other: before?.target === target ? before.other : before })
  }
  return edits.map((edit, i) => {
    const out = new Set<string>()
    const target = edit.targetNew.trim()
    let looked = 0
    for (let rival = last.get(keys[i] ?? ''); rival !== undefined && out.size < CONFLICTS_SHOWN; ) {
      if (rival.target === target) {
        rival = rival.other
        continue
      }
      if (++looked > CONFLICTS_SOUGHT) break
      if (rival.edit.id !== edit.id && overlap(edit, rival.edit)) out.add(rival.edit.id)
      rival = rival.before
    }
    return [...out].reverse()
  })
}

/** The revisions of one edit that a batch landed, each for one of the batch's records, in their order. */
class Claims {
  readonly #revisions: readonly Revision[]
  #claimed = 0

  constructor(revisions: readonly Revision[]) {
    this.#revisions = revisions
  }

  /** That of this record; undefined where its content was held already. */
  next(edit: Edit, content: string): Revision | undefined {
    const next = this.#revisions[this.#claimed]
    if (next === undefined || (next.edit !== edit && contentOf(next.edit) !== content)) return undefined
    this.#claimed++
    return next
  }
}

/**
 * What a landed batch did, from the records alone: so a repeat of the batch gets the same answer as the first time. `state` is the one
 * exception: it is that of moment `at`.
 */
export function landingResults(view: LiveView, edits: readonly Edit[], batchId: string, at: number): LandingResult[] {
  const landed = new Map<string, Claims>()
  const firstWith = new Map<string, number>()
  const conflicting = conflicts(edits)
  return edits.map((edit, index) => {
    const { id } = edit
    const content = contentOf(edit)
    const mine = landed.get(id) ?? new Claims(view.revisions(id).filter((r) => r.batchId === batchId))
    landed.set(id, mine)
    const revision = mine.next(edit, content)
    const superseded = revision && view.supersededAtLanding(revision)
    const duplicateOf = firstWith.get(content)
    if (duplicateOf === undefined) firstWith.set(content, index)
    return {
      index,
      id,
      outcome: revision === undefined ? 'unchanged' : outcomeOf(revision, view),
      state: view.held(id, at)?.state ?? 'not_yet_valid',
      supersedes: superseded === undefined ? [] : [superseded],
      ...(duplicateOf === undefined ? {} : { duplicateOf }),
      conflictsWith: conflicting[index] ?? [],
    }
  })
}

/** A withdrawn edit whose content is said again is restored. */
function outcomeOf({ seq, edit }: Revision, view: LiveView): LandingResult['outcome'] {
  const before = view.revisions(edit.id).findLast((revision) => revision.seq < seq)
  if (before === undefined) return 'added'
  const wasWithdrawn = view.history(edit.id).findLast((record) => record.seq < seq)?.kind === 'withdraw'
  return wasWithdrawn && contentOf(before.edit) === contentOf(edit) ? 'restored' : 'revised'
}
