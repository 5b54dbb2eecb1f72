import type { AnswerFormat, ToolUse } from '../request.ts'
import { JsonGrammar, literal } from './json-grammar.ts'
import { CALL, CALL_END } from './tool-format.ts'

/** What an answer is held to, as GBNF: all of it, and from the end of the first call's tag on; null: free. */
export interface AnswerGrammar {
  readonly whole: string | null
  readonly afterTag: string | null
}

export const FREE: AnswerGrammar = { whole: null, afterTag: null }

/** Throws `unsupported_field` or `invalid_value` naming the part of a schema that can't be enforced. */
export function answerGrammar(format: AnswerFormat | undefined, tools: ToolUse | undefined): AnswerGrammar {
  if (tools === undefined) return format === undefined ? FREE : { whole: written((g) => formatted(g, format)), afterTag: null }
  const whole = written((g) => {
    const called = `${literal(CALL)} ${calls(g, tools)}`
    return tools.required || format === undefined ? called : `${called} | ${formatted(g, format)}`
  })
  const free = !tools.required && format === undefined
  return free ? { whole: null, afterTag: written((g) => calls(g, tools)) } : { whole, afterTag: null }
}

function written(root: (grammar: JsonGrammar) => string): string {
  const grammar = new JsonGrammar()
  return grammar.text(root(grammar))
}

function formatted(grammar: JsonGrammar, format: AnswerFormat): string {
  return format.kind === 'json' ? grammar.object() : grammar.rule(format.schema, format.param)
}

/** What follows a call's tag: the call, and others where several are allowed. */
function calls(grammar: JsonGrammar, { tools, allowed, parallel }: ToolUse): string {
  const callable = tools.filter(({ name }) => allowed.includes(name))
  const bodies = callable.map(({ name, parameters, param }) => {
    const given = argumentsRule(grammar, parameters, `${param}.function.parameters`)
    return `${literal(`\n{"name": ${JSON.stringify(name)}, "arguments": `)} ${given}`
  })
  const call = grammar.add(`(${bodies.join(' | ')}) "}\\n" ${literal(CALL_END)}`)
  return parallel ? `${call} ("\\n" ${literal(CALL)} ${call})*` : call
}

/** Arguments are an object, whether the schema says so or not. */
function argumentsRule(grammar: JsonGrammar, parameters: object | undefined, param: string): string {
  if (parameters !== undefined && Object.keys(parameters).length === 0) return grammar.object()
  return grammar.rule(parameters ?? EMPTY, param)
}

const EMPTY = { type: 'object', properties: {}, additionalProperties: false }
