import { type Edit, MASK } from '../edit/edit.ts'
import type { Considered } from '../trace.ts'
import { type Chain, chain, type Link } from './chain.ts'
import { type Description, descriptions, likelyNames } from './descriptions.ts'
import { type Hops, nearness, placeOf, relationOf, verdict } from './reading.ts'
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

/**
 * Takes a question apart whose first hop no edit states: "Who leads the country where X plays?" with an edit on the country. What the
 * inner part stands for is asked of the memory first, then of the model, and the question with the answer in its place goes through
 * retrieval and gate like any other. The model is asked only where an edit in memory could answer what is left of the question.
 * Null: no edit was found, so the question is left as it is.
 */
export async function decompose(question: string, ask: Ask, hops: Hops): Promise<Chain | null> {
  let text = lastSentence(question)
  let around: readonly Span[] = likelyNames(text)
  const links: Link[] = []
  const considered: Considered[] = []
  for (let step = 1; step <= BRIDGE_STEPS && text.length <= SENTENCE_CHARS; step++) {
    const description = await supported(text, around, hops)
    if (description === null) break
    const described = text.slice(description.start, description.end)
    const stated = await taken(`What is ${described}?`, null, hops)
    const name = stated?.edit.targetNew.trim() ?? (await ask(described))
    if (name === null) break
    if (stated !== null) add(links, considered, stated, step)
    text = text.slice(0, description.start) + name + text.slice(description.end)
    const at = { start: description.start, end: description.start + name.length }
    around = [at]
    const found = await taken(text, at, hops)
    if (found === null) continue
    const first = add(links, considered, found, step + 1, stated?.edit.id ?? 'model')
    const rest = await chain(text, first, hops)
    return {
      links: [...links, ...rest.links],
      considered: [...considered, ...rest.considered],
      asked: rest.asked ?? text,
    }
  }
  return links.length === 0 ? null : { links, considered, asked: text }
}

function add(links: Link[], considered: Considered[], { edit, verdict }: Taken, hop: number, via?: string): Link {
  const link = { edit, score: verdict.score, hop }
  links.push(link)
  considered.push({ ...verdict, hop, ...(via !== undefined && { via }) })
  return link
}

/** The sentence that asks: the last one. */
function lastSentence(question: string): string {
  const last = sentences(question.trim()).at(-1)
  return last === undefined ? '' : question.trim().slice(last.start, last.end)
}

interface Taken {
  readonly edit: Edit
  readonly verdict: Considered
}

/** The edit that the gate is surest of for a text; only one whose subject stands at `at`, if given. */
async function taken(text: string, at: Span | null, hops: Hops): Promise<Taken | null> {
  const { candidates, considered } = await verdict(text, hops)
  for (const one of considered) {
    const edit = candidates.find((c) => c.edit.id === one.id)?.edit
    if (edit === undefined || one.reason !== 'selected') continue
    const name = at === null ? at : (placeOf(text, edit)?.name ?? null)
    if (at === null || (name !== null && name.start < at.end && at.start < name.end)) return { edit, verdict: one }
  }
  return null
}

/**
 * The innermost description whose removal leaves a question that some edit in memory could answer; null where there is none. Where it
 * ends is told by how well what is left of the question fits that edit.
 */
async function supported(text: string, names: readonly Span[], hops: Hops): Promise<Description | null> {
  let compared = 0
  let best: { description: Description; support: number } | null = null
  for (const name of [...names].reverse()) {
    for (const description of descriptions(text, name)) {
      if (best !== null && best.description.start !== description.start) return best.description
      if (++compared > READINGS) break
      const support = await supportOf(text.slice(0, description.start) + MASK + text.slice(description.end), hops)
      if (support >= Math.max(SUPPORT, best?.support ?? 0)) best = { description, support }
    }
  }
  return best?.description ?? null
}

/** How near what is left of a question comes to the relation of an edit in memory: a cosine. */
async function supportOf(outer: string, hops: Hops): Promise<number> {
  const { candidates } = await verdict(outer, hops)
  const [vector] = await hops.source.embed([outer])
  const near = candidates.filter(({ similarity }) => similarity !== null)
  const relations = await Promise.all(near.map(({ edit }) => relationOf(edit, hops.source)))
  return vector === undefined ? 0 : Math.max(0, ...relations.map((relation) => nearness(vector, relation)))
}
