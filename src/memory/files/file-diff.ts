import type { Edit } from '../../edit/edit.ts'
import type { Batch } from '../log/edit-log.ts'
import { contentOf, type LiveView } from '../log/timeline.ts'

/** What an edit file that was read again changes in one tenant. */
export interface SyncPlan {
  readonly add: readonly Edit[]
  readonly withdraw: readonly string[]
  readonly restore: readonly string[]
  readonly unchanged: number
}

export interface SyncView {
  readonly view: LiveView
  readonly batchOf: (batchId: string) => Batch | undefined
}

/** Which ids this file said when it was last read, and which the other files say. */
export interface Said {
  readonly before: (id: string) => boolean
  readonly elsewhere: (id: string) => boolean
}

/**
 * Compares what a file says with what it said before. Someone else's word on the same edit stands until the file itself changes: an edit
 * that a user withdrew stays withdrawn and one that a user revised stays revised however often the file is read. Only edits that came from
 * a file are withdrawn when they vanish, and only when no other file (`elsewhere`) says them too.
 */
export function planSync(
  { view, batchOf }: SyncView,
  source: string,
  edits: readonly Edit[],
  { before, elsewhere }: Said,
): SyncPlan {
  const said = new Map(edits.map((edit) => [edit.id, edit]))
  const add: Edit[] = []
  const restore: string[] = []
  for (const edit of said.values()) {
    if (isNews(view, batchOf, source, edit)) add.push(edit)
    else if (withdrawnByFile(view, batchOf, edit.id)) restore.push(edit.id)
  }
  const withdraw: string[] = []
  for (const id of view.ids()) {
    if (said.has(id) || view.withdrawal(id) !== undefined || elsewhere(id)) continue
    const owner = batchOf(view.newest(id)?.batchId ?? '')
    if (owner?.kind === 'sync' && (owner.source === source || before(id))) withdraw.push(id)
  }
  return { add, withdraw, restore, unchanged: said.size - add.length - restore.length }
}

function isNews(view: LiveView, batchOf: SyncView['batchOf'], source: string, edit: Edit): boolean {
  const content = contentOf(edit)
  const revisions = view.revisions(edit.id)
  const newest = revisions.at(-1)
  if (newest === undefined) return true
  const own = revisions.findLast((r) => batchOf(r.batchId)?.source === source && batchOf(r.batchId)?.kind === 'sync')
  return contentOf(newest.edit) !== content && (own === undefined || contentOf(own.edit) !== content)
}

function withdrawnByFile(view: LiveView, batchOf: SyncView['batchOf'], id: string): boolean {
  const withdrawal = view.withdrawal(id)
  return withdrawal !== undefined && batchOf(withdrawal.batchId)?.kind === 'sync'
}
