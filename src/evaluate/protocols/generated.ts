/** The generated protocol: greedy answers to chat prompts, as a user would get them. */
import type { Edit } from '../../edit/edit.ts'
import type { Finish, Piece } from '../../engine/engine.ts'
import { answer } from '../../pipeline.ts'
import type { ChatRequest, EditsChoice, Message } from '../../request.ts'
import { Trace } from '../../trace.ts'
import { TENANT } from '../data/dataset.ts'
import type { Probe } from '../data/probe.ts'
import { type CosineBaseline, cosineSelects } from '../methods/cosine.ts'
import { type IkePrompts, ikeMessages } from '../methods/ike.ts'
import { mello } from '../methods/mello.ts'
import type { Compared } from '../methods/methods.ts'
import type { Remembered } from '../methods/remember.ts'
import { FLUENCY_SAMPLING } from '../metrics/entropy.ts'
import { ownEdits, ownRecord, type Trial, tokensFor } from '../trial.ts'

/** What a method answered to a probe. */
export interface Generated {
  readonly text: string
  readonly finish: Finish['reason']
  /** Ids of the edits that were put before the model. */
  readonly edits: readonly string[]
  readonly promptTokens: number
  readonly completionTokens: number
  /** Beyond the base prompt; what the model was asked about parts of the question is among them. */
  readonly tokensAdded: number
  /** Selection, rendering and generation; where the answer was reused, generation as it cost when it was made. */
  readonly ms: number
  /** The prompt had been answered before: by the base arm, where nothing was rendered, or by another method. */
  readonly reused: boolean
  /** Of the last prompt and its sampling, with its answer, for a resumed run; absent for MeLLo. */
  readonly prompt?: { readonly hash: string; readonly answer: Remembered }
  readonly demonstrations?: number
  readonly steps?: number
  readonly transcript?: string
}

/** What methods need beyond the trial. */
export interface Aids {
  readonly cosine: CosineBaseline
  readonly ike: IkePrompts
}

export async function generate(
  method: Compared,
  probe: Probe,
  trial: Trial,
  aids: Aids,
  signal: AbortSignal,
): Promise<Generated> {
  switch (method) {
    case 'base':
      return ask(probe, { kind: 'off' }, trial, signal)
    case 'ice':
      return ask(probe, only(ownEdits(probe, trial)), trial, signal)
    case 'cosine':
      return ask(probe, only(cosineSelects(probe, aids.cosine)), trial, signal)
    case 'palimpsest':
      return ask(probe, { kind: 'on' }, trial, signal)
    case 'ike':
      return askIke(probe, trial, aids.ike, signal)
    case 'mello': {
      const { text, ...rest } = await mello(probe.turns.at(-1) ?? '', trial, signal)
      const base = trial.gateway.engine.countTokens({ messages: [{ role: 'user', content: probe.turns.at(-1) ?? '' }] })
      return { text, finish: 'stop', reused: false, tokensAdded: rest.promptTokens - base, ...rest }
    }
    default:
      return method satisfies never
  }
}

function only(edits: readonly (Edit | string)[]): EditsChoice {
  const ids = edits.map((edit) => (typeof edit === 'string' ? edit : edit.id))
  return ids.length === 0 ? { kind: 'off' } : { kind: 'only', ids }
}

/** Through the pipeline, as served. */
async function ask(probe: Probe, edits: EditsChoice, trial: Trial, signal: AbortSignal): Promise<Generated> {
  const { engine } = trial.gateway
  const request: ChatRequest = {
    model: engine.model.name,
    tenant: TENANT,
    tags: [],
    explain: false,
    edits,
    messages: await conversation(probe, trial, signal),
    arm: edits.kind === 'off' ? 'base' : 'edited',
    sampling: sampling(probe, trial),
  }
  const trace = new Trace(probe.id, () => performance.now())
  const read = await readAll(answer(request, trial.gateway, trace, signal))
  const used = engine.used(trace)
  const { decomposition } = trace
  return {
    ...read,
    edits: trace.applied.map(({ id }) => id),
    promptTokens: read.promptTokens + decomposition.promptTokens,
    completionTokens: read.completionTokens + decomposition.completionTokens,
    tokensAdded: trace.tokensAdded + decomposition.promptTokens,
    ms: costOf(trace),
    reused: used?.reused ?? false,
    ...(used !== undefined && { prompt: { hash: used.hash, answer: used.answer } }),
  }
}

async function askIke(probe: Probe, trial: Trial, ike: IkePrompts, signal: AbortSignal): Promise<Generated> {
  const { engine } = trial.gateway
  const [edit] = ownEdits(probe, trial)
  if (edit === undefined) throw new Error(`probe ${probe.id}: its record has no live edit`)
  const before = await conversation(probe, trial, signal)
  const context = await ike.context(ownRecord(probe, trial), edit)
  const messages = [...before.slice(0, -1), ...ikeMessages(context, probe.turns.at(-1) ?? '')]
  const trace = new Trace(probe.id, () => performance.now())
  const read = await readAll(engine.generate({ messages }, sampling(probe, trial), trace, signal))
  const used = engine.used(trace)
  return {
    ...read,
    edits: [edit.id],
    tokensAdded: engine.countTokens({ messages }) - engine.countTokens({ messages: before }),
    ms: costOf(trace),
    reused: used?.reused ?? false,
    ...(used !== undefined && { prompt: { hash: used.hash, answer: used.answer } }),
    demonstrations: context.shown.length - 1,
  }
}

/** Earlier turns are answered by the base model, for every method alike. */
async function conversation(probe: Probe, trial: Trial, signal: AbortSignal): Promise<Message[]> {
  const earlier = probe.turns.slice(0, -1)
  const last: Message = { role: 'user', content: probe.turns.at(-1) ?? '' }
  if (earlier.length === 0) return [last]
  const before = { ...probe, turns: earlier }
  const { text } = await ask(before, { kind: 'off' }, trial, signal)
  return [...(await conversation(before, trial, signal)), { role: 'assistant', content: text }, last]
}

/** Seeded, so that the cache is reused only where that cannot change a logit: answers do not depend on what was asked before. */
function sampling(probe: Probe, { limits, seed }: Trial): ChatRequest['sampling'] {
  const way = probe.kind === 'fluency' ? FLUENCY_SAMPLING : { temperature: 0 }
  return { ...way, topP: 1, seed, maxTokens: tokensFor(probe, limits), stop: [] }
}

async function readAll(steps: AsyncGenerator<Piece, Finish>) {
  let text = ''
  for (;;) {
    const step = await steps.next()
    if (!step.done) {
      text += step.value.text
      continue
    }
    const { reason: finish, promptTokens, completionTokens } = step.value
    return { text, finish, promptTokens, completionTokens }
  }
}

function costOf({
  stagesMs: { retrieve = 0, read = 0, gate = 0, decompose = 0, render = 0, prefill = 0, decode = 0 },
}: Trace): number {
  return retrieve + read + gate + decompose + render + prefill + decode
}
