import { resolve } from 'node:path'
import type { Embedder, Engine, Scorer, TokenScore } from '../../src/engine/engine.ts'
import { openScripted, type ScriptedOptions } from '../../src/engine/scripted.ts'
import type { DataRecord, Dataset } from '../../src/evaluate/data/dataset.ts'
import { readDataset } from '../../src/evaluate/data/dataset.ts'
import { landAll, liveEdits } from '../../src/evaluate/data/prepare.ts'
import { rememberingEngine } from '../../src/evaluate/methods/remember.ts'
import { TRIAL_LIMITS, type Trial } from '../../src/evaluate/trial.ts'
import { DEFAULT_LIMITS, type Gateway } from '../../src/gateway.ts'
import { openTemplates } from '../../src/prompt/templates.ts'
import { fakeEmbedder, memory, NAMED_CALIBRATION } from './memory-fixture.ts'

const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined }
const templates = openTemplates({ dir: resolve(import.meta.dirname, '../../templates'), watch: false, log: quiet })

/** A town and its mayor: one made-up record in CounterFact's shape. */
export function town(name: string, mayor: string, before: string, neighbour = `New ${name}`) {
  return {
    requested_rewrite: {
      prompt: 'The mayor of {} is',
      relation_id: 'P6',
      subject: name,
      target_new: { str: mayor },
      target_true: { str: before },
    },
    paraphrase_prompts: [`It rained. ${name} is led by`],
    neighborhood_prompts: [`The mayor of ${neighbour} is`],
  }
}

export function towns(...records: unknown[]): Dataset {
  return readDataset(JSON.stringify(records), 'towns.json')
}

export interface TrialWish {
  readonly reply: ScriptedOptions['reply']
  readonly embedder?: Embedder
  readonly scorer?: Scorer
  readonly reuse?: boolean
  readonly contextTokens?: number
}

/** A trial on a scripted model. Nothing is ever retrieved, so that the pipeline renders the base prompt. */
export async function trialOn(dataset: Dataset, wish: TrialWish): Promise<Trial & { readonly asked: string[] }> {
  const embedder = wish.embedder ?? fakeEmbedder()
  const probes = dataset.records.flatMap((record) => record.probes)
  const store = await memory({ embedder })
  await landAll(store, dataset, [])
  await store.indexed()
  const asked: string[] = []
  const scripted = openScripted({
    name: 'scripted',
    contextTokens: wish.contextTokens ?? 4096,
    reply: (prompt, sampling) => {
      asked.push(prompt.messages.map(({ content }) => content).join('\n'))
      return wish.reply(prompt, sampling)
    },
  })
  const engine: Engine = {
    ...bound(scripted),
    ...(wish.scorer !== undefined && { openScorer: async () => wish.scorer as Scorer }),
  }
  const gateway: Gateway = {
    ...{ engine, memory: store, templates, limits: DEFAULT_LIMITS, now: Date.now, log: quiet, version: 'test', startedAt: 0 },
    retriever: { candidates: async () => ({ candidates: [], cached: false }) } as never,
    calibration: NAMED_CALIBRATION,
  }
  return {
    gateway: { ...gateway, engine: rememberingEngine(engine, wish.reuse ?? true) },
    ...{
      embedder,
      asked,
      seed: 0,
      limits: TRIAL_LIMITS,
      edits: new Map([...liveEdits(store)].map(([id, { edit }]) => [id, edit])),
    },
    records: new Map(dataset.records.map((record): [number, DataRecord] => [record.index, record])),
    ...{ probes, drawn: probes },
  }
}

function bound(engine: Engine): Engine {
  return {
    model: engine.model,
    generate: engine.generate.bind(engine),
    inspect: engine.inspect.bind(engine),
    countTokens: engine.countTokens.bind(engine),
    load: engine.load.bind(engine),
    close: engine.close.bind(engine),
  }
}

/** Likelier when the prompt holds the continuation already: half a chance a token, else one in eight. */
export function copyingScorer(): Scorer & { readonly scored: string[] } {
  const scored: string[] = []
  return {
    scored,
    score: async (prompt, continuations) => {
      scored.push(prompt)
      return continuations.map((continuation) =>
        continuation
          .trim()
          .split(' ')
          .map((word, i): TokenScore => {
            const hit = prompt.includes(word)
            return { logProbability: Math.log(hit ? 0.5 : 0.125), best: hit ? i : -1, hit }
          }),
      )
    },
    close: async () => undefined,
  }
}
