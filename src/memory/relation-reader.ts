import { LRUCache } from 'lru-cache'
import { type Edit, MASK, maskSubject, statement } from '../edit/edit.ts'
import type { Embedder } from '../engine/engine.ts'
import { answerAsked, head, type Surroundings, spelledOut, wordEvidence } from './evidence.ts'
import { ANSWER_KINDS, type AnswerKind, RELATIONS } from './relations.ts'

/** Paraphrases of an edit whose wording is compared besides its prompt's. */
const PARAPHRASES = 6
/** Edits whose vectors are kept; each takes some 10 KB. */
const STATED_EDITS = 4_096
/** Temperature at which a text's cosines to the common relations become a distribution. */
const PROFILE_TEMPERATURE = 0.1
/** The same, sharper, for the kind of target: nearly the nearest relation's own. */
const KIND_TEMPERATURE = 0.05
/** For each wording of the yardstick, whose it is. */
const RELATION_OF = RELATIONS.flatMap(({ wordings }, relation) => wordings.map(() => relation))

/** What is asked around one name, embedded. */
export interface Asked {
  readonly near: Surroundings
  readonly around: readonly Float32Array[]
  readonly sentence: Float32Array
  readonly head: Float32Array | null
  /** Cosines to the common relations: of the masked sentence, of the window, and the larger of both. */
  readonly yardsticks: readonly [Float32Array, Float32Array]
  readonly nearest: Float32Array
  readonly profile: Float32Array
}

/** What an edit states, embedded. */
interface Stated {
  readonly prompts: readonly Float32Array[]
  readonly statements: readonly Float32Array[]
  readonly whole: Float32Array
  readonly wholeStatement: Float32Array
  readonly maskedPrompt: string
  readonly head: Float32Array | null
  readonly yardstick: Float32Array
  readonly profile: Float32Array
  /** How likely its target is of each kind. */
  readonly kinds: ReadonlyMap<AnswerKind, number>
  readonly target: Float32Array
  /** The common relation nearest to it. */
  readonly own: number
}

/** The texts by which an edit's relation is compared: of its prompt and statement, of its wordings and theirs with the name masked. */
function textsOf(edit: Edit) {
  const wordings = [edit.prompt, ...edit.paraphrases.slice(0, PARAPHRASES)]
  const masked = (text: string) => spelledOut(maskSubject(text, edit.subject).trim())
  const maskedPrompt = maskSubject(edit.prompt, edit.subject).trim()
  return {
    maskedPrompt,
    whole: [edit.prompt, statement(edit), edit.targetNew, head(maskedPrompt)] as const,
    prompts: wordings.map(masked),
    statements: wordings.map((prompt) => masked(statement({ ...edit, prompt }))),
  }
}

/** All of them, to be embedded in advance. */
export function statedTexts(edit: Edit): string[] {
  const { whole, prompts, statements } = textsOf(edit)
  return [...whole, ...prompts, ...statements].map((text) => text || MASK)
}

/** Embeds texts that edits are made of, which are worth keeping. */
export type EmbedKept = (texts: ReadonlySet<string>, priority: 'query') => Promise<ReadonlyMap<string, Float32Array>>

/** Reads whether a text asks for an edit's relation: by cosines of texts with the name masked, held against a yardstick of common relations. */
export class RelationReader {
  readonly #embedder: Embedder
  readonly #stated = new LRUCache<Edit, Stated>({ max: STATED_EDITS })
  readonly #embedKept: EmbedKept
  #common: Promise<readonly Float32Array[]> | undefined

  /** Without `embedKept`, nothing is kept. */
  constructor(embedder: Embedder, embedKept?: EmbedKept) {
    this.#embedder = embedder
    this.#embedKept = embedKept ?? (async (texts, priority) => byText([...texts], await embedder.embed([...texts], priority)))
  }

  /** Embeds the yardstick, about a second of work, so that no request waits for it. Tried again after a failure. */
  warm(): Promise<readonly Float32Array[]> {
    const wordings = RELATIONS.flatMap(({ wordings }) => wordings)
    this.#common ??= this.#embedKept(new Set(wordings), 'query')
      .then((vectors) => wordings.map((text) => vectors.get(text) as Float32Array))
      .catch((error: unknown) => {
        this.#common = undefined
        throw error
      })
    return this.#common
  }

  async asked(near: Surroundings): Promise<Asked> {
    const common = await this.warm()
    const noun = head(near.masked)
    const texts = [spelledOut(near.masked), spelledOut(near.window), near.tail, near.sentence, noun] as const
    const [masked, window, tail, sentence, spoken] = await this.#embed(texts)
    const yardsticks = [cosines(masked, common), cosines(window, common)] as const
    const nearest = larger(yardsticks)
    const around = [masked, window, tail]
    return {
      near,
      around,
      sentence,
      head: noun === '' ? null : spoken,
      yardsticks,
      nearest,
      profile: distribution(nearest, PROFILE_TEMPERATURE),
    }
  }

