import type { Edit } from '../edit/edit.ts'
import type { Message } from '../request.ts'
import { demonstrate, type PoolEdit } from './demonstrations.ts'
import { breaksOff, type Demonstration, type Template, viewOf } from './turn.ts'

/** An edit that applies to a turn, and how surely. */
export interface ScopedEdit {
  readonly edit: Edit
  readonly score: number
  /** Its place in a chain, where each edit is about what the one before it names; absent: 1. */
  readonly hop?: number
}

/** One edit that was rendered, or left out, at `messages[turn]`. */
export interface Placed extends ScopedEdit {
  readonly turn: number
}

/** Edits by the index of their user turn in `messages`. */
export type Scopes = ReadonlyMap<number, readonly ScopedEdit[]>

/** Other edits near each turn's question, for demonstrations; a turn without any gets invented ones. */
export type Pools = ReadonlyMap<number, readonly PoolEdit[]>

export interface Budget {
  readonly contextTokens: number
  /** Kept free for the answer. */
  readonly reserveTokens: number
  count(messages: readonly Message[]): number
}

export interface Rendered {
  readonly messages: readonly Message[]
  readonly applied: readonly Placed[]
  /** Left out to fit the context. */
  readonly dropped: readonly Placed[]
}

interface Draft {
  readonly turn: number
  readonly question: string
  /** In hop order, the best of a hop last. */
  readonly edits: readonly ScopedEdit[]
  /** Nearest last. */
  readonly demonstrations: readonly Demonstration[]
}

/** Drop the farthest demonstration, or the edit of the lowest score, of one turn. */
interface Step {
  readonly turn: number
  readonly what: 'demonstration' | 'edit'
}

/**
 * The conversation with each turn's edits written into that turn; every other message stays as it is, the same object.
 * A turn's text depends on that turn, its edits, its pool and the template alone, so a longer conversation renders the earlier turns
 * as before and the engine's cached prefix holds. Only the budget looks further: while prompt and reserve exceed the context, first
 * demonstrations go (oldest turn first, farthest first), then edits (oldest turn first, lowest score first). The user's text is never cut;
 * what still does not fit is for the engine to refuse.
 */
export function render(
  messages: readonly Message[],
  scopes: Scopes,
  template: Template,
  budget: Budget,
  pools: Pools = new Map(),
): Rendered {
  const drafts = [...scopes]
    .filter(([turn, edits]) => edits.length > 0 && messages[turn]?.role === 'user')
    .sort(([a], [b]) => a - b)
    .map(([turn, edits]) => draft(turn, messages[turn]?.content ?? '', edits, template, pools.get(turn) ?? []))
  const steps = dropOrder(drafts)
  const written = (taken: number) => write(messages, drafts, steps.slice(0, taken), template)
  const fits = (taken: number) => budget.count(written(taken)) + budget.reserveTokens <= budget.contextTokens
  const taken = fewest(steps.length, fits)
  const lost = lostEdits(drafts, steps.slice(0, taken))
  const placed = drafts.flatMap(({ turn, edits }) => edits.map((one) => ({ ...one, turn })))
  return { messages: written(taken), applied: placed.filter((one) => !lost(one)), dropped: placed.filter(lost) }
}

function draft(
  turn: number,
  question: string,
  scope: readonly ScopedEdit[],
  template: Template,
  pool: readonly PoolEdit[],
): Draft {
  const edits = [...scope].sort((a, b) => (a.hop ?? 1) - (b.hop ?? 1) || a.score - b.score)
  const views = edits.map(({ edit }) => viewOf(edit))
  return {
    turn,
    question,
    edits,
    demonstrations: demonstrate({ question, edits: views, pool, count: template.demonstrations }),
  }
}

function dropOrder(drafts: readonly Draft[]): Step[] {
  const demonstrations = drafts.flatMap(({ turn, demonstrations }) =>
    demonstrations.map((): Step => ({ turn, what: 'demonstration' })),
  )
  const edits = drafts.flatMap(({ turn, edits }) => edits.map((): Step => ({ turn, what: 'edit' })))
  return [...demonstrations, ...edits]
}

/** The smallest number in [0, most] that fits, by bisection (each step only shortens the prompt); `most` when none does. */
function fewest(most: number, fits: (taken: number) => boolean): number {
  if (most === 0 || fits(0)) return 0
  let [low, high] = [1, most]
  while (low < high) {
    const middle = (low + high) >> 1
    if (fits(middle)) high = middle
    else low = middle + 1
  }
  return low
}

function write(
  messages: readonly Message[],
  drafts: readonly Draft[],
  steps: readonly Step[],
  template: Template,
): readonly Message[] {
  const out = [...messages]
  for (const { turn, question, edits, demonstrations } of drafts) {
    const kept = edits.slice(count(steps, turn, 'edit'))
    if (kept.length === 0) continue
    const shown = demonstrations.slice(count(steps, turn, 'demonstration'))
    out[turn] = {
      role: 'user',
      content: template.render({
        question,
        unfinished: breaksOff(question),
        edits: kept.map(({ edit }) => viewOf(edit)),
        demonstrations: shown,
      }),
    }
  }
  return out
}

function lostEdits(drafts: readonly Draft[], steps: readonly Step[]): (placed: Placed) => boolean {
  const lost = new Map(
    drafts.map(({ turn, edits }) => [turn, new Set(edits.slice(0, count(steps, turn, 'edit')).map(({ edit }) => edit))]),
  )
  return ({ turn, edit }) => lost.get(turn)?.has(edit) ?? false
}

function count(steps: readonly Step[], turn: number, what: Step['what']): number {
  return steps.filter((step) => step.turn === turn && step.what === what).length
}
