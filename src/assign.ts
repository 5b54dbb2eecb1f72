import type { Chosen, Kept } from './experiment/allocate.ts'
import { type Done, hasTarget } from './experiment/ledger/outcome.ts'
import type { Gateway } from './gateway.ts'
import type { ChatRequest } from './request.ts'
import { type Meter, type Selection, select } from './selection/select.ts'

/** The request as its arm answers it, and what it needs of the memory. */
export interface Assigned {
  readonly request: ChatRequest
  readonly selection: Selection
  /** The experiment that it counts in, and the name of its arm; null: in none. */
  readonly experiment: { readonly id: string; readonly arm: string } | null
  /** To be told what came of the answer; absent where it counts in no experiment. */
  readonly done?: Done
}

/** Selects for every arm before the arm is known, so "would have been edited" is known in all of them. A request counts in one experiment at most. */
export async function assign(
  asked: ChatRequest,
  gateway: Gateway,
  meter: Meter,
  signal: AbortSignal,
  kept?: Kept,
): Promise<Assigned> {
  const select = selectOnce(gateway, meter, signal)
  const allocator = gateway.experiments?.allocator
  for (const contest of allocator?.contests(asked, kept) ?? []) {
    // One after another: what the first finds is known to the others, where they differ in a threshold only.
    const selections: Selection[] = []
    for (const arm of contest.arms) selections.push(await select(arm))
    const exposed = await allocator?.expose(contest, selections.map(chosenOf))
    const request = contest.arms[exposed?.arm ?? -1]
    const selection = selections[exposed?.arm ?? -1]
    if (exposed === undefined || request === undefined || selection === undefined) continue
    const { id, arms } = contest.experiment
    return { request, selection, experiment: { id, arm: arms[exposed.arm]?.name ?? '' }, done: exposed.done }
  }
  const request = allocator?.usual(asked, kept) ?? { ...asked, ...kept }
  return { request, selection: await select(request), experiment: null }
}

/** Selection, run once for arms that select alike. */
export function selectOnce(gateway: Gateway, meter: Meter, signal: AbortSignal) {
  const known = new Map<string, Promise<Selection>>()
  return (request: ChatRequest): Promise<Selection> => {
    const { tags, threshold, withoutBatches = [], model } = request
    const key = JSON.stringify([tags, threshold, withoutBatches, model])
    const found = known.get(key) ?? select(request, gateway, meter, signal)
    known.set(key, found)
    return found
  }
}

function chosenOf({ turns }: Selection): Chosen {
  const chosen = turns.flatMap(({ turn, edits }) => edits.map(({ edit }) => ({ turn, edit })))
  return {
    edits: chosen.length === 0 ? '' : JSON.stringify(chosen.map(({ turn, edit }) => [turn, edit.id, edit.targetNew])),
    targets: chosen.flatMap(({ edit }) => (hasTarget(edit) ? [edit.targetNew] : [])),
  }
}
