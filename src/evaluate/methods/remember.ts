import { createHash } from 'node:crypto'
import type { Engine, Finish, Prompt } from '../../engine/engine.ts'
import type { Sampling } from '../../request.ts'
import type { Stage, Trace } from '../../trace.ts'

/** One answer of the model, and what it cost when it was made. */
export interface Remembered {
  readonly text: string
  readonly reason: Finish['reason']
  readonly promptTokens: number
  readonly completionTokens: number
  readonly prefillMs: number
  readonly decodeMs: number
}

export interface RememberingEngine extends Engine {
  /** What the last generation under a trace was: the prompt's hash, its answer, and whether it had been answered before. */
  used(trace: Trace): { readonly hash: string; readonly answer: Remembered; readonly reused: boolean } | undefined
  remember(hash: string, answer: Remembered): void
}

/**
 * The engine, asked once for each prompt. Greedy and seeded, it gives the same bytes to the same prompt (test/model/engine.test.ts), so
 * where two methods render the same prompt, above all the base prompt, the second takes the answer of the first.
 * `reuse` false: everything is generated anew, to see that this holds.
 */
export function rememberingEngine(engine: Engine, reuse: boolean): RememberingEngine {
  const known = new Map<string, Remembered>()
  const uses = new WeakMap<Trace, { hash: string; answer: Remembered; reused: boolean }>()
  const ms = (trace: Trace, stage: Stage) => trace.stagesMs[stage] ?? 0
  return {
    model: engine.model,
    inspect: (prompt) => engine.inspect(prompt),
    countTokens: (prompt) => engine.countTokens(prompt),
    load: () => engine.load(),
    close: (graceMs) => engine.close(graceMs),
    ...(engine.openScorer !== undefined && { openScorer: engine.openScorer.bind(engine) }),
    used: (trace) => uses.get(trace),
    remember: (hash, answer) => void known.set(hash, answer),
    async *generate(prompt, sampling, trace, signal) {
      const hash = hashOf(prompt, sampling)
      const had = reuse ? known.get(hash) : undefined
      if (had !== undefined) {
        uses.set(trace, { hash, answer: had, reused: true })
        trace.promptTokens = had.promptTokens
        trace.add('prefill', had.prefillMs)
        trace.add('decode', had.decodeMs)
        yield { text: had.text }
        return { reason: had.reason, promptTokens: had.promptTokens, completionTokens: had.completionTokens, cachedTokens: 0 }
      }
      const before = { prefill: ms(trace, 'prefill'), decode: ms(trace, 'decode') }
      const steps = engine.generate(prompt, sampling, trace, signal)
      let text = ''
      for (;;) {
        const step = await steps.next()
        if (!step.done) {
          text += step.value.text
          yield step.value
          continue
        }
        const { reason, promptTokens, completionTokens } = step.value
        const cost = { prefillMs: ms(trace, 'prefill') - before.prefill, decodeMs: ms(trace, 'decode') - before.decode }
        const answer: Remembered = { text, reason, promptTokens, completionTokens, ...cost }
        known.set(hash, answer)
        uses.set(trace, { hash, answer, reused: false })
        return step.value
      }
    },
  }
}

function hashOf(prompt: Prompt, sampling: Sampling): string {
  return createHash('sha256')
    .update(JSON.stringify([prompt.messages, sampling]))
    .digest('hex')
    .slice(0, 32)
}
