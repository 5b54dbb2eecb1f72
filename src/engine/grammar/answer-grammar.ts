import type { AnswerFormat, ToolUse } from '../../request.ts'
import { CALL, CALL_END } from '../format/tool-format.ts'
import { JsonGrammar, literal } from './json-grammar.ts'

/** What an answer is held to, as GBNF; null: free. */
export interface AnswerGrammar {
  /** All of it. */
  readonly whole: string | null
  /** What follows the tag of the first call. */
  readonly afterTag: string | null
  /** What follows the head of a call that has no tag, up to its arguments. */
  readonly afterHead: (name: string) => string | null
}

/** Throws `unsupported_field` or `invalid_value` naming the part of a schema that can't be enforced. */
export function answerGrammar(format: AnswerFormat | undefined, tools: ToolUse | undefined): AnswerGrammar {
  const held = (whole: string): AnswerGrammar => ({ whole, afterTag: null, afterHead: () => null })
  if (tools === undefined) {
    return format === undefined ? { ...held(''), whole: null } : held(written((g) => formatted(g, format)))
  }
  if (!tools.required && format === undefined) {
    const afterHead = (name: string) =>
      written((g) => `[ \\n]{0,20} ${givenRule(g, tools, name)} [ \\n]{0,20} "}" ("\\n\`\`\`")?`)
    return { whole: null, afterTag: written((g) => calls(g, tools)), afterHead }
  }
  return held(
    written((g) => {
      const called = `${literal(CALL)} ${calls(g, tools)}`
      return tools.required || format === undefined ? called : `${called} | ${formatted(g, format)}`
    }),
  )
}

function written(root: (grammar: JsonGrammar) => string): string {
  const grammar = new JsonGrammar()
  return grammar.text(root(grammar))
}

function formatted(grammar: JsonGrammar, format: AnswerFormat): string {
  return format.kind === 'json' ? grammar.object() : grammar.rule(format.schema, format.param, format.strict)
}

/** What follows a call's tag: the call, and others where several are allowed. */
function calls(grammar: JsonGrammar, use: ToolUse): string {
  const bodies = use.allowed.map((name) => {
    const head = literal(`\n{"name": ${JSON.stringify(name)}, "arguments": `)
    return `${head} ${givenRule(grammar, use, name)}`
  })
  const call = grammar.add(`(${bodies.join(' | ')}) "}\\n" ${literal(CALL_END)}`)
  return use.parallel ? `${call} ("\\n" ${literal(CALL)} ${call})*` : call
}

/** The arguments of `name`. */
function givenRule(grammar: JsonGrammar, { tools }: ToolUse, name: string): string {
  const tool = tools.find((one) => one.name === name)
  return argumentsRule(grammar, tool?.parameters, `${tool?.param}.function.parameters`, tool?.strict ?? false)
}

/** Arguments are an object, whether the schema says so or not. */
function argumentsRule(grammar: JsonGrammar, parameters: object | undefined, param: string, strict: boolean): string {
  if (parameters !== undefined && Object.keys(parameters).length === 0) return grammar.object()
  return grammar.rule(strict ? (parameters ?? EMPTY) : { type: 'object', ...(parameters ?? EMPTY) }, param, strict)
}

const EMPTY = { type: 'object', properties: {}, additionalProperties: false }
