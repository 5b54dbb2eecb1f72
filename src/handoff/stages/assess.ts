import type { Adapter, Adapters } from '../../adapters/registry.ts'
import { answerWhole } from '../../compare.ts'
import type { Lora, Scorer } from '../../engine/engine.ts'
import type { Probe } from '../../evaluate/data/probe.ts'
import { applies, type Method, PROTOCOLS, type Protocol } from '../../evaluate/methods/methods.ts'
import { FLUENCY_SAMPLING } from '../../evaluate/metrics/entropy.ts'
import type { Outcome } from '../../evaluate/metrics/outcomes.ts'
import type { AnswerFile, Line } from '../../evaluate/protocols/answers.ts'
import { answerKey } from '../../evaluate/protocols/answers.ts'
import { type Forced, scored } from '../../evaluate/protocols/forced.ts'
import type { Generated } from '../../evaluate/protocols/generated.ts'
import type { Gateway } from '../../gateway.ts'
import type { ChatRequest } from '../../request.ts'
import type { Settings } from '../job.ts'

/** Tokens of a paragraph whose fluency is measured (EasyEdit: 100). */
const FLUENCY_TOKENS = 100
/** `palimpsest`: with the edits that selection finds in the prompt, and no adapter. */
const ARMS = ['base', 'palimpsest', 'adapter'] as const
type Asked = (typeof ARMS)[number]
/** Prompts are for chats; teacher forcing reads bare texts. */
const TASKS = ARMS.flatMap((arm) =>
  PROTOCOLS.filter((one) => arm !== 'palimpsest' || one === 'generated').map((protocol) => ({ arm, protocol })),
)

export interface Assessment {
  readonly gateway: Gateway & { readonly adapters: Adapters }
  readonly adapter: Adapter
  readonly probes: readonly Probe[]
  /** Answers that a run before this one was given are not asked for again. */
  readonly answers: AnswerFile
  readonly settings: Pick<Settings, 'answer_tokens' | 'seed'>
  readonly tick: (done: number, of: number) => void
  readonly signal: AbortSignal
}

/** Every probe by the model as it is, with edits in the prompt, and through the adapter without any; both protocols of the evaluation. */
export async function assess(assessment: Assessment): Promise<Outcome[]> {
  const { probes, answers, adapter, settings, tick, signal } = assessment
  const outcomes = probes.map((probe) => ({ probe, generated: {}, forced: {}, edits: new Map() }) as Mutable)
  const of = TASKS.length * probes.length
  let done = 0
  for (const { arm, protocol } of TASKS) {
    const circumstances = { ...settings, sha256: arm === 'adapter' ? adapter.sha256 : '', scale: adapter.scale }
    const ask = asker(protocol, arm, assessment)
    try {
      for (const outcome of outcomes) {
        tick(done++, of)
        const { probe } = outcome
        if (!applies(arm, protocol, probe)) continue
        signal.throwIfAborted()
        const key = answerKey(protocol, arm, probe, circumstances)
        const line = answers.find(key) ?? (await ask.one(probe, key))
        if (line === null) continue
        if (answers.find(key) === undefined) answers.append(line)
        put(outcome, arm, line, assessment)
      }
    } finally {
      await ask.close()
    }
  }
  return outcomes
}

function put(outcome: Mutable, arm: Asked, line: Line, { gateway, adapter }: Assessment): void {
  if (line.protocol === 'forced') {
    outcome.forced = { ...outcome.forced, [arm]: line.outcome }
    return
  }
  outcome.generated = { ...outcome.generated, [arm]: line.outcome }
  const fired = line.outcome.edits.map((id) => gateway.memory.get(adapter.tenant, id)?.edit)
  outcome.edits = new Map([...outcome.edits, ...fired.flatMap((edit) => (edit === undefined ? [] : [[edit.id, edit] as const]))])
}

type Mutable = { -readonly [Key in keyof Outcome]: Outcome[Key] }

interface Asker {
  /** null: this engine shows no probabilities. */
  one(probe: Probe, key: string): Promise<Line | null>
  close(): Promise<void>
}

function asker(protocol: Protocol, arm: Asked, assessment: Assessment): Asker {
  const about = (probe: Probe, key: string) => {
    const method: Method = arm
    return { key, method, probe: probe.id, question: probe.turns.at(-1) ?? '', accepted: probe.answers }
  }
  if (protocol === 'generated')
    return {
      one: async (probe, key) => ({ ...about(probe, key), protocol, outcome: await generated(probe, arm, assessment) }),
      close: async () => {},
    }
  const { gateway, adapter } = assessment
  const lora = async (): Promise<Lora | undefined> => (arm === 'adapter' ? gateway.adapters.lora(adapter) : undefined)
  let scorer: Promise<Scorer> | undefined
  return {
    one: async (probe, key) => {
      const { engine } = gateway
      if (engine.openScorer === undefined) return null
      const open = engine.openScorer.bind(engine)
      scorer ??= lora().then(open)
      return { ...about(probe, key), protocol, outcome: await forced(probe, await scorer) }
    },
    close: async () => void (await (await scorer)?.close()),
  }
}

async function generated(probe: Probe, arm: Asked, { gateway, adapter, settings, signal }: Assessment): Promise<Generated> {
  const request: ChatRequest = {
    model: gateway.engine.model.name,
    tenant: adapter.tenant,
    tags: [],
    explain: false,
    edits: { kind: arm === 'palimpsest' ? 'on' : 'off' },
    messages: probe.turns.slice(-1).map((content) => ({ role: 'user', content })),
    arm: arm === 'palimpsest' ? 'edited' : arm,
    ...(arm === 'adapter' && { adapter: adapter.id }),
    sampling: {
      ...{ topP: 1, seed: settings.seed, stop: [] },
      ...(probe.kind === 'fluency'
        ? { ...FLUENCY_SAMPLING, maxTokens: FLUENCY_TOKENS }
        : { temperature: 0, maxTokens: settings.answer_tokens }),
    },
  }
  // It takes part in no experiment, and no promoted adapter answers for an edit.
  const { experiments: _, adapters, ...plain } = gateway
  const asked = arm === 'palimpsest' ? plain : { ...plain, adapters }
  const { text, finish, latencyMs, trace } = await answerWhole(request, asked, `handoff ${probe.id}`, signal)
  const { reason, promptTokens, completionTokens } = finish
  return {
    text,
    finish: reason,
    edits: trace.applied.map(({ id }) => id),
    promptTokens,
    completionTokens,
    tokensAdded: 0,
    ms: latencyMs,
    reused: false,
  }
}

async function forced(probe: Probe, scorer: Scorer): Promise<Forced> {
  const text = probe.forcedText ?? probe.turns.at(-1) ?? ''
  const wanted = [probe.answers[0] ?? '', ...(probe.rival === undefined ? [] : [probe.rival])]
  const [answer, rival = null] = (
    await scorer.score(
      text,
      wanted.map((one) => ` ${one}`),
    )
  ).map(scored)
  if (answer === undefined) throw new Error(`probe ${probe.id} was not scored`)
  return { edits: [], answer, rival, reused: false }
}
