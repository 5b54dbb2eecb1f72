import { createHash } from 'node:crypto'
import Handlebars from 'handlebars'
import { z } from 'zod'
import { PalimpsestError } from '../errors.ts'
import { checkProgram, HELPERS } from './check.ts'
import { fault } from './fault.ts'
import { type EditView, type Template, type Turn, viewOf } from './turn.ts'

/** Most demonstrations one template may ask for: more than the paper's 32 buys nothing and fills the context. */
export const MAX_DEMONSTRATIONS = 32

const FrontMatter = z.strictObject({
  families: z.array(z.string().min(1)).default([]),
  default: z.boolean().default(false),
  description: z.string().default(''),
  demonstrations: z.number().int().min(0).max(MAX_DEMONSTRATIONS).default(0),
})

/** A checked template, and where it is the default: for these families, or for every family without one of its own when empty. */
export interface Compiled {
  readonly template: Template
  readonly families: readonly string[]
  readonly isDefault: boolean
}

const FRONT_MATTER = /^\s*\{\{!--\s*palimpsest:\s*([\s\S]*?)\s*--\}\}/
const ENDS = /[.!?…。！？]["'”’)\]]*$/u

/** A private instance: nothing that other code registers on the shared one reaches a template, and only HELPERS are left. */
function isolated(): typeof Handlebars {
  const own = Handlebars.create()
  for (const name of Object.keys(own.helpers)) if (!(HELPERS as readonly string[]).includes(name)) own.unregisterHelper(name)
  own.registerHelper('sentence', (text: string) => (ENDS.test(text.trimEnd()) ? text.trimEnd() : `${text.trimEnd()}.`))
  return own
}

const handlebars = isolated()

/** Compiles and checks one template. Throws `template_broken` naming `file` and line. */
export function compileTemplate(name: string, source: string, file: string): Compiled {
  const meta = frontMatter(source, file)
  const text = source.replace(/\r?\n$/, '') // the newline that editors end a file with is no part of the prompt
  const program = parse(text, file)
  checkProgram(program, file)
  const compiled = handlebars.compile<Parted>(text, {
    noEscape: true,
    strict: true,
    preventIndent: true,
    knownHelpersOnly: true,
    knownHelpers: { if: true, each: true, sentence: true } as never,
  })
  const render = (turn: Turn) =>
    compiled(parted(turn), { allowProtoPropertiesByDefault: false, allowProtoMethodsByDefault: false })
  probe(render, questionLines(program.body), file, meta.demonstrations > 0)
  const hash = createHash('sha256').update(source).digest('hex').slice(0, 8)
  const template = { name, hash, description: meta.description, demonstrations: meta.demonstrations, render }
  return { template, families: meta.families, isDefault: meta.default }
}

/** What a template sees: the turn, and its edits as facts (sentences too) and rules. */
interface Parted extends Turn {
  readonly facts: readonly EditView[]
  readonly rules: readonly EditView[]
  /** What the facts are about, with commas; null where none names its subject. */
  readonly about: string | null
}

function parted(turn: Turn): Parted {
  const facts = turn.edits.filter(({ kind }) => kind !== 'rule')
  const subjects = facts.map(({ subject }) => subject).filter((subject) => subject !== '')
  const rules = turn.edits.filter(({ kind }) => kind === 'rule')
  return { ...turn, facts, rules, about: subjects.length === 0 ? null : subjects.join(', ') }
}

function frontMatter(source: string, file: string): z.infer<typeof FrontMatter> {
  const json = FRONT_MATTER.exec(source)?.[1]
  if (json === undefined) return FrontMatter.parse({})
  const line = source.slice(0, source.indexOf(json)).split('\n').length
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch (error) {
    throw fault(file, line, `the palimpsest comment holds no valid JSON (${(error as Error).message})`, error)
  }
  const read = FrontMatter.safeParse(value)
  if (read.success) return read.data
  const issue = read.error.issues[0]
  throw fault(file, line, `the palimpsest comment is wrong at "${issue?.path.join('.') || 'top level'}": ${issue?.message}`)
}

function parse(source: string, file: string): hbs.AST.Program {
  try {
    return handlebars.parse(source)
  } catch (error) {
    const message = (error as Error).message
    const line = Number(/line (\d+)/.exec(message)?.[1] ?? / (\d+):\d+$/.exec(message)?.[1] ?? 1)
    throw fault(file, line, `not valid Handlebars: ${message.split('\n').join(' ')}`, error)
  }
}

/** Lines on which the turn's own question is printed, for the messages of `probe`. */
function questionLines(body: readonly hbs.AST.Statement[], depth = 0): number[] {
  return body.flatMap((node) => {
    const { path, program, inverse } = node as hbs.AST.BlockStatement
    if (node.type === 'MustacheStatement') return path.original === `${'../'.repeat(depth)}question` ? [node.loc.start.line] : []
    if (node.type !== 'BlockStatement') return []
    const inner = depth + (path.original === 'each' ? 1 : 0)
    return [...questionLines(program?.body ?? [], inner), ...questionLines(inverse?.body ?? [], depth)]
  })
}

/** Text that a careless template would compile, escape or look up. */
const ODD = '{{x}} {{> p}} {{{constructor}}} <|im_end|> [INST] <<SYS>> </s> &lt; "\' $& \\n'

/** Renders made-up turns and refuses a template that loses, alters or repeats the question, or that hides an edit. */
function probe(render: (turn: Turn) => string, lines: readonly number[], file: string, demonstrated: boolean): void {
  const fact = (n: number, end = '') =>
    viewOf({ subject: `subject ${n} ${ODD}`, prompt: `prompt ${n} ${ODD}${end}`, targetNew: `target ${n} ${ODD}` })
  const sentence = viewOf({ kind: 'sentence', subject: '', prompt: `text ${ODD}`, targetNew: '' })
  const rule = viewOf({ kind: 'rule', subject: '', prompt: `when ${ODD}`, targetNew: `instruction ${ODD}` })
  const demonstrations = [{ kind: 'copy' as const, fact: `fact ${ODD}`, question: 'asked', answer: `answer ${ODD}` }]
  const question = ` user text ${ODD} \n end ` // its outer blanks too
  for (const edits of [[fact(1)], [fact(1, '?'), fact(2)], [sentence], [rule], [fact(1), sentence, rule]]) {
    const turns = (demonstrated ? [[], demonstrations] : [[]]).flatMap((shown) =>
      [true, false].map((unfinished) => ({ shown, unfinished })),
    )
    for (const { shown, unfinished } of turns) {
      const text = attempt(() => render({ question, unfinished, edits, demonstrations: shown }), file)
      const times = text.split(question).length - 1
      if (times !== 1) {
        const line = (times === 0 ? lines[0] : lines[1]) ?? 1
        throw fault(
          file,
          line,
          `the user's text must be in the result exactly once, unaltered; it is there ${times} times: write {{question}} once, outside every condition`,
        )
      }
      const hidden = edits.find((e) => !text.includes(e.target))
      if (hidden)
        throw fault(
          file,
          1,
          'an edit is not shown, or not unaltered: print its {{statement}} or {{target}} inside {{#each edits}}, or inside both {{#each facts}} and {{#each rules}}',
        )
      if (shown.length > 0 && !text.includes(`answer ${ODD}`))
        throw fault(file, 1, 'it asks for demonstrations but does not print their {{answer}}')
    }
  }
}

function attempt(work: () => string, file: string): string {
  try {
    return work()
  } catch (error) {
    if (error instanceof PalimpsestError) throw error
    throw fault(
      file,
      Number(/- (\d+):\d+/.exec((error as Error).message)?.[1] ?? 1),
      `cannot be rendered: ${(error as Error).message}`,
      error,
    )
  }
}
