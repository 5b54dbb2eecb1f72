import { fault } from './fault.ts'

/** Helpers a template may use. `sentence` ends a statement with a full stop where it has no end mark. */
export const HELPERS = ['if', 'each', 'sentence'] as const

const EDIT = ['kind', 'subject', 'prompt', 'target', 'statement', 'when', 'instruction', 'question']
/** What may be named where: the turn itself, inside `each edits`, inside `each demonstrations`. Facts and rules are the edits, parted. */
const FIELDS: Readonly<Record<string, readonly string[]>> = {
  turn: ['question', 'unfinished', 'edits', 'demonstrations', 'facts', 'rules', 'about'],
  edits: EDIT,
  facts: EDIT,
  rules: EDIT,
  demonstrations: ['kind', 'fact', 'question', 'answer'],
}
const LISTS = ['edits', 'demonstrations', 'facts', 'rules']
const LOOP_DATA = ['first', 'last', 'index']

type Scope = readonly string[]

/** Throws `template_broken` with file and line at the first name, helper or construct a template may not use. */
export function checkProgram(program: hbs.AST.Program, file: string): void {
  walk(program.body, ['turn'], file)
}

function walk(body: readonly hbs.AST.Statement[], scope: Scope, file: string): void {
  for (const node of body) {
    switch (node.type) {
      case 'ContentStatement':
      case 'CommentStatement':
        break
      case 'MustacheStatement':
        checkOutput(node as hbs.AST.MustacheStatement, scope, file)
        break
      case 'BlockStatement':
        checkBlock(node as hbs.AST.BlockStatement, scope, file)
        break
      case 'PartialStatement':
      case 'PartialBlockStatement':
        throw fault(
          file,
          node.loc.start.line,
          'a partial ({{> …}}) stands here; templates stand alone, so write its text in place',
        )
      default:
        throw fault(file, node.loc.start.line, `a ${node.type} stands here; templates may use {{name}}, {{#if}} and {{#each}}`)
    }
  }
}

function checkOutput(node: hbs.AST.MustacheStatement, scope: Scope, file: string): void {
  const calls = node.params.length > 0 || node.hash !== undefined
  if (calls) checkCall(node.path, ['sentence'], node, file)
  for (const value of calls ? node.params : [node.path]) checkValue(value, scope, file, false)
}

function checkBlock(node: hbs.AST.BlockStatement, scope: Scope, file: string): void {
  checkCall(node.path, ['if', 'each'], node, file)
  const subject = node.params[0] as hbs.AST.Expression
  checkValue(subject, scope, file, true)
  const list = (subject as hbs.AST.PathExpression).original
  const isEach = node.path.original === 'each'
  if (isEach && !(scope.length === 1 && LISTS.includes(list)))
    throw fault(
      file,
      node.loc.start.line,
      `{{#each ${list}}} stands here; write {{#each ${LISTS.join('}}, {{#each ')}}}, not nested`,
    )
  walk(node.program?.body ?? [], isEach ? [...scope, list] : scope, file)
  walk(node.inverse?.body ?? [], scope, file)
}

function checkCall(
  path: hbs.AST.Node,
  allowed: readonly string[],
  node: { params: hbs.AST.Expression[]; hash?: hbs.AST.Hash },
  file: string,
): void {
  const name = (path as hbs.AST.PathExpression).original
  if (!allowed.includes(name))
    throw fault(
      file,
      path.loc.start.line,
      `unknown helper "${name}"; helpers here: ${allowed.join(', ')} (all: ${HELPERS.join(', ')})`,
    )
  if (node.params.length !== 1 || node.hash !== undefined)
    throw fault(file, path.loc.start.line, `"${name}" takes exactly one name and nothing else`)
}

/** A path that exists in its scope: `question`, `../question`, `@first`. Lists may be tested and walked, not printed. */
function checkValue(node: hbs.AST.Expression, scope: Scope, file: string, listAllowed: boolean): void {
  const line = node.loc.start.line
  if (node.type !== 'PathExpression') throw fault(file, line, `a ${node.type} stands here; name one field instead`)
  const path = node as hbs.AST.PathExpression
  const up = path.depth
  const name = path.parts.join('.')
  const known = path.data ? (scope.length > 1 ? LOOP_DATA : []) : (FIELDS[scope[scope.length - 1 - up] ?? ''] ?? [])
  if (!known.includes(name))
    throw fault(file, line, `unknown name "${path.original}"; known here: ${known.join(', ') || 'nothing that begins with @'}`)
  if (!listAllowed && LISTS.includes(name)) throw fault(file, line, `"${name}" is a list; walk it with {{#each ${name}}}`)
}
