import type { Engine, Finish, Inspection, ModelInfo, Piece, Prompt } from './engine/engine.ts'
import { PalimpsestError } from './errors.ts'
import type { Allocation, Kept } from './experiment/allocate.ts'
import { type Done, hasTarget, observed } from './experiment/outcome.ts'
import { type Gateway, holdEngine } from './gateway.ts'
import { answering, standDown } from './models/adapter-choice.ts'
import type { Adapter } from './models/adapters.ts'
import { render } from './prompt/render.ts'
import type { ChatRequest, Message, TextRequest } from './request.ts'
import { NOTHING, type Scope, select } from './selection/select.ts'
import type { Applied, Considered, Trace, TurnTrace } from './trace.ts'

/** Prompt tokens kept free for the answer when the request does not say how many it wants. */
const ANSWER_TOKENS = 256

/**
 * The one way through: find the edits that each turn needs, put them next to it, let the model answer. Selection comes before the
 * arm, so "would have been edited" is known in all arms; where nothing is selected the model gets what a plain server would give it.
 */
export async function* answer(
  request: ChatRequest,
  gateway: Gateway,
  trace: Trace,
  signal: AbortSignal,
): AsyncGenerator<Piece, Finish> {
  const { request: served, scope, done } = await allocate(request, gateway, trace, signal)
  const { engine, release } = await trace.time('queue', () => holdEngine(served.model, gateway, signal))
  try {
    const { adapter, used } = divided(served, scope, gateway, trace)
    const count = tokensOf(served, engine)
    const messages = await trace.time('render', () => write(served, used, gateway, engine.model, trace, count))
    const prompt = { ...promptOf(served, messages), ...loraOf(adapter, gateway) }
    const pieces = noted(engine.generate(prompt, served.sampling, trace, signal), trace)
    return yield* done === undefined ? pieces : observed(pieces, done, signal)
  } finally {
    release()
  }
}

/** The request as its arm answers it, and the edits that apply. Without experiments: as it came. `kept`: what no arm may change. */
async function allocate(
  request: ChatRequest,
  gateway: Gateway,
  trace: Trace,
  signal: AbortSignal,
  kept?: Kept,
): Promise<Allocation<Scope>> {
  const choose = async (served: ChatRequest) => {
    const scope = await select(served, gateway, trace, signal)
    const chosen = [...scope.edits].flatMap(([turn, edits]) => edits.map(({ edit }) => ({ turn, edit })))
    const edits = chosen.map(({ turn, edit }) => [turn, edit.id, edit.targetNew])
    return {
      scope,
      edits: edits.length === 0 ? '' : JSON.stringify(edits),
      targets: chosen.flatMap(({ edit }) => (hasTarget(edit) ? [edit.targetNew] : [])),
    }
  }
  if (gateway.experiments === undefined) return { request: { ...request, ...kept }, scope: (await choose(request)).scope }
  return await gateway.experiments.allocator.allocate(request, choose, trace, kept)
}

function loraOf(adapter: Adapter | undefined, { adapters }: Gateway): Pick<Prompt, 'lora'> {
  return adapter === undefined || adapters === undefined ? {} : { lora: adapters.lora(adapter) }
}

/** What the selected edits are answered from: the adapter, which holds some of them, and the prompt, which states the others; nothing for the base. */
function divided(
  request: ChatRequest,
  scope: Scope,
  { adapters, engine }: Gateway,
  trace: Trace,
): { readonly adapter: Adapter | undefined; readonly used: Scope } {
  if (request.arm === 'base') return { adapter: undefined, used: NOTHING }
  const adapter = answering(request, adapters, engine.model.name)
  trace.adapter = adapter?.id ?? null
  if (adapter === undefined || adapters === undefined || request.edits.kind !== 'on') return { adapter, used: scope }
  const besides = standDown(scope.edits, trace.turns, (id) => adapters.covers(adapter, id))
  if (request.arm === 'edited' && adapter.gated && !besides.stoodDown) {
    trace.adapter = null
    return { adapter: undefined, used: scope }
  }
  trace.turns = besides.turns
  return { adapter, used: { ...scope, edits: besides.edits } }
}

function tokensOf(request: ChatRequest, engine: Engine) {
  return (messages: readonly Message[]) => engine.countTokens(promptOf(request, messages))
}

/** Passes an answer on as it comes, behind `echoed` characters of the prompt; the trace learns when its first piece came and how it ended. */
async function* noted(pieces: AsyncGenerator<Piece, Finish>, trace: Trace, echoed = 0): AsyncGenerator<Piece, Finish> {
  let echo = echoed
  try {
    for (;;) {
      const { done, value } = await pieces.next()
      if (done) {
        trace.finish(value.reason, value.completionTokens)
        return value
      }
      trace.piece(value.text, echo > 0)
      echo -= value.text.length
      yield value
    }
  } finally {
    await pieces.return(undefined as never)
  }
}

/** The template that puts facts before a text and adds no instruction. */
const TEXT_TEMPLATE = 'raw-completion'

/** The same for a text to be gone on with: its edits stand before it, and it stays as the client wrote it, to the token. */
export async function* completeText(
  request: TextRequest,
  gateway: Gateway,
  trace: Trace,
  signal: AbortSignal,
): AsyncGenerator<Piece, Finish> {
  const { engine, release } = await holdEngine(request.model, gateway, signal)
  try {
    return yield* goOn(request, engine, gateway, trace, signal)
  } finally {
    release()
  }
}

