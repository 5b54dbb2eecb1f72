import { LRUCache } from 'lru-cache'
import type { Message } from '../request.ts'
import { Trace } from '../trace.ts'
import type { Engine } from './engine.ts'

/** Tokens of one answer: a name, not a sentence. */
const NAME_TOKENS = 16
/** Words of a name; more is talk. */
const NAME_WORDS = 8
/** Answers kept, so that an earlier turn of a conversation is read again as it was read before. */
const KEPT_NAMES = 4_096
/** Fixed, so that the engine evaluates each question in the same batches, whatever else it is doing. */
const SEED = 1

/** Descriptions and what they stand for, to show the model that a full name is wanted and nothing else. */
const SHOTS: readonly (readonly [description: string, name: string])[] = [
  ['the country where Frédéric Chopin was born', 'Poland'],
  ['the author of "Hamlet"', 'William Shakespeare'],
  ['the sport that Lionel Messi plays', 'association football'],
  ['the religion followed by the Dalai Lama', 'Buddhism'],
  ["Marie Curie's husband", 'Pierre Curie'],
  ['the country to which Barack Obama belongs', 'United States of America'],
]

/** What asking cost. */
export interface BridgeCost {
  readonly promptTokens: number
  readonly completionTokens: number
}

export interface Named {
  /** Null: the answer is no name. */
  readonly name: string | null
  /** Null: known from before. */
  readonly cost: BridgeCost | null
}

/** Asks the served model, few-shot and greedily, what a description stands for: the bridge entity of a multi-hop question. */
export class Bridges {
  readonly #engine: Engine
  readonly #names = new LRUCache<string, { readonly name: string | null }>({ max: KEPT_NAMES })

  constructor(engine: Engine) {
    this.#engine = engine
  }

  /** Throws what the engine throws: a full queue, an abort. A failure is not remembered. */
  async name(description: string, signal: AbortSignal): Promise<Named> {
    const known = this.#names.get(description)
    if (known !== undefined) return { name: known.name, cost: null }
    const sampling = { temperature: 0, topP: 1, maxTokens: NAME_TOKENS, stop: ['\n'], seed: SEED }
    // A trace of its own: these are not the tokens of the answer.
    const steps = this.#engine.generate({ messages: messages(description) }, sampling, new Trace('bridge', () => 0), signal)
    let text = ''
    let step = await steps.next()
    for (; !step.done; step = await steps.next()) text += step.value.text
    const name = asName(text)
    this.#names.set(description, { name })
    return { name, cost: { promptTokens: step.value.promptTokens, completionTokens: step.value.completionTokens } }
  }
}

function messages(description: string): Message[] {
  const ask = (what: string): Message => ({ role: 'user', content: `What is ${what}? Answer with its full English name only.` })
  return [...SHOTS.flatMap(([what, name]): Message[] => [ask(what), { role: 'assistant', content: name }]), ask(description)]
}

function asName(text: string): string | null {
  const name = text
    .trim()
    .replace(/^["“]|["”]$/gu, '')
    .replace(/[.,;:!]+$/u, '')
    .trim()
  return name === '' || name.split(/\s+/).length > NAME_WORDS || !/[\p{L}\p{N}]/u.test(name) ? null : name
}
