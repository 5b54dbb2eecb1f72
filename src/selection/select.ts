import { setImmediate as yieldToLoop } from 'node:timers/promises'
import { isForModel, statement } from '../edit/edit.ts'
import type { BridgeCost, Bridges } from '../engine/bridge.ts'
import type { TextPair } from '../engine/engine.ts'
import { PalimpsestError } from '../errors.ts'
import { withholding } from '../memory/held-back-batches.ts'
import type { MemoryStore } from '../memory/memory-store.ts'
import type { PoolEdit } from '../prompt/demonstrations.ts'
import type { ScopedEdit } from '../prompt/render.ts'
import type { ChatRequest, MultiHop } from '../request.ts'
import type { Considered, Stage } from '../trace.ts'
import { boundless } from './boundless.ts'
import type { Candidate } from './candidate.ts'
import { bridge, type Chain, follow, type Hops } from './chain.ts'
import { type Calibration, gate, shown } from './gate.ts'
import type { Retriever } from './retriever.ts'
import { latest } from './sameness.ts'
import { isTextTask } from './text-task.ts'

/** What one user turn needs of the memory, and why. */
export interface SelectedTurn {
  /** Its index in `messages`. */
  readonly turn: number
  readonly edits: readonly ScopedEdit[]
  /** Facts near the turn that do not apply to it: raw material of demonstrations. */
  readonly nearby: readonly PoolEdit[]
  readonly considered: readonly Considered[]
  /** The candidates came from the cache. */
  readonly cached: boolean
}

/** What the conversation needs of the memory; does not know the arm. */
export interface Selection {
  readonly memoryVersion: number
  /** User turns, in order, also those that need no edit; empty where the request switches edits off. */
  readonly turns: readonly SelectedTurn[]
}

/** Where selection notes its time, and what asking the model about parts of a question cost. */
export interface Meter {
  time<T>(stage: Stage, work: () => T | Promise<T>): Promise<T>
  asked(cost: BridgeCost): void
}

/** What selection touches of a gateway. */
export interface Selecting {
  readonly memory: MemoryStore
  readonly retriever: Retriever
  readonly calibration: Calibration
  readonly multiHop?: { readonly mode: MultiHop; readonly bridges: Pick<Bridges, 'name'> }
}

/**
 * Which edits apply to each user turn. A turn's edits depend on the conversation up to it, on the memory and on the request's settings, never on
 * what follows. The model is asked only where multi-hop is in its mode `model`.
 */
export async function select(request: ChatRequest, gateway: Selecting, meter: Meter, signal: AbortSignal): Promise<Selection> {
  const { edits, messages } = request
  const memoryVersion = gateway.memory.version(request.tenant)
  switch (edits.kind) {
    case 'off':
      return { memoryVersion, turns: [] }
    case 'only':
      return { memoryVersion, turns: [named(request, edits.ids, gateway)] }
    case 'on': {
      const turns: SelectedTurn[] = []
      const digests: string[] = []
      for (const [turn, { role }] of messages.entries()) {
        if (role !== 'user') continue
        if (turns.length > 0) {
          // What is cached takes no turn of the event loop, and a conversation may have a thousand turns.
          await yieldToLoop()
          signal.throwIfAborted()
        }
        turns.push(await selectTurn(request, turn, digests, gateway, meter, signal))
      }
      return { memoryVersion, turns }
    }
    default:
      return edits satisfies never
  }
}

/** Facts shown in the trace of a turn that takes none. */
const ASIDE_SHOWN = 12

/** The order of a turn: candidates, those that apply to anything, those that a later edit makes outdated, the gate, further hops. */
async function selectTurn(
  request: ChatRequest,
  turn: number,
  digests: string[],
  gateway: Selecting,
  meter: Meter,
  signal: AbortSignal,
): Promise<SelectedTurn> {
  const { retriever, memory } = gateway
  const calibration = { ...gateway.calibration, threshold: request.threshold ?? gateway.calibration.threshold }
  const withoutHeldBack = withholding(request, memory)
  const read = (pairs: readonly TextPair[]) =>
    pairs.length === 0 ? new Float32Array() : meter.time('read', () => retriever.read(pairs, signal))
  const source: Hops['source'] = {
    about: (query, text) => withoutHeldBack(retriever.about(query, text).map((edit) => ({ edit }))).map(({ edit }) => edit),
    read,
    landed: (query, id) => retriever.landed(query, id),
  }
  const { candidates: found, cached } = await meter.time('retrieve', () =>
    retriever.candidates(request, turn, { read, signal, digests }),
  )
  const eligible = withoutHeldBack(found)
  const task = isTextTask(request.messages, turn)
  const offered = task ? eligible.filter(({ edit }) => edit.kind === 'rule') : eligible
  const aside = task ? eligible.filter(({ edit }) => edit.kind !== 'rule').slice(0, ASIDE_SHOWN) : []
  const unbounded = await meter.time('gate', () => boundless(offered, calibration, read))
  const candidates = offered.map((c) => (unbounded.has(c.edit.id) ? { ...c, boundless: true } : c))
  const { current, outdated } = await meter.time('gate', () => latest(request, candidates, calibration, source))
  const considered = [
    ...gate(current, calibration),
    ...outdated,
    ...aside.map((candidate): Considered => ({ ...shown(candidate), score: 0, reason: 'text_task' })),
  ]
  const scores = new Map(considered.flatMap((c) => (c.reason === 'selected' ? [[c.id, c.score]] : [])))
  const applying = current.flatMap(({ edit }) => (scores.has(edit.id) ? [{ edit, score: scores.get(edit.id) ?? 0 }] : []))
  const hops = await furtherHops(request, turn, current, considered, applying, source, gateway, calibration, meter, signal)
  return {
    turn,
    edits: [...applying, ...hops.links],
    nearby: current.flatMap((c) => (scores.has(c.edit.id) ? [] : demonstrable(c))),
    considered: [...considered.filter(({ id }) => !hops.considered.some((c) => c.id === id)), ...hops.considered],
    cached,
  }
}