async function* goOn(
  request: TextRequest,
  { model, text: engine }: Engine,
  gateway: Gateway,
  trace: Trace,
  signal: AbortSignal,
): AsyncGenerator<Piece, Finish> {
  if (engine === undefined)
    throw new PalimpsestError(
      'unsupported_field',
      `\`${model.name}\` can't go on with plain text here: use /v1/chat/completions.`,
      { param: 'prompt' },
    )
  const { prompt, echo, sampling } = request
  const text = typeof prompt === 'string' ? prompt : engine.detokenize(prompt)
  const asked: ChatRequest = { ...request, messages: [{ role: 'user', content: text }] }
  const kept = { model: request.model, template: request.template ?? TEXT_TEMPLATE }
  const { request: served, scope, done } = await allocate(asked, gateway, trace, signal, kept)
  const count = (messages: readonly Message[]) => engine.tokenize(messages[0]?.content ?? '').length
  const { adapter, used } = divided(served, scope, gateway, trace)
  const written = await trace.time('render', () => write(served, used, gateway, model, trace, count))
  const whole = written[0]?.content ?? text
  if (!whole.endsWith(text))
    throw new PalimpsestError(
      'invalid_value',
      `The template '${kept.template}' writes after the text, which is to be gone on with: name one that only writes before it.`,
      { param: 'palimpsest.template' },
    )
  const before = whole.slice(0, whole.length - text.length)
  const completing = { before, text: prompt, echo, ...loraOf(adapter, gateway) }
  const pieces = noted(engine.complete(completing, sampling, trace, signal), trace, echo ? text.length : 0)
  // What is echoed is no answer.
  const answered: Done | undefined = done && ((whole, finish) => done(echo ? whole.slice(text.length) : whole, finish))
  return yield* answered === undefined ? pieces : observed(pieces, answered, signal)
}

/** The conversation with each turn's edits in front of it, within the model's context, by `count` tokens. */
function write(
  request: ChatRequest,
  scope: Scope,
  { templates }: Gateway,
  model: ModelInfo,
  trace: Trace,
  count: (messages: readonly Message[]) => number,
): readonly Message[] {
  const template = templates.get(request.template, model.family)
  if (scope.edits.size === 0) return request.messages
  const budget = {
    contextTokens: model.contextTokens,
    reserveTokens: request.sampling.maxTokens ?? ANSWER_TOKENS,
    count,
  }
  const pools = new Map(
    [...scope.nearby].map(([turn, near]) => [
      turn,
      near
        .filter(({ edit }) => edit.kind === undefined)
        .map(({ edit: { prompt, targetNew: target, paraphrases }, similarity }) => ({
          prompt,
          target,
          paraphrases,
          similarity: similarity ?? 0,
        })),
    ]),
  )
  const { messages, applied } = render(request.messages, scope.edits, template, budget, pools)
  trace.applied = applied.map(({ turn, edit, score }): Applied => ({ id: edit.id, subject: edit.subject, score, turn }))
  trace.turns = trace.turns.map((t) => ({
    ...t,
    considered: t.considered.map((c) => (dropped(c, t.turn, trace.applied) ? { ...c, reason: 'budget' } : c)),
  }))
  if (applied.length === 0) return request.messages
  trace.template = { name: template.name, hash: template.hash }
  trace.tokensAdded = count(messages) - count(request.messages)
  return messages
}

function promptOf({ tools }: ChatRequest, messages: Prompt['messages']): Prompt {
  return tools === undefined ? { messages } : { messages, tools }
}

function dropped(considered: Considered, turn: number, applied: readonly Applied[]): boolean {
  const wanted = considered.reason === 'selected' || considered.reason === 'requested'
  return wanted && !applied.some((a) => a.id === considered.id && a.turn === turn)
}

/** What `answer` would send, and why, without an answer; the model is asked about parts of the question only, where `multi_hop` is `model`. */
export interface Explanation {
  readonly turns: readonly TurnTrace[]
  readonly template: { readonly name: string; readonly hash: string } | null
  readonly prompt: Inspection
  /** The adapter that would answer. */
  readonly adapter: string | null
  /** The prompt of the base arm. */
  readonly base: Inspection
  readonly tokensAdded: number
  readonly memoryVersion: number
  readonly decomposition: Trace['decomposition']
}

export async function explain(request: ChatRequest, gateway: Gateway, trace: Trace, signal: AbortSignal): Promise<Explanation> {
  const usual = gateway.experiments?.registry.usual(request) ?? request
  const { engine, release } = await holdEngine(usual.model, gateway, signal)
  try {
    const scope = await select(usual, gateway, trace, signal)
    // What the edited arm would be shown, also where the base is asked about.
    const shown: ChatRequest = usual.arm === 'base' ? { ...usual, arm: 'edited' } : usual
    const { used } = divided(shown, scope, gateway, trace)
    const messages = await trace.time('render', () => write(usual, used, gateway, engine.model, trace, tokensOf(usual, engine)))
    return {
      turns: trace.turns,
      adapter: trace.adapter,
      template: trace.template,
      prompt: engine.inspect(promptOf(request, messages)),
      base: engine.inspect(promptOf(request, request.messages)),
      tokensAdded: trace.tokensAdded,
      memoryVersion: trace.memoryVersion,
      decomposition: trace.decomposition,
    }
  } finally {
    release()
  }
}
