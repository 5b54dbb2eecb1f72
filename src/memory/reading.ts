import { type Edit, MASK, maskSubject } from '../edit/edit.ts'
import type { SelectionQuery } from '../request.ts'
import { descriptions, sentenceAround } from './descriptions.ts'
import { type Calibration, gate } from './gate.ts'
import type { Candidate } from './retrieve.ts'
import { SubjectIndex } from './subject-index.ts'
import { type Span, tokens } from './tokens.ts'

/** What following hops needs of retrieval. */
export interface HopSource {
  candidates(query: SelectionQuery, turn: number): Promise<{ readonly candidates: readonly Candidate[] }>
  about(query: SelectionQuery, name: string): readonly Edit[]
  embed(texts: readonly string[]): Promise<readonly Float32Array[]>
}

/** What following hops works with. */
export interface Hops {
  /** Its scope counts, not its messages. */
  readonly query: SelectionQuery
  readonly source: HopSource
  readonly calibration: Calibration
}

export interface Place {
  /** One sentence. */
  readonly text: string
  /** Where the subject stands in it. */
  readonly name: Span
}

/** One way to read a question: this part of it stands for the target of `edit`. */
export interface Reading {
  /** The question with the target in that part's place, and where it stands there. */
  readonly asked: string
  readonly name: Span
  /** That part. */
  readonly part: string
  /** What is left of the question, that part masked. */
  readonly outer: Float32Array
  /** Cosines to the edit's relation: of the part, of the whole question, of what is left of it. */
  readonly inner: number
  readonly whole: number
  readonly rest: number
}

/** Where a question names the subject of `edit`; null where it does not. */
export function placeOf(question: string, edit: Edit): Place | null {
  const index = new SubjectIndex()
  index.add(edit)
  const [match] = index.find(tokens(question)).toSorted((a, b) => b.coverage - a.coverage)
  if (match === undefined) return null
  const sentence = sentenceAround(question, match)
  const lead = question.slice(sentence.start).search(/\S/)
  const start = sentence.start + Math.max(0, lead)
  return {
    text: question.slice(start, sentence.end).trimEnd(),
    name: { start: match.start - start, end: match.end - start },
  }
}

/**
 * The ways to read a question that names the subject of `edit`: one for each beginning of a description, which ends where it asks for the
 * edit most clearly. The innermost comes first.
 */
export async function read({ text, name }: Place, edit: Edit, source: HopSource): Promise<Reading[]> {
  const found = descriptions(text, name)
  if (found.length === 0) return []
  const parts = found.flatMap((d) => [
    text.slice(d.start, name.start) + MASK + text.slice(name.end, d.end),
    text.slice(0, d.start) + MASK + text.slice(d.end),
  ])
  const [whole, ...vectors] = await source.embed([text.slice(0, name.start) + MASK + text.slice(name.end), ...parts])
  const relation = await relationOf(edit, source)
  const readings = found.map((description, i) => {
    const outer = vectors[2 * i + 1] as Float32Array
    const target = edit.targetNew.trim()
    return {
      part: text.slice(description.start, description.end),
      asked: text.slice(0, description.start) + target + text.slice(description.end),
      name: { start: description.start, end: description.start + target.length },
      outer,
      inner: nearness(vectors[2 * i] as Float32Array, relation),
      whole: nearness(whole as Float32Array, relation),
      rest: nearness(outer, relation),
    }
  })
  return readings.filter((one) => readings.every((other) => other.name.start !== one.name.start || other.inner <= one.inner))
}

/** The relation of an edit in all its wordings, the subject masked. */
export function relationOf(edit: Edit, source: HopSource): Promise<readonly Float32Array[]> {
  return source.embed([edit.prompt, ...edit.paraphrases].map((t) => maskSubject(t, edit.subject).trim()))
}

/** The best cosine to a relation, of unit vectors. */
export function nearness(vector: Float32Array, relation: readonly Float32Array[]): number {
  return Math.max(...relation.map((r) => r.reduce((sum, x, i) => sum + x * (vector[i] ?? 0), 0)))
}

/** The gate's verdict on a text by itself, and the edits it is about. */
export async function verdict(text: string, { query, source, calibration }: Hops) {
  const { candidates } = await source.candidates({ ...query, messages: [{ role: 'user', content: text }] }, 0)
  return { candidates, considered: gate(candidates, calibration) }
}