  /** How well the edit's relation fits what is asked. */
  async compare(asked: Asked, edit: Edit) {
    const stated = await this.#read(edit)
    const best = (keys: readonly Float32Array[]) =>
      Math.max(...keys.map((k) => Math.max(...asked.around.map((a) => cosine(a, k)))))
    const beaten = (yardstick: Float32Array) => {
      let most = -2
      for (let i = 0; i < yardstick.length; i++) most = Math.max(most, (yardstick[i] ?? 0) - (stated.yardstick[i] ?? 0))
      return most
    }
    const byStatement = best(stated.statements)
    const said = wordEvidence(asked.near, stated.maskedPrompt, edit.targetNew)
    const nouns = asked.head !== null && stated.head !== null ? cosine(asked.head, stated.head) : 0
    const wanted = answerAsked(asked.near.sentence)
    const lone = asked.head !== null && stated.head === null ? asked.head : null
    return {
      ...said,
      relation: Math.max(byStatement, best(stated.prompts)),
      statement: byStatement,
      decoy: Math.min(...asked.yardsticks.map(beaten)),
      gap: Math.max(...asked.nearest) - (asked.nearest[stated.own] ?? 0),
      profile: asked.profile.reduce((sum, p, i) => sum + Math.sqrt(p * (stated.profile[i] ?? 0)), 0),
      whole: cosine(asked.sentence, stated.whole),
      whole_statement: cosine(asked.sentence, stated.wholeStatement),
      head_cosine: nouns,
      head_stated: lone === null ? 0 : Math.max(...[...stated.prompts, ...stated.statements].map((v) => cosine(lone, v))),
      head_target: asked.head === null ? 0 : cosine(asked.head, stated.target),
      wrong_kind: wanted === null ? 0 : 1 - wanted.reduce((sum, kind) => sum + (stated.kinds.get(kind) ?? 0), 0),
      head_differs: asked.head !== null && stated.head !== null && said.head_same === 0 ? 1 - nouns : 0,
    }
  }

  async #read(edit: Edit): Promise<Stated> {
    const had = this.#stated.get(edit)
    if (had !== undefined) return had
    const common = await this.warm()
    const texts = textsOf(edit)
    const kept = await this.#embedKept(new Set(statedTexts(edit)), 'query')
    const of = (text: string) => kept.get(text || MASK) as Float32Array
    const [whole, wholeStatement, target, spoken] = texts.whole.map(of) as [
      Float32Array,
      Float32Array,
      Float32Array,
      Float32Array,
    ]
    const [prompts, statements] = [texts.prompts.map(of), texts.statements.map(of)]
    const { maskedPrompt } = texts
    const yardstick = larger([...prompts, ...statements].map((v) => cosines(v, common)))
    const reading: Stated = {
      ...{ prompts, statements, whole, wholeStatement, target, maskedPrompt, yardstick },
      head: texts.whole[3] === '' ? null : spoken,
      profile: distribution(yardstick, PROFILE_TEMPERATURE),
      kinds: kindsOf(distribution(yardstick, KIND_TEMPERATURE)),
      own: yardstick.indexOf(Math.max(...yardstick)),
    }
    this.#stated.set(edit, reading)
    return reading
  }

  /** One vector a text, the same text embedded once; an empty one gets a neutral stand-in. */
  async #embed<T extends readonly string[]>(texts: T): Promise<{ [K in keyof T]: Float32Array }> {
    const distinct = [...new Set(texts.map((t) => t || MASK))]
    const of = byText(distinct, await this.#embedder.embed(distinct, 'query'))
    return texts.map((t) => of.get(t || MASK)) as unknown as { [K in keyof T]: Float32Array }
  }
}

function byText(texts: readonly string[], vectors: readonly Float32Array[]): Map<string, Float32Array> {
  return new Map(texts.map((text, i) => [text, vectors[i] as Float32Array]))
}

/** Of unit vectors. */
export function cosine(a: Float32Array, b: Float32Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number)
  return sum
}

/** Worked out once for each vector that the embedder's cache hands out: the wordings of many edits are one text with the subject masked. */
const cosinesOf = new WeakMap<Float32Array, { readonly common: readonly Float32Array[]; readonly row: Float32Array }>()

/** To each common relation: the best of its wordings. */
function cosines(vector: Float32Array, common: readonly Float32Array[]): Float32Array {
  const had = cosinesOf.get(vector)
  if (had?.common === common) return had.row
  const row = new Float32Array(common.length)
  // Four at a time: their sums do not wait for each other.
  const fours = common.length & ~3
  for (let r = 0; r < fours; r += 4) {
    const [a, b, c, d] = common.slice(r, r + 4) as [Float32Array, Float32Array, Float32Array, Float32Array]
    let [ofA, ofB, ofC, ofD] = [0, 0, 0, 0]
    for (let i = 0; i < vector.length; i++) {
      const x = vector[i] as number
      ofA += x * (a[i] as number)
      ofB += x * (b[i] as number)
      ofC += x * (c[i] as number)
      ofD += x * (d[i] as number)
    }
    row.set([ofA, ofB, ofC, ofD], r)
  }
  for (let r = fours; r < common.length; r++) row[r] = cosine(vector, common[r] as Float32Array)
  const best = new Float32Array(RELATIONS.length).fill(-1)
  for (let r = 0; r < row.length; r++) {
    const relation = RELATION_OF[r] as number
    best[relation] = Math.max(best[relation] as number, row[r] as number)
  }
  cosinesOf.set(vector, { common, row: best })
  return best
}

function kindsOf(over: Float32Array): Map<AnswerKind, number> {
  const sum = (kind: AnswerKind) => over.reduce((s, p, i) => (RELATIONS[i]?.kind === kind ? s + p : s), 0)
  return new Map(ANSWER_KINDS.map((kind) => [kind, sum(kind)]))
}

function larger([first, ...others]: readonly Float32Array[]): Float32Array {
  const out = Float32Array.from(first ?? [])
  for (const row of others) for (let i = 0; i < out.length; i++) out[i] = Math.max(out[i] as number, row[i] ?? -1)
  return out
}

function distribution(row: Float32Array, temperature: number): Float32Array {
  const most = Math.max(...row)
  const raised = row.map((c) => Math.exp((c - most) / temperature))
  const sum = raised.reduce((a, b) => a + b, 0)
  return raised.map((c) => c / sum)
}
