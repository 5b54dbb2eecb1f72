/** A file of any shape that tells which edits should fire on which messages. */
import { basename } from 'node:path'
import { guessKind, type Located, readRecords } from '../../edit/records.ts'
import { PalimpsestError } from '../../errors.ts'
import { readTextFile, refusal } from '../data/dataset.ts'
import { type Cases, type CasesRead, merged } from './case.ts'
import { counterfact, counterfactHard } from './counterfact-hard.ts'
import { hallueditbench } from './hallueditbench.ts'
import { labelled } from './labelled.ts'
import { isMultilingual, type Languages, multilingual } from './multilingual.ts'

export function readCaseFiles(files: readonly string[], languages: Languages): Cases {
  return merged(files.map((file) => readCases(readTextFile(file), basename(file), languages)))
}

/** Throws `invalid_batch` with every problem, by line and field, when anything at all is wrong. */
export function readCases(text: string, name: string, languages: Languages = {}): Cases {
  const { read, count } = name.toLowerCase().endsWith('.csv') ? readCsv(text) : readJson(text, name, languages)
  const { problems, ...cases } = read
  if (problems.length > 0)
    throw refusal(
      problems.map((problem) => ({ file: name, ...problem })),
      name,
      count,
    )
  if (cases.cases.length === 0)
    throw new PalimpsestError(
      'invalid_batch',
      `${name} asks nothing: expected records with an edit and messages, got ${count} records.`,
    )
  return cases
}

interface Counted {
  readonly read: CasesRead
  readonly count: number
}

function readCsv(text: string): Counted {
  const read = hallueditbench(text)
  return { read, count: read.memories.values().next().value?.edits.length ?? 0 }
}

function readJson(text: string, name: string, languages: Languages): Counted {
  const { records, problems } = readRecords(text, guessKind(text), () => true)
  if (problems.length > 0) return { read: { memories: new Map(), cases: [], notes: [], problems }, count: records.length }
  return { read: readerOf(records, name, languages), count: records.length }
}

function readerOf(records: readonly Located[], name: string, languages: Languages): CasesRead {
  const [first] = records
  const has = (field: string) => typeof first?.value === 'object' && first.value !== null && field in first.value
  if (has('in_scope') || has('near_miss')) return labelled(records, name)
  if (has('edit_statement')) return counterfactHard(records, name)
  if (has('requested_rewrite')) return counterfact(records, name)
  if (isMultilingual(first?.value)) return multilingual(records, name, languages)
  const got = typeof first?.value === 'object' && first.value !== null ? Object.keys(first.value).join(', ') : typeof first?.value
  throw new PalimpsestError(
    'invalid_batch',
    `${name} has a shape that is not known here: line ${first?.line ?? 1} has ${got || 'nothing'}. Expected the trial's lines ` +
      "(edit, in_scope, near_miss), HalluEditBench's CSV, CounterFact or CounterFact-Hard, or one object a language with `src`. " +
      'Give other benchmark files with --data.',
  )
}
