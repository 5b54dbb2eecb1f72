import { readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { watch as watchFolder } from 'chokidar'
import { PalimpsestError, type Problem } from '../errors.ts'
import { type Compiled, compileTemplate } from './compile.ts'
import type { Template } from './turn.ts'

export interface TemplatesOptions {
  /** Folder of `*.hbs` files; the file name without its ending is the template's name. */
  readonly dir: string
  /** Follow changes on disk. */
  readonly watch: boolean
  readonly log: { info(message: string): void; warn(message: string): void }
}

export interface Templates {
  /** Sorted. */
  names(): readonly string[]
  /** By name, or the default of `family`. Throws `template_not_found`, listing the names. */
  get(name: string | undefined, family: string): Template
  /** Faults of files now on disk that were refused; the last good version of each, if any, is served. */
  problems(): readonly Problem[]
  /** Reads the folder again now; the watcher calls it. */
  reload(): void
  close(): Promise<void>
}

interface Held extends Compiled {
  readonly source: string
}

/** Loads every template of a folder. At this first load any fault throws `template_broken`; afterwards faults are kept in `problems()`. */
export function openTemplates({ dir, watch, log }: TemplatesOptions): Templates {
  let held: ReadonlyMap<string, Held> = new Map()
  let faults: readonly Problem[] = []

  function load(): void {
    const before = held
    ;({ held, faults } = scan(dir, before))
    for (const name of changed(before, held))
      log.info(`template ${name}: ${held.has(name) ? `loaded ${held.get(name)?.template.hash}` : 'removed'}`)
    for (const { file, line, message } of faults) log.warn(`template refused: ${file}:${line}: ${message}`)
  }

  load()
  if (faults[0]) throw refusedTemplate(faults)
  if (held.size === 0)
    throw new PalimpsestError(
      'template_broken',
      `No template found: ${dir} holds no file ending in .hbs. Point at the folder "templates" of Palimpsest, or add one.`,
    )
  const watcher = watch ? watchFolder(dir, { depth: 0, ignoreInitial: true, atomic: true }) : undefined
  const reload = () => {
    try {
      load()
    } catch (error) {
      faults = problemsOf(error, dir) // the folder itself is gone: everything last loaded stays
      log.warn((error as Error).message)
    }
  }
  watcher?.on('all', (_event, path) => {
    if (path.endsWith('.hbs')) reload()
  })
  watcher?.on('error', (error) => log.warn(`templates in ${dir} are no longer watched: ${(error as Error).message}`))

  return {
    names: () => [...held.keys()].sort(),
    get: (name, family) => choose(held, name, family),
    problems: () => faults,
    reload,
    close: async () => watcher?.close(),
  }
}

/** Every file compiled anew unless its text is unchanged; where one is broken, its last good version stays. */
function scan(dir: string, before: ReadonlyMap<string, Held>): { held: Map<string, Held>; faults: Problem[] } {
  const held = new Map<string, Held>()
  const faults: Problem[] = []
  for (const file of filesOf(dir)) {
    const name = basename(file, '.hbs')
    const last = before.get(name)
    try {
      const source = readFileSync(file, 'utf8')
      held.set(name, last?.source === source ? last : { ...compileTemplate(name, source, file), source })
    } catch (error) {
      if (last) held.set(name, last)
      faults.push(...problemsOf(error, file))
    }
  }
  return { held, faults: [...faults, ...rivals(held, dir)] }
}

function filesOf(dir: string): string[] {
  try {
    return readdirSync(dir)
      .filter((file) => file.endsWith('.hbs'))
      .sort()
      .map((file) => join(dir, file))
  } catch (error) {
    const message = `The template folder ${dir} cannot be read (${(error as Error).message}). Create it, or name another folder.`
    throw new PalimpsestError('template_broken', message, { cause: error, problems: [{ file: dir, field: null, message }] })
  }
}

function problemsOf(error: unknown, file: string): readonly Problem[] {
  if (error instanceof PalimpsestError && error.problems.length > 0) return error.problems
  return [{ file, line: 1, field: null, message: (error as Error).message }]
}

/** Two defaults for one family: the first by name is served, the other is a fault. */
function rivals(held: ReadonlyMap<string, Held>, dir: string): Problem[] {
  const taken = new Map<string, string>()
  const found: Problem[] = []
  for (const [name, { families, isDefault }] of held) {
    for (const family of isDefault ? (families.length > 0 ? families : ['every other family']) : []) {
      const other = taken.get(family)
      if (other === undefined) taken.set(family, name)
      else
        found.push({
          file: join(dir, `${name}.hbs`),
          line: 1,
          field: 'default',
          message: `default for ${family}, but "${other}" is that already; take "default" out of one`,
        })
    }
  }
  return found
}

function choose(held: ReadonlyMap<string, Held>, name: string | undefined, family: string): Template {
  const all = [...held.values()]
  const found =
    name !== undefined
      ? held.get(name)
      : (all.find((one) => one.isDefault && one.families.includes(family)) ??
        all.find((one) => one.isDefault && one.families.length === 0))
  if (found) return found.template
  const names = [...held.keys()].sort().join(', ')
  const asked =
    name === undefined ? `There is no default template for models of family "${family}".` : `There is no template "${name}".`
  throw new PalimpsestError('template_not_found', `${asked} Templates: ${names}.`, { param: 'palimpsest.template' })
}

function changed(before: ReadonlyMap<string, Held>, after: ReadonlyMap<string, Held>): string[] {
  const names = new Set([...before.keys(), ...after.keys()])
  return [...names].filter((name) => before.get(name) !== after.get(name))
}

function refusedTemplate(faults: readonly Problem[]): PalimpsestError {
  const lines = faults.map(({ file, line, message }) => `${file}:${line}: ${message}`)
  return new PalimpsestError('template_broken', lines.join('\n'), { problems: faults })
}
