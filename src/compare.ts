import { selectOnce } from './assign.ts'
import type { Engine, Finish, Piece } from './engine/engine.ts'
import { hasTarget } from './experiment/ledger/outcome.ts'
import type { Answered, Answerer } from './experiment/replay/replay.ts'
import { type Gateway, holdEngine } from './gateway.ts'
import { answer, counterOf, generate, prepare, promptOf } from './pipeline.ts'
import type { ChatRequest } from './request.ts'
import type { Selection } from './selection/select.ts'
import { Trace } from './trace.ts'

/** One arm's answer to a prompt, with its reasons. */
export interface ArmAnswer {
  readonly text: string
  readonly finish: Finish
  readonly trace: Trace
  readonly latencyMs: number
}

/** The whole answer to a request. */
export async function answerWhole(request: ChatRequest, gateway: Gateway, id: string, signal: AbortSignal): Promise<ArmAnswer> {
  const trace = new Trace(id, gateway.now)
  return gathered(answer(request, gateway, trace, signal), trace, gateway.now)
}

async function gathered(pieces: AsyncGenerator<Piece, Finish>, trace: Trace, now: () => number): Promise<ArmAnswer> {
  const begun = now()
  let text = ''
  for (;;) {
    const { done, value } = await pieces.next()
    if (done) return { text, finish: value, trace, latencyMs: now() - begun }
    text += value.text
  }
}

/** How a gateway answers the replays of its own experiments. */
export function answererOf(gateway: Gateway): Answerer {
  // Which batches a replayed request does without is said by the request itself, so no experiment may add to it.
  const { experiments: _, ...plain } = gateway
  const { engine, otherEngines, models, now } = gateway
  const engines = (): readonly Engine[] => [engine, ...(otherEngines?.values() ?? []), ...(models?.resident() ?? [])]
  const answeredOf = (tenant: string, { text, finish, trace, latencyMs }: ArmAnswer): Answered => {
    const edits = [...new Set(trace.applied.map(({ id }) => id))]
    const applied = edits.flatMap((id) => gateway.memory.get(tenant, id)?.edit ?? [])
    const targets = applied.flatMap((edit) => (hasTarget(edit) ? [edit.targetNew] : []))
    return { text, edits, targets, latencyMs, completionTokens: finish.completionTokens }
  }
  return {
    model: engine.model.name,
    load: () =>
      engines()
        .map((one) => one.load())
        .reduce((sum, { busy, queued }) => sum + busy + queued, 0),
    answer: async (request, signal) => answeredOf(request.tenant, await answerWhole(request, plain, 'replay', signal)),
    answers: async (requests, signal) => {
      const select = selectOnce(plain, new Trace('replay', now), signal)
      const arms: { readonly request: ChatRequest; readonly selection: Selection }[] = []
      for (const request of requests) arms.push({ request, selection: await select(request) })
      const prompts = new Set<string>()
      for (const { request, selection } of arms) prompts.add(await promptText(request, selection, plain, signal))
      if (prompts.size === 1) return null
      const answers: Answered[] = []
      for (const { request, selection } of arms) {
        const trace = new Trace('replay', now)
        trace.assigned(request.arm, null, selection)
        const pieces = generate(request, selection, plain, trace, signal)
        answers.push(answeredOf(request.tenant, await gathered(pieces, trace, now)))
      }
      return answers
    },
  }
}

/** What a model would be asked, with its name and its adapter. */
async function promptText(request: ChatRequest, selection: Selection, gateway: Gateway, signal: AbortSignal): Promise<string> {
  const { engine, release } = await holdEngine(request.model, gateway, signal)
  try {
    const trace = new Trace('replay', gateway.now)
    const { plan, written } = await prepare(request, selection, gateway, engine.model, counterOf(request, engine), trace)
    return `${request.model}\n${plan.adapter?.id ?? ''}\n${engine.inspect(promptOf(request, written.messages)).text}`
  } finally {
    release()
  }
}
