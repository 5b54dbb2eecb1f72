import type { Adapter } from './adapters/registry.ts'
import { assign } from './assign.ts'
import type { Engine, Finish, Inspection, ModelInfo, Piece, Prompt } from './engine/engine.ts'
import { observed } from './experiment/ledger/outcome.ts'
import { type Gateway, holdEngine } from './gateway.ts'
import { type Count, type Plan, planOf, type Written, write } from './plan.ts'
import type { ChatRequest } from './request.ts'
import { type Selection, select } from './selection/select.ts'
import type { Trace, TurnTrace } from './trace.ts'

/**
 * The one way through. `assign` selects the edits that each turn needs (`selection/select.ts`, and `selection/gate.ts` decides), and only then the
 * arm, so "would have been edited" is known in all arms. `planOf` says which of them the prompt states, `write` writes it, and the engine answers.
 * Where nothing is selected and no adapter answers, the model gets what a plain server would give it. `asked` is the request as it came,
 * `request` as its arm answers it; `done` is told what came of the answer, for the experiment.
 */
export async function* answer(
  asked: ChatRequest,
  gateway: Gateway,
  trace: Trace,
  signal: AbortSignal,
): AsyncGenerator<Piece, Finish> {
  const { request, selection, experiment, done } = await assign(asked, gateway, trace, signal)
  trace.assigned(request.arm, experiment, selection)
  const pieces = generate(request, selection, gateway, trace, signal)
  return yield* done === undefined ? pieces : observed(pieces, done, signal)
}

/** The way from the selection on; a replay begins here, with the selection that it has. */
export async function* generate(
  request: ChatRequest,
  selection: Selection,
  gateway: Gateway,
  trace: Trace,
  signal: AbortSignal,
): AsyncGenerator<Piece, Finish> {
  const { engine, release } = await trace.time('queue', () => holdEngine(request.model, gateway, signal))
  try {
    const { plan, written } = await prepare(request, selection, gateway, engine.model, counterOf(request, engine), trace)
    const whole = request.whole === true ? { whole: true } : {}
    const prompt = { ...promptOf(request, written.messages), ...(await loraOf(plan.adapter, gateway, signal)), ...whole }
    return yield* noted(engine.generate(prompt, request.sampling, trace, signal), trace)
  } finally {
    release()
  }
}

/** Plans what the prompt states and writes it. */
export async function prepare(
  request: ChatRequest,
  selection: Selection,
  gateway: Gateway,
  model: ModelInfo,
  count: Count,
  trace: Trace,
): Promise<{ readonly plan: Plan; readonly written: Written }> {
  const plan = planOf(request, selection, gateway)
  trace.planned(plan)
  const written = await trace.time('render', () => write(request, plan, gateway, model, count))
  trace.written(written)
  return { plan, written }
}

/** The adapter's weights as the engine takes them. */
export async function loraOf(
  adapter: Adapter | undefined,
  { adapters }: Gateway,
  signal: AbortSignal,
): Promise<Pick<Prompt, 'lora'>> {
  return adapter === undefined || adapters === undefined ? {} : { lora: await adapters.lora(adapter, signal) }
}

export function counterOf(request: ChatRequest, engine: Engine): Count {
  return (messages) => engine.countTokens(promptOf(request, messages))
}

export function promptOf({ tools }: ChatRequest, messages: Prompt['messages']): Prompt {
  return tools === undefined ? { messages } : { messages, tools }
}

/** Passes an answer on as it comes, behind `echoed` characters of the prompt; the trace learns when its first piece came and how it ended. */
export async function* noted(pieces: AsyncGenerator<Piece, Finish>, trace: Trace, echoed = 0): AsyncGenerator<Piece, Finish> {
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

/** What `answer` would send now, and why, without an answer. Where `multi_hop` is `model`, the model may be asked about a part of the question. */
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
}

export async function explain(asked: ChatRequest, gateway: Gateway, trace: Trace, signal: AbortSignal): Promise<Explanation> {
  const request = gateway.experiments?.registry.usual(asked) ?? asked
  const { engine, release } = await holdEngine(request.model, gateway, signal)
  try {
    const selection = await select(request, gateway, trace, signal)
    trace.assigned(request.arm, null, selection)
    // What the edited arm would be shown, also where the base is asked about.
    const shown: ChatRequest = request.arm === 'base' ? { ...request, arm: 'edited' } : request
    const { plan, written } = await prepare(shown, selection, gateway, engine.model, counterOf(request, engine), trace)
    return {
      turns: written.turns,
      adapter: plan.adapter?.id ?? null,
      template: written.template,
      prompt: engine.inspect(promptOf(asked, written.messages)),
      base: engine.inspect(promptOf(asked, asked.messages)),
      tokensAdded: written.tokensAdded,
      memoryVersion: selection.memoryVersion,
    }
  } finally {
    release()
  }
}
