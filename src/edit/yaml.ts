/**
 * YAML 1.2 with the failsafe schema: every plain scalar is text, so `target_new: 3.10` keeps its zero and `yes` stays a word.
 * All our fields are texts or lists of texts.
 */
import { Composer, type CST, type Document, isMap, isScalar, isSeq, LineCounter, type ParsedNode, Parser } from 'yaml'
import type { Problem } from '../errors.ts'
import { show } from './values.ts'

export interface Yaml {
  /** Null where there is nothing but comments, and where there are problems. */
  readonly value: unknown
  readonly line: number
  /** Lines of the elements of the top-level list, or of the list `edits` in the top-level map. */
  readonly elementLines: readonly number[]
  readonly problems: readonly Problem[]
}

/** Deeper than any format of edits goes, by far. */
const DEPTH_LEVELS = 100

export function readYaml(text: string): Yaml {
  const lines = new LineCounter()
  try {
    const tokens = [...new Parser(lines.addNewLine).parse(text)]
    const deep = tokens.find(isTooDeep)
    if (deep !== undefined) return refuse(lineAt(lines, deep.offset), `nested more than ${DEPTH_LEVELS} levels deep`)
    const [document, second] = new Composer({ schema: 'failsafe', logLevel: 'silent', uniqueKeys: false }).compose(
      tokens,
      true,
      text.length,
    )
    if (document === undefined) return { value: null, line: 1, elementLines: [], problems: [] }
    if (second !== undefined) return refuse(lineAt(lines, second.range[0]), 'a second document begins here; expected one')
    return fromDocument(document, lines)
  } catch (error) {
    return refuse(1, (error as Error).message) // aliases that multiply without end
  }
}

function fromDocument(document: Document.Parsed, lines: LineCounter): Yaml {
  const faults = [...document.errors.map(({ pos, message }) => ({ at: pos[0], message })), ...repeatedKeys(document.contents)]
  const problems = faults.map(({ at, message }) => ({ line: lineAt(lines, at), field: null, message: `not YAML: ${message}` }))
  if (problems.length > 0) return { value: null, line: 1, elementLines: [], problems }
  const lineOf = (node: unknown): number => lineAt(lines, (node as { range?: number[] | null } | null)?.range?.[0] ?? 0)
  const edits = isMap(document.contents) ? document.contents.get('edits') : document.contents
  const elementLines = isSeq(edits) ? edits.items.map(lineOf) : []
  // Only comments: the failsafe schema makes of it an empty text.
  const value = document.toJS()
  return { value: value === '' ? null : value, line: lineOf(document.contents), elementLines, problems }
}

/** The library compares each key of a map with every other one, which is quadratic: so it is told not to, and this is done here. */
function repeatedKeys(contents: ParsedNode | null): { readonly at: number; readonly message: string }[] {
  const found: { readonly at: number; readonly message: string }[] = []
  const open: unknown[] = [contents]
  while (open.length > 0) {
    const node = open.pop()
    if (isSeq(node)) for (const item of node.items) open.push(item)
    if (!isMap(node)) continue
    const seen = new Set<unknown>()
    for (const { key, value } of node.items) {
      open.push(key, value)
      if (!isScalar(key)) continue
      const at = key.range?.[0] ?? 0
      if (seen.has(key.value)) found.push({ at, message: `the key ${show(key.value)} is named twice in one map: name it once` })
      if (key.value === '__proto__') found.push({ at, message: 'no map may have a key `__proto__`: leave it out' })
      seen.add(key.value)
    }
  }
  return found.sort((a, b) => a.at - b.at)
}

/**
 * Depth by a walk that is not recursive. The parser is not either, but the composer is, and when a regular expression is first
 * compiled at the very end of the call stack, V8 aborts the process: `[[[[…` must not get that far.
 */
function isTooDeep(document: CST.Token): boolean {
  const open: [token: CST.Token, depth: number][] = [[document, 0]]
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const [token, depth] = next
    if (depth > DEPTH_LEVELS) return true
    if (token.type === 'document') open.push(...inside([token.value], depth))
    else if ('items' in token) for (const item of token.items) open.push(...inside([item.key, item.value], depth + 1))
  }
  return false
}

function inside(tokens: readonly (CST.Token | null | undefined)[], depth: number): [CST.Token, number][] {
  return tokens.filter((token) => token != null).map((token) => [token, depth])
}

function lineAt(lines: LineCounter, offset: number): number {
  return Math.max(1, lines.linePos(offset).line)
}

function refuse(line: number, message: string): Yaml {
  return {
    value: null,
    line: 1,
    elementLines: [],
    problems: [{ line, field: null, message: `not YAML that can be read: ${message}` }],
  }
}