/** A fact that was found by its meaning can serve as a demonstration. */
function demonstrable({ edit, similarity }: Candidate): PoolEdit[] {
  if (similarity === null || edit.kind !== undefined) return []
  return [{ prompt: edit.prompt, target: edit.targetNew, paraphrases: edit.paraphrases, similarity }]
}

/** Edits of further hops: those about what an applying edit names, or, in the mode `model`, about what the model names. None for a plain question. */
async function furtherHops(
  request: ChatRequest,
  turn: number,
  candidates: readonly Candidate[],
  considered: readonly Considered[],
  applying: readonly ScopedEdit[],
  source: Hops['source'],
  { multiHop }: Selecting,
  calibration: Calibration,
  meter: Meter,
  signal: AbortSignal,
): Promise<Chain> {
  const mode = request.multiHop ?? multiHop?.mode ?? 'chain'
  if (mode === 'off') return { links: [], considered: [] }
  const ask = async (question: string) => {
    if (multiHop === undefined) return null
    const { name, cost } = await multiHop.bridges.name(question, signal)
    if (cost !== null) meter.asked(cost)
    return name
  }
  // A link is read anew with what is known by then. Two reasons stand all the same: a later edit, and a counterexample.
  const refused = new Set(
    considered.flatMap(({ id, reason }) => (reason === 'outdated' || reason === 'counterexample' ? [id] : [])),
  )
  const hops = { query: request, source, calibration, refused, ask }
  const question = candidates.find(({ edit }) => applying.some((a) => a.edit.id === edit.id))?.read ?? candidates[0]?.read ?? ''
  const facts = applying.filter(({ edit }) => edit.kind !== 'rule')
  if (facts.length > 0)
    return meter.time('retrieve', () =>
      follow(
        question,
        facts.map((one) => ({ ...one, hop: 1 })),
        hops,
      ),
    )
  // The model is asked only where some edit that the question does not name might answer it.
  const might = candidates.some(({ logit, name, edit }) => logit !== null && name === null && edit.subject !== '')
  if (mode !== 'model' || !might) return { links: [], considered: [] }
  return meter.time('decompose', () => bridge(request.messages[turn]?.content ?? '', question, hops))
}

/** The edits a request names by id go to its last user turn, whatever the gate would say. */
function named(request: ChatRequest, ids: readonly string[], { memory }: Selecting): SelectedTurn {
  const turn = request.messages.findLastIndex((m) => m.role === 'user')
  if (turn === -1)
    throw new PalimpsestError(
      'invalid_value',
      'Edits were named, but the conversation has no message with the role `user` that they could be put next to.',
      { param: 'palimpsest.edits' },
    )
  const at = request.asOf ?? memory.moment()
  const edits = ids.map((id): ScopedEdit => {
    const held = memory.get(request.tenant, id, at)
    if (held === undefined)
      throw new PalimpsestError(
        'edit_not_found',
        `No edit \`${id}\` is held for tenant \`${request.tenant}\`; list them with GET /v1/edits.`,
        { param: 'palimpsest.edits' },
      )
    if (!memory.heldAt(request.tenant, id, at))
      throw new PalimpsestError(
        'invalid_value',
        `Edit \`${id}\` is ${held.state}, so it can't be applied; restore it, or ask with an \`as_of\` at which it was live.`,
        { param: 'palimpsest.edits' },
      )
    if (!isForModel(held.edit, request.model))
      throw new PalimpsestError(
        'invalid_value',
        `Edit \`${id}\` is for ${held.edit.models?.join(', ')} only, and \`${request.model}\` is served here.`,
        { param: 'palimpsest.edits' },
      )
    return { edit: held.edit, score: 1 }
  })
  const considered = edits.map(
    ({ edit }): Considered => ({
      id: edit.id,
      subject: edit.subject,
      statement: statement(edit),
      score: 1,
      similarity: null,
      key: null,
      reason: 'requested',
      evidence: {},
    }),
  )
  return { turn, edits, nearby: [], considered, cached: false }
}
