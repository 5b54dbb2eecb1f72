import { createHash } from 'node:crypto'
import { type Edit, LIMITS } from '../../edit/edit.ts'
import { supersessionKey } from '../../edit/relation.ts'
import { PalimpsestError, type Problem } from '../../errors.ts'
import type { LandingResult } from '../memory.ts'
import { inSlices } from '../slices.ts'
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

/** An edit of a batch with what it is compared by, which is computed once. */
export interface Stated {
  readonly edit: Edit
  readonly content: string
  /** Its supersession key. */
  readonly key: string
}

/** The batch, and a hash of ids and contents in order: equal for batches that say the same. */
export async function stated(edits: readonly Edit[]): Promise<{ readonly batch: readonly Stated[]; readonly digest: string }> {
  const hash = createHash('sha256')
  const batch = await inSlices(edits, (edit): Stated => {
    const content = contentOf(edit)
    hash.update(`${JSON.stringify(edit.id)}${content}\n`)
    return { edit, content, key: supersessionKey(edit) }
  })
  return { batch, digest: hash.digest('hex') }
}

/** Edits of the batch that the memory does not hold, in order: their content is new, or they were withdrawn and are said again. */
export async function newContents(view: LiveView, batch: readonly Stated[]): Promise<Stated[]> {
  const said = new Map<string, string>()
  const isNew = await inSlices(batch, ({ edit: { id }, content }) => {
    const before = said.get(id) ?? heldContent(view, id)
    said.set(id, content)
    return content !== before
  })
  return batch.filter((_, i) => isNew[i])
}

/** An unnamed batch goes by its content. Where that landed before and is not all held any more, the batch is another one. */
export async function idByContent(
  view: LiveView,
  batches: ReadonlyMap<string, unknown>,
  batch: readonly Stated[],
  digest: string,
): Promise<string> {
  const first = `b_${digest.slice(0, 16)}`
  let id = first
  for (let landing = 2; batches.has(`${first}-${landing}`); landing++) id = `${first}-${landing}`
  if (!batches.has(id) || (await isHeld(view, batch))) return id
  return `${first}-${id === first ? 2 : Number(id.slice(first.length + 1)) + 1}`
}

/** Whether landing the batch would leave every edit as it is. */
async function isHeld(view: LiveView, batch: readonly Stated[]): Promise<boolean> {
  const last = new Map(batch.map(({ edit, content }) => [edit.id, content]))
  return (await inSlices(last, ([id, content]) => content === heldContent(view, id))).every(Boolean)
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
async function conflicts(batch: readonly Stated[]): Promise<string[][]> {
  const last = new Map<string, Rival>()
  await inSlices(batch, ({ edit, key }) => {
    const before = last.get(key)
    const target = edit.targetNew.trim()
    last.set(key, { edit, target, before, other: before?.target === target ? before.other : before })
  })
  return inSlices(batch, ({ edit, key }) => {
    const out = new Set<string>()
    const target = edit.targetNew.trim()
    let looked = 0
    for (let rival = last.get(key); rival !== undefined && out.size < CONFLICTS_SHOWN; ) {
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
export async function landingResults(
  view: LiveView,
  batch: readonly Stated[],
  batchId: string,
  at: number,
): Promise<LandingResult[]> {
  const landed = new Map<string, Claims>()
  const firstWith = new Map<string, number>()
  const conflicting = await conflicts(batch)
  return inSlices(batch, ({ edit, content }, index): LandingResult => {
    const { id } = edit
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
