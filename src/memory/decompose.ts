import { type Edit, MASK } from '../edit/edit.ts'
import type { SelectionQuery } from '../request.ts'
import type { Considered } from '../trace.ts'
import { type Chain, chain, type Link } from './chain.ts'
import { type Description, descriptions, likelyNames } from './descriptions.ts'
import { type Calibration, gate } from './gate.ts'
import { type HopSource, nearness, placeOf, relationOf } from './reading.ts'
import { type Span, sentences } from './tokens.ts'

/** Descriptions resolved one after another in one question. */
export const BRIDGE_STEPS = 3
/** A longer sentence is not taken apart. */
const SENTENCE_CHARS = 300
/** Readings of a question compared per step; each may cost an embedding and a search. */
const READINGS = 16
/** Least cosine between what is left of a question and the relation of some edit in memory for the model to be asked at all. */
const SUPPORT = 0.5

/** What a description stands for, by the served model; null where it names nothing. */
export type Ask = (description: string) => Promise<string | null>

/** What taking a question apart works with. */
export interface Apart {
  readonly query: SelectionQuery
  readonly source: HopSource
  readonly calibration: Calibration
  readonly ask: Ask
}

/**
 * Takes a question apart whose first hop no edit states: "Who leads the country where X plays?" with an edit on the country. What the
 * inner part stands for is asked of the memory first, then of the model, and the question with the answer in its place goes through
 * retrieval and gate like any other. The model is asked only where an edit in memory could answer what is left of the question.
 * Null: no edit was found, so the question is left as it is.
 */
export async function decompose(question: string, apart: Apart): Promise<Chain | null> {
  let text = lastSentence(question)
  let around: readonly Span[] = likelyNames(text)
  const links: Link[] = []
  const considered: Considered[] = []
  for (let step = 1; step <= BRIDGE_STEPS && text.length <= SENTENCE_CHARS; step++) {
    const description = await supported(text, around, apart)
    if (description === null) break
    const described = text.slice(description.start, description.end)
    const [stated] = await asked(`What is ${described}?`, null, apart)
    const name = stated?.edit.targetNew.trim() ?? (await apart.ask(described))
    if (name === null) break
    if (stated !== undefined) links.push({ ...stated, hop: step })
    if (stated !== undefined) considered.push({ ...stated.considered, hop: step })
    text = text.slice(0, description.start) + name + text.slice(description.end)
    around = [{ start: description.start, end: description.start + name.length }]
    const [found] = await asked(text, around[0] ?? null, apart)
    if (found === undefined) continue
    const first = { edit: found.edit, score: found.score, hop: step + 1 }
    const rest = await chain(apart.query, text, first, apart.source, apart.calibration)
    const via = stated?.edit.id ?? 'model'
    return {
      links: [...links, first, ...rest.links],
      considered: [...considered, { ...found.considered, hop: first.hop, via }, ...rest.considered],
      asked: rest.asked ?? text,
    }
  }
  return links.length === 0 ? null : { links, considered, asked: text }
}

/** The sentence that asks: the last one. */
function lastSentence(question: string): string {
  const last = sentences(question.trim()).at(-1)
  return last === undefined ? '' : question.trim().slice(last.start, last.end)
}

interface Taken {
  readonly edit: Edit
  readonly score: number
  readonly considered: Considered
}

/** The edits that the gate takes for a text, the best first; only those whose subject stands at `at`, if given. */
async function asked(text: string, at: Span | null, { query, source, calibration }: Apart): Promise<Taken[]> {
  const { candidates } = await source.candidates({ ...query, messages: [{ role: 'user', content: text }] }, 0)
  const edits = new Map(candidates.map(({ edit }) => [edit.id, edit]))
  return gate(candidates, calibration).flatMap((considered) => {
    const edit = edits.get(considered.id)
    if (edit === undefined || considered.reason !== 'selected') return []
    const name = at === null ? null : placeOf(text, edit)?.name
    const apartFrom = at !== null && (name === null || name === undefined || name.end <= at.start || at.end <= name.start)
    return apartFrom ? [] : [{ edit, score: considered.score, considered }]
  })
}

/**
 * The innermost description whose removal leaves a question that some edit in memory could answer; null where there is none. Where it
 * ends is told by how well what is left of the question fits that edit.
 */
async function supported(text: string, names: readonly Span[], apart: Apart): Promise<Description | null> {
  let compared = 0
  let best: { description: Description; support: number } | null = null
  for (const name of [...names].reverse()) {
    for (const description of descriptions(text, name)) {
      if (best !== null && best.description.start !== description.start) return best.description
      if (++compared > READINGS) break
      const support = await supportOf(text.slice(0, description.start) + MASK + text.slice(description.end), apart)
      if (support >= Math.max(SUPPORT, best?.support ?? 0)) best = { description, support }
    }
  }
  return best?.description ?? null
}

/** How near what is left of a question comes to the relation of an edit in memory: a cosine. */
async function supportOf(outer: string, { query, source }: Apart): Promise<number> {
  const { candidates } = await source.candidates({ ...query, messages: [{ role: 'user', content: outer }] }, 0)
  const [vector] = await source.embed([outer])
  const near = candidates.filter(({ similarity }) => similarity !== null)
  const relations = await Promise.all(near.map(({ edit }) => relationOf(edit, source)))
  return vector === undefined ? 0 : Math.max(0, ...relations.map((relation) => nearness(vector, relation)))
}
