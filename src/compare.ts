import type { Engine, Finish } from './engine/engine.ts'
import { hasTarget } from './experiment/ledger/outcome.ts'
import type { Answered, Answerer } from './experiment/replay/replay.ts'
import type { Gateway } from './gateway.ts'
import { answer, explain } from './pipeline.ts'
import type { ChatRequest } from './request.ts'
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
  const begun = gateway.now()
  const pieces = answer(request, gateway, trace, signal)
  let text = ''
  for (;;) {
    const { done, value } = await pieces.next()
    if (done) return { text, finish: value, trace, latencyMs: gateway.now() - begun }
    text += value.text
  }
}

/** How a gateway answers the replays of its own experiments. */
export function answererOf(gateway: Gateway): Answerer {
  // Which batches a replayed request does without is said by the request itself, so no experiment may add to it.
  const { experiments: _, ...plain } = gateway
  const { engine, otherEngines, models } = gateway
  const engines = (): readonly Engine[] => [engine, ...(otherEngines?.values() ?? []), ...(models?.resident() ?? [])]
  return {
    model: engine.model.name,
    load: () =>
      engines()
        .map((one) => one.load())
        .reduce((sum, { busy, queued }) => sum + busy + queued, 0),
    answer: async (request, signal): Promise<Answered> => {
      const { text, finish, trace, latencyMs } = await answerWhole(request, plain, 'replay', signal)
      const edits = [...new Set(trace.applied.map(({ id }) => id))]
      const applied = edits.flatMap((id) => gateway.memory.get(request.tenant, id)?.edit ?? [])
      const targets = applied.flatMap((edit) => (hasTarget(edit) ? [edit.targetNew] : []))
      return { text, edits, targets, latencyMs, completionTokens: finish.completionTokens }
    },
    differ: async (requests, signal) => {
      const prompts: string[] = []
      for (const request of requests) {
        const { prompt, base, adapter } = await explain(request, plain, new Trace('replay', gateway.now), signal)
        prompts.push(`${request.model}\n${request.arm === 'base' ? base.text : `${adapter ?? ''}\n${prompt.text}`}`)
      }
      return new Set(prompts).size > 1
    },
  }
}
