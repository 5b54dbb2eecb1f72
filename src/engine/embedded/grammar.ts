import { LRUCache } from 'lru-cache'
import { type LlamaGrammar, LlamaGrammarEvaluationState, type LlamaModel } from 'node-llama-cpp'
import { PalimpsestError } from '../../errors.ts'
import type { AnswerFormat, ToolUse } from '../../request.ts'
import { answerGrammar } from '../grammar/answer-grammar.ts'

/** Compiled grammars kept: clients send the same tools and schemas again and again. */
const KEPT_GRAMMARS = 64

/** Compiles what answers are held to. */
export class Grammars {
  readonly #model: LlamaModel
  readonly #compiled = new LRUCache<string, LlamaGrammar>({ max: KEPT_GRAMMARS })

  constructor(model: LlamaModel) {
    this.#model = model
  }

  /** null: the answer is free. Throws an error that names the part of a schema that can't be enforced. */
  async constraint(format: AnswerFormat | undefined, tools: ToolUse | undefined): Promise<Constraint | null> {
    if (format === undefined && tools === undefined) return null
    const { whole, afterTag, afterHead } = answerGrammar(format, tools)
    const compile = (text: string | null) => this.#compile(text, format, tools)
    const [now, later] = [await compile(whole), await compile(afterTag)]
    return new Constraint(
      this.#model,
      now,
      later && ((bare) => (bare === null ? Promise.resolve(later) : compile(afterHead(bare)))),
    )
  }

  async #compile(
    text: string | null,
    format: AnswerFormat | undefined,
    tools: ToolUse | undefined,
  ): Promise<LlamaGrammar | null> {
    if (text === null) return null
    const known = this.#compiled.get(text)
    if (known !== undefined) return known
    try {
      const grammar = await this.#model.llama.createGrammar({ grammar: text })
      this.#compiled.set(text, grammar)
      return grammar
    } catch (cause) {
      const param = tools === undefined && format?.kind === 'schema' ? format.param : 'tools'
      throw new PalimpsestError('unsupported_field', `The schema in \`${param}\` is too large to be enforced: make it smaller.`, {
        param,
        cause,
      })
    }
  }
}

/** What an answer is held to from the beginning of its first call on; by name where that began without a tag. */
type Later = (bare: string | null) => Promise<LlamaGrammar | null>

/** What one answer is held to, and how far it has come. */
export class Constraint {
  readonly #model: LlamaModel
  #later: Later | null
  /** undefined: free. */
  state: LlamaGrammarEvaluationState | undefined

  constructor(model: LlamaModel, now: LlamaGrammar | null, later: Later | null) {
    this.#model = model
    this.#later = later
    this.#hold(now)
  }

  /** Whether the beginning of a call, when it comes, begins a grammar. */
  get waits(): boolean {
    return this.#later !== null
  }

  /** The first call has begun. */
  async begin(bare: string | null): Promise<void> {
    const later = this.#later
    this.#later = null
    this.#hold((await later?.(bare)) ?? null)
  }

  #hold(grammar: LlamaGrammar | null): void {
    if (grammar !== null) this.state = new LlamaGrammarEvaluationState({ model: this.#model, grammar })
  }
}
