import type { Edit } from '../edit/edit.ts'
import { normalized } from '../edit/words.ts'
import type { SelectionQuery } from '../request.ts'
import type { Considered } from '../trace.ts'
import { type Candidate, unread } from './candidate.ts'
import { type Calibration, gate } from './gate.ts'
import type { Read, Retriever } from './retriever.ts'
import { latest } from './sameness.ts'
import { editText, withKnown } from './text.ts'

/** Edits that one question leads through, at most. */
export const CHAIN_HOPS = 4
/** Edits about what one edit names that the reader reads. */
const NEXT_EDITS = 4
/** Least probability of an edit that another one draws in: the question does not name its subject, so it has to be surer. */
const DRAWN_IN = 0.6

export interface Link {
  readonly edit: Edit
  readonly score: number
  readonly hop: number
}

/** Edits that a question needs beyond those that apply to it as it is, in order, and all that were considered for it. */
export interface Chain {
  readonly links: readonly Link[]
  readonly considered: readonly Considered[]
}

/** What following hops works with. */
export interface Hops {
  /** Its scope counts, not its messages. */
  readonly query: SelectionQuery
  readonly source: Pick<Retriever, 'about' | 'landed'> & { readonly read: Read }
  readonly calibration: Calibration
  /** Ids of edits that gave way to a later one or are not for such messages: these are not drawn in. */
  readonly refused: ReadonlySet<string>
  /** What a question describes without naming it, by the served model; null where it names nothing. Absent: the model is not asked. */
  readonly ask?: (question: string) => Promise<string | null>
}

/**
 * Follows each edit that the gate let through into the edits about what it names, as far as the question asks for them: "Who leads the
 * country where X was born?" with an edit "X was born in Y" is read again with that edit known, against the edits about Y.
 */
export async function follow(read: string, applying: readonly Link[], hops: Hops): Promise<Chain> {
  const links: Link[] = []
  const considered: Considered[] = []
  const used = new Set(applying.map(({ edit }) => edit.id))
  for (const root of applying) {
    const known = [root]
    for (let last: Link | undefined = root; last !== undefined && known.length < CHAIN_HOPS; ) {
      const { edit } = last
      const named = edit.kind === 'sentence' ? edit.prompt : edit.targetNew
      const next = edit.kind === 'rule' ? [] : statedAbout(named, hops).filter(({ id }) => !used.has(id))
      const step = await drawnIn(
        withKnown(
          read,
          known.map((link) => link.edit),
        ),
        next,
        last,
        hops,
      )
      considered.push(...step.considered)
      last = step.link
      if (last === undefined) break
      used.add(last.edit.id)
      known.push(last)
      links.push(last)
    }
  }
  return { links, considered }
}

/** Where no edit states the first hop: what the question describes is asked of the served model, and read as known. */
export async function bridge(question: string, read: string, hops: Hops): Promise<Chain> {
  const name = (await hops.ask?.(question)) ?? null
  const next = name === null ? [] : statedAbout(name, hops)
  if (name === null || next.length === 0) return { links: [], considered: [] }
  const known = `${read} [${normalized(name)}]`
  const step = await drawnIn(known, next, { edit: null, score: 1, hop: 1 }, hops)
  if (step.link === undefined) return { links: [], considered: step.considered }
  const rest = await follow(known, [step.link], hops)
  return { links: [step.link, ...rest.links], considered: [...step.considered, ...rest.considered] }
}

function statedAbout(text: string, { query, source, refused }: Hops): readonly Edit[] {
  return source.about(query, text).filter(({ id, kind }) => kind !== 'rule' && !refused.has(id))
}

/** The one edit of `next` that the question, read with what is known, asks for most clearly. */
async function drawnIn(
  read: string,
  next: readonly Edit[],
  last: { readonly edit: Edit | null; readonly score: number; readonly hop: number },
  { query, source, calibration }: Hops,
): Promise<{ link: Link | undefined; considered: Considered[] }> {
  const some = next.slice(0, NEXT_EDITS)
  const logits = await source.read(some.map((edit) => [read, editText(edit)]))
  const candidates = some.map((edit, i): Candidate => ({ ...unread(edit, read), logit: logits[i] ?? null }))
  const sure = { ...calibration, threshold: Math.max(DRAWN_IN, calibration.threshold) }
  const { current, outdated } = await latest(query, candidates, sure, source)
  const [best, ...others] = [...gate(current, sure), ...outdated]
  if (best === undefined) return { link: undefined, considered: [] }
  const hop = last.hop + 1
  const told = [best, ...others.map((c): Considered => (c.reason === 'selected' ? { ...c, reason: 'over_limit' } : c))]
  const considered = told.map((c) => ({ ...c, score: c.score * last.score, hop, via: last.edit?.id ?? 'model' }))
  const edit = best.reason === 'selected' ? some.find(({ id }) => id === best.id) : undefined
  return { link: edit && { edit, score: best.score * last.score, hop }, considered }
}
