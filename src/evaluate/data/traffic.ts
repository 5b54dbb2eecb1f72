/** Everyday questions that no edit should touch, from JSONL: MT-Bench, GSM8K, NQ-open, MMLU and whatever has their fields. */
import { basename } from 'node:path'
import { z } from 'zod'
import { PalimpsestError, type Problem } from '../../errors.ts'
import { PROBLEMS_LISTED, readTextFile } from './dataset.ts'
import type { Probe } from './probe.ts'

const LETTERS = 'ABCDEFGHIJ'
const text = z.string({ error: 'expected a text' }).trim().min(1, { error: 'must not be empty' })

const Line = z
  .object({
    question: text.optional(),
    turns: z.array(text, { error: 'expected a list of texts' }).min(1).optional(),
    choices: z.array(text, { error: 'expected a list of texts' }).min(2).max(LETTERS.length).optional(),
    answer: z.union([text, z.array(text), z.number()], { error: 'expected a text or a list of texts' }).optional(),
  })
  .superRefine(({ question, turns, choices, answer }, check) => {
    if (question === undefined && turns === undefined)
      check.addIssue({
        code: 'custom',
        path: ['question'],
        message: 'is missing; expected `question`, a text, or `turns`, a list of texts',
      })
    if (choices !== undefined && letterOf(answer, choices) === undefined)
      check.addIssue({
        code: 'custom',
        path: ['answer'],
        message: 'expected the letter, the number or the text of one of `choices`',
      })
  })

type TrafficLine = z.output<typeof Line>

export interface Traffic {
  readonly probes: readonly Probe[]
  /** What the report should say about the file. */
  readonly notes: readonly string[]
}

/** Up to this share of lines that are no JSON is left out; at least one. */
const BROKEN_SHARE = 0.01

/**
 * The probes of one file; every turn of a conversation is one. A stray line that is cut off (the MMLU sample has one) is left out and noted
 * by number; more of them, or a wrong field anywhere, refuse the file with line and field.
 */
export function readTrafficFile(file: string): Traffic {
  const name = basename(file)
  const read = readTextFile(file)
    .trimEnd()
    .split('\n')
    .map((written, i) => ({ ...readLine(written), number: i + 1 }))
  const broken = read.filter((one) => one.broken)
  const tolerated = broken.length <= Math.max(1, BROKEN_SHARE * read.length) && broken.length < read.length
  const kept = tolerated ? read.filter((one) => !one.broken) : read
  const problems = kept.flatMap(({ problems, number }) => problems.map((problem) => ({ file: name, line: number, ...problem })))
  const probes = kept.flatMap(({ line, number }) => (line === undefined ? [] : probesOf(line, name, number)))
  if (problems.length === 0 && probes.length > 0)
    return { probes, notes: tolerated ? broken.map(({ number }) => `${name}: line ${number} is no JSON and is left out`) : [] }
  const [worst] = problems
  const where = worst === undefined ? 'it holds no line' : `line ${worst.line}, ${worst.field ?? 'as a whole'}: ${worst.message}`
  const count = problems.length === 1 ? 'one problem' : `${problems.length} problems`
  const message = `${name} has ${count}, and nothing of it was taken. ${where}.`
  throw new PalimpsestError('invalid_batch', message, { problems: problems.slice(0, PROBLEMS_LISTED) })
}

interface Read {
  readonly line?: TrafficLine
  /** No JSON at all. */
  readonly broken?: boolean
  readonly problems: readonly Problem[]
}

function readLine(written: string): Read {
  if (written.trim() === '') return { problems: [] }
  let value: unknown
  try {
    value = JSON.parse(written)
  } catch {
    return { broken: true, problems: [{ field: null, message: 'not JSON: the line is cut off or broken' }] }
  }
  const read = Line.safeParse(value)
  if (read.success) return { line: read.data, problems: [] }
  return { problems: read.error.issues.map(({ path, message }) => ({ field: path.join('.') || null, message })) }
}

function probesOf(line: TrafficLine, name: string, number: number): Probe[] {
  const sub = name.replace(/\.[^.]*$/, '')
  const about = { record: null, sub, wants: [] }
  const { question, turns, choices, answer } = line
  if (choices !== undefined && question !== undefined) {
    const letter = letterOf(answer, choices) ?? ''
    const asked = [question, ...choices.map((choice, i) => `${LETTERS[i]}. ${choice}`), 'Answer with one letter only.']
    return [{ ...about, kind: 'choice', id: `${sub}/choice/${number}`, turns: [asked.join('\n')], answers: [letter] }]
  }
  const asked = turns ?? [question ?? '']
  // GSM8K's answer is a worked solution, MT-Bench has none: only a list (NQ-open) is a list of accepted answers.
  const answers = Array.isArray(answer) ? answer : []
  return asked.map((_, turn): Probe => {
    const id = `${sub}/traffic/${number}.${turn}`
    return { ...about, kind: 'traffic', id, turns: asked.slice(0, turn + 1), answers: turn === 0 ? answers : [] }
  })
}

function letterOf(answer: TrafficLine['answer'], choices: readonly string[]): string | undefined {
  const index =
    typeof answer === 'number'
      ? answer
      : typeof answer === 'string' && answer.length === 1
        ? LETTERS.indexOf(answer.toUpperCase())
        : choices.indexOf(String(answer))
  return index >= 0 && index < choices.length ? LETTERS[index] : undefined
}
