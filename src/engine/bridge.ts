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

/** Questions and what they describe without naming it, to show the model that a full name is wanted and nothing else. */
const SHOTS: readonly (readonly [question: string, name: string])[] = [
  ['Who leads the country where Frédéric Chopin was born?', 'Poland'],
  ['In which town was the author of "Hamlet" buried?', 'William Shakespeare'],
  ['Wie viele Spieler hat eine Mannschaft in der Sportart, die Lionel Messi ausübt?', 'Fußball'],
  ["Where did Marie Curie's husband teach?", 'Pierre Curie'],
  ['¿Cuál es la capital del país al que pertenece Barack Obama?', 'Estados Unidos'],
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

/** Asks the served model, few-shot and greedily, what a question describes without naming it: the bridge entity of a multi-hop question. */
export class Bridges {
  readonly #engine: Engine
  readonly #names = new LRUCache<string, { readonly name: string | null }>({ max: KEPT_NAMES })

  constructor(engine: Engine) {
    this.#engine = engine
  }

  /** The most that asking costs, in tokens of prompts and answers. */
  mostTokens(questions: readonly string[]): number {
    return questions.reduce((sum, question) => sum + this.#engine.countTokens({ messages: messages(question) }) + NAME_TOKENS, 0)
  }

  /** Throws what the engine throws: a full queue, an abort. A failure is not remembered. */
  async name(question: string, signal: AbortSignal): Promise<Named> {
    const known = this.#names.get(question)
    if (known !== undefined) return { name: known.name, cost: null }
    const sampling = { temperature: 0, topP: 1, maxTokens: NAME_TOKENS, stop: ['\n'], seed: SEED }
    // A trace of its own: these are not the tokens of the answer.
    const steps = this.#engine.generate({ messages: messages(question) }, sampling, new Trace('bridge', () => 0), signal)
    let text = ''
    let step = await steps.next()
    for (; !step.done; step = await steps.next()) text += step.value.text
    const name = asName(text)
    this.#names.set(question, { name })
    return { name, cost: { promptTokens: step.value.promptTokens, completionTokens: step.value.completionTokens } }
  }
}

function messages(question: string): Message[] {
  const ask = (asked: string): Message => ({
    role: 'user',
    content: `What does this question describe without naming it? Answer with its full name only.\n${asked}`,
  })
  return [...SHOTS.flatMap(([asked, name]): Message[] => [ask(asked), { role: 'assistant', content: name }]), ask(question)]
}

function asName(text: string): string | null {
  const name = text
    .trim()
    .replace(/^["“]|["”]$/gu, '')
    .replace(/[.,;:!]+$/u, '')
    .trim()
  return name === '' || name.split(/\s+/).length > NAME_WORDS || !/[\p{L}\p{N}]/u.test(name) ? null : name
}
