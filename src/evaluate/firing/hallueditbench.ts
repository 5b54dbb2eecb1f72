/** HalluEditBench (Huang et al. 2025) as published: one CSV a topic and model, each row a fact with its questions. */
import { type CsvError, parse } from 'csv-parse/sync'
import type { Problem } from '../../errors.ts'
import { asked, type Case, type CasesRead } from './case.ts'
import { editOf } from './edits.ts'

/** Type in reports, by column. Rows may leave any of them empty. */
const IN_SCOPE: Readonly<Record<string, string>> = {
  question: 'question',
  paraphrased_question: 'para',
  yes_question: 'yes',
  no_question: 'no',
  reversed_relation_question: 'reversed',
  question_2hop: '2 hops',
  question_3hop: '3 hops',
  question_4hop: '4 hops',
  question_5hop: '5 hops',
  question_6hop: '6 hops',
}
const CHOICES = 'multiple_choice_with_letters'
const NEAR_MISS = 'locality_question'
const NEEDED = ['subject', 'question', 'object'] as const
/** The files of all topics make one memory, as its lines in the trial's shape do. */
const MEMORY = 'HalluEditBench'

export function hallueditbench(text: string): CasesRead {
  const { rows, problems } = rowsOf(text)
  const made = rows.flatMap(({ row, line }) => {
    const missing = NEEDED.filter((column) => (row[column] ?? '').trim() === '')
    problems.push(...missing.map((field) => ({ line, field, message: 'must not be empty; fill it in, or take the row out' })))
    return missing.length > 0 ? [] : [caseRow(row)]
  })
  const edits = made.map(({ edit }) => edit)
  return { memories: new Map([[MEMORY, { edits, always: [] }]]), cases: made.flatMap(({ cases }) => cases), notes: [], problems }
}

type Row = Readonly<Record<string, string>>

function rowsOf(text: string): { rows: { row: Row; line: number }[]; problems: Problem[] } {
  try {
    const parsed = parse(text, { bom: true, columns: true, info: true, skip_empty_lines: true }) as unknown as {
      record: Row
      info: { lines: number }
    }[]
    return { rows: parsed.map(({ record, info }) => ({ row: record, line: info.lines })), problems: [] }
  } catch (error) {
    const { message, lines } = error as CsvError
    return {
      rows: [],
      problems: [{ line: Number(lines ?? 1), field: null, message: `not CSV: ${message}; save the file as published` }],
    }
  }
}

function caseRow(row: Row) {
  const [subject, prompt, target_new] = NEEDED.map((column) => (row[column] ?? '').trim()) as [string, string, string]
  const edit = editOf({ subject, prompt, target_new })
  const common = { memory: MEMORY, group: 'H en', also: [], about: edit.id, derived: true as const }
  const one = (type: string, content: string, wants: readonly string[]): Case[] =>
    content.trim() === '' ? [] : [{ ...common, type, messages: asked(content), wants }]
  const choices = row[CHOICES] ?? ''
  return {
    edit,
    cases: [
      ...Object.entries(IN_SCOPE).flatMap(([column, type]) => one(type, row[column] ?? '', [edit.id])),
      ...(choices.trim() === '' ? [] : one('choice', `${prompt} ${choices}`, [edit.id])),
      ...one('locality', row[NEAR_MISS] ?? '', []),
    ],
  }
}
