import { answering, standDown } from './adapters/choice.ts'
import type { Adapter } from './adapters/registry.ts'
import type { ModelInfo } from './engine/engine.ts'
import type { Gateway } from './gateway.ts'
import { render } from './prompt/render.ts'
import type { ChatRequest, Message } from './request.ts'
import type { SelectedTurn, Selection } from './selection/select.ts'
import type { Applied, Considered } from './trace.ts'

/** What an answer is made from: the adapter, which holds some of the selected edits, and the prompt, which states the others. */
export interface Plan {
  readonly adapter: Adapter | undefined
  /** `edits` of each turn: those that the prompt states. */
  readonly turns: readonly SelectedTurn[]
}

/** Nothing for the base arm. Throws `adapter_not_found`. */
export function planOf(request: ChatRequest, { turns }: Selection, { adapters, engine }: Gateway): Plan {
  if (request.arm === 'base') return { adapter: undefined, turns: turns.map((turn) => ({ ...turn, edits: [] })) }
  const adapter = answering(request, adapters, engine.model.name)
  if (adapter === undefined || adapters === undefined || request.edits.kind !== 'on') return { adapter, turns }
  const holds = (id: string) => adapters.covers(adapter, id)
  const needed = turns.some(({ edits }) => edits.some(({ edit }) => holds(edit.id)))
  // One that is gated answers only where an edit that it holds is needed.
  if (request.arm === 'edited' && adapter.gated && !needed) return { adapter: undefined, turns }
  return { adapter, turns: standDown(turns, holds) }
}

/** The conversation as the model gets it. */
export interface Written {
  readonly messages: readonly Message[]
  readonly applied: readonly Applied[]
  readonly turns: readonly SelectedTurn[]
  /** Name and content hash; null where no edit was written. */
  readonly template: { readonly name: string; readonly hash: string } | null
  /** Prompt tokens that edits added. */
  readonly tokensAdded: number
}

/** Prompt tokens of a conversation. */
export type Count = (messages: readonly Message[]) => number

/** Prompt tokens kept free for the answer when the request does not say how many it wants. */
const ANSWER_TOKENS = 256

/** Each turn's edits in front of it, within the model's context, by `count` tokens. */
export function write(
  { messages, template: name, sampling }: ChatRequest,
  { turns }: Plan,
  { templates }: Gateway,
  model: ModelInfo,
  count: Count,
): Written {
  const template = templates.get(name, model.family)
  const stated = turns.filter(({ edits }) => edits.length > 0)
  const asked: Written = { messages, applied: [], turns, template: null, tokensAdded: 0 }
  if (stated.length === 0) return asked
  const scopes = new Map(stated.map(({ turn, edits }) => [turn, edits]))
  const pools = new Map(turns.map(({ turn, nearby }) => [turn, nearby]))
  const budget = { contextTokens: model.contextTokens, reserveTokens: sampling.maxTokens ?? ANSWER_TOKENS, count }
  const rendered = render(messages, scopes, template, budget, pools)
  const applied = rendered.applied.map(({ turn, edit, score }) => ({ id: edit.id, subject: edit.subject, score, turn }))
  const kept = turns.map((turn) => ({ ...turn, considered: turn.considered.map((one) => dropped(one, turn.turn, applied)) }))
  if (applied.length === 0) return { ...asked, turns: kept }
  return {
    messages: rendered.messages,
    applied,
    turns: kept,
    template: { name: template.name, hash: template.hash },
    tokensAdded: count(rendered.messages) - count(messages),
  }
}

/** The edit as the trace shows it where it was to be written and did not fit. */
function dropped(considered: Considered, turn: number, applied: readonly Applied[]): Considered {
  const wanted = considered.reason === 'selected' || considered.reason === 'requested'
  return wanted && !applied.some((a) => a.id === considered.id && a.turn === turn)
    ? { ...considered, reason: 'budget' }
    : considered
}
