import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { Edit } from '../edit/edit.ts'
import { MASK } from '../edit/edit.ts'
import type { Embedder } from '../engine/engine.ts'
import type { Message, SelectionQuery } from '../request.ts'
import { type Evidence, nameEvidence, relationTexts, relationWords, surroundings } from './evidence.ts'
import type { HeldEdit, VectorHit } from './memory.ts'
import { RELATIONS } from './relations.ts'
import { type NameMatch, SubjectIndex } from './subject-index.ts'
import { type Token, tokens } from './tokens.ts'

/** What retrieval needs of the memory. */
export interface Source {
  readonly version: number
  tenants(): Iterable<string>
  all(tenant: string): Iterable<HeldEdit>
  get(tenant: string, id: string, at?: number): HeldEdit | undefined
  heldAt(tenant: string, id: string, at: number): boolean
  search(tenant: string, vector: Float32Array, k: number, at?: number): readonly VectorHit[]
  onChange(listener: (change: { tenant: string; added: readonly HeldEdit[] }) => void): void
}

/** An edit that might be meant by a turn, with what speaks for and against it. */
export interface Candidate {
  readonly edit: Edit
  /** Cosine of the whole texts; null when the vector index did not offer it. */
  readonly similarity: number | null
  /** Null: nothing in the text stands for the subject, so no evidence was gathered. */
  readonly evidence: Evidence | null
}

/** Candidates whose evidence is gathered, for one turn; each may cost an embedding. */
const WEIGHED_CANDIDATES = 48
/** Of which only partly or wrongly named. */
const LOOSE_CANDIDATES = 8
/** Least share of a name that makes it worth looking at. */
const PARTIAL_COVERAGE = 0.6
const MISSPELT_COVERAGE = 0.45
/** Nearest vectors looked at; those without a name in the text are shown as near misses. */
const VECTOR_CANDIDATES = 20
/** Longest text embedded as a whole, characters; a chat message beyond that has no one meaning. */
const WHOLE_TEXT_CHARS = 2_000
/** Earlier user turns in which a pronoun's subject is sought. */
const ANTECEDENT_TURNS = 3

const PRONOUN =
  /\b(it|its|he|his|him|she|her|hers|they|their|them|there|that (?:one|person|place|company|country|city|team)|this (?:one|person|place|company|country|city|team))\b/iu

/** Offers the edits of a tenant's memory that a turn may need: from the names in it, and from the vector index. */
export class Retriever {
  readonly #source: Source
  readonly #embedder: Embedder
  readonly #now: () => number
  readonly #indexes = new Map<string, SubjectIndex>()
  readonly #turns: LRUCache<string, readonly Candidate[]>
  #relations: Promise<readonly Float32Array[]> | undefined

  constructor(source: Source, embedder: Embedder, options: { now: () => number; cacheBytes: number }) {
    this.#source = source
    this.#embedder = embedder
    this.#now = options.now
    this.#turns = new LRUCache({ maxSize: options.cacheBytes, sizeCalculation: (c) => 256 + c.length * 2_048 })
    for (const tenant of source.tenants()) this.#add(tenant, source.all(tenant))
    source.onChange(({ tenant, added }) => this.#add(tenant, added))
  }

  /** Embeds the yardstick of common relations, about a second of work, so that no request waits for it. Tried again after a failure. */
  warm(): Promise<readonly Float32Array[]> {
    this.#relations ??= this.#embedder.embed(RELATIONS, 'query').catch((error: unknown) => {
      this.#relations = undefined
      throw error
    })
    return this.#relations
  }

  #add(tenant: string, held: Iterable<HeldEdit>): void {
    let index = this.#indexes.get(tenant)
    if (index === undefined) {
      index = new SubjectIndex()
      this.#indexes.set(tenant, index)
    }
    for (const { edit } of held) index.add(edit)
  }

  /** Candidates of the user turn at `messages[turn]`: a function of the conversation up to it, the query's scope and the memory's version. */
  async candidates(query: SelectionQuery, turn: number): Promise<{ candidates: readonly Candidate[]; cached: boolean }> {
    const at = query.asOf ?? this.#now()
    const key = this.#key(query, turn)
    const had = this.#turns.get(key)
    // Validity can begin or end between two requests without any change in memory: a cached candidate is still asked for.
    if (had?.every((c) => this.#source.heldAt(query.tenant, c.edit.id, at))) return { candidates: had, cached: true }
    const found = await this.#find(query, turn, at)
    this.#turns.set(key, found)
    return { candidates: found, cached: false }
  }

  #key(query: SelectionQuery, turn: number): string {
    const hash = createHash('sha256')
    hash.update(
      JSON.stringify([query.tenant, query.tags, query.asOf ?? null, this.#source.version, query.messages.slice(0, turn + 1)]),
    )
    return hash.digest('base64')
  }

  async #find(query: SelectionQuery, turn: number, at: number): Promise<Candidate[]> {
    const text = query.messages[turn]?.content ?? ''
    const index = this.#indexes.get(query.tenant)
    if (index === undefined || text.trim() === '') return []
    const eligible = (id: string) => this.#eligible(query, id, at)
    const named = await this.#named(text, index, eligible)
    const referred = await this.#referred(query.messages, turn, text, index, eligible, named)
    const weighed = rivals([...named, ...referred])
    const known = new Map(weighed.map((c) => [c.edit.id, c]))
    const whole = text.length > WHOLE_TEXT_CHARS ? [] : await this.#nearest(query, text)
    const out: Candidate[] = weighed.map((c) => ({
      ...c,
      similarity: whole.find((h) => h.editId === c.edit.id)?.similarity ?? null,
    }))
    for (const { editId, similarity } of whole) {
      const edit = known.has(editId) ? undefined : eligible(editId)
      if (edit !== undefined) out.push({ edit, similarity, evidence: null })
    }
    return out
  }

  #eligible(query: SelectionQuery, id: string, at: number): Edit | undefined {
    const held = this.#source.get(query.tenant, id, at)
    if (held === undefined || !this.#source.heldAt(query.tenant, id, at)) return undefined
    return query.tags.length === 0 || query.tags.some((t) => held.edit.tags.includes(t)) ? held.edit : undefined
  }

  /** The edits in the query's scope whose subject, or an alias of it, is `name`, give or take an article before it. */
  about(query: SelectionQuery, name: string): readonly Edit[] {
    const bare = name.trim().replace(/^(?:the|a|an)\s+/i, '')
    const words = tokens(`the ${bare}`)
    const at = query.asOf ?? this.#now()
    const whole = (this.#indexes.get(query.tenant)?.find(words) ?? []).filter(
      (m) => (m.kind === 'exact' || m.kind === 'alias') && m.tokenCount >= words.length - 1 && m.end === words.at(-1)?.end,
    )
    return [...new Set(whole.map((m) => m.editId))].flatMap((id) => this.#eligible(query, id, at) ?? [])
  }

  embed(texts: readonly string[]): Promise<Float32Array[]> {
    return this.#embedder.embed(texts, 'query')
  }

  async #nearest({ tenant, asOf }: SelectionQuery, text: string): Promise<readonly VectorHit[]> {
    const [vector] = await this.#embedder.embed([text], 'query')
    return vector === undefined ? [] : this.#source.search(tenant, vector, VECTOR_CANDIDATES, asOf)
  }

  /** Edits whose subject the turn itself names. */
  async #named(text: string, index: SubjectIndex, eligible: (id: string) => Edit | undefined): Promise<Weighed[]> {
    const words = tokens(text)
    const all = index.find(words)
    const out: Weighed[] = []
    let loose = 0
    for (const match of bestByEdit(all)) {
      const whole = match.kind === 'exact' || match.kind === 'alias'
      if (
        !whole &&
        (++loose > LOOSE_CANDIDATES || match.coverage < (match.kind === 'partial' ? PARTIAL_COVERAGE : MISSPELT_COVERAGE))
      )
        continue
      const edit = eligible(match.editId)
      if (edit === undefined) continue
      if (out.length === WEIGHED_CANDIDATES) break
      out.push({
        edit,
        evidence: {
          ...nameEvidence(text, words, match, edit, all),
          antecedent: 0,
          ...(await this.#relation(text, words, match, edit)),
        },
      })
    }
    return out
  }

  /** Edits whose subject an earlier turn names in full, when this turn speaks of it by a pronoun only. */
  async #referred(
    messages: readonly Message[],
    turn: number,
    text: string,
    index: SubjectIndex,
    eligible: (id: string) => Edit | undefined,
    named: readonly Weighed[],
  ): Promise<Weighed[]> {
    const pronoun = PRONOUN.exec(text)
    if (pronoun === null || named.some((c) => c.evidence.exact > 0)) return []
    const earlier = messages
      .slice(0, turn)
      .filter((m) => m.role === 'user')
      .slice(-ANTECEDENT_TURNS)
      .reverse()
    // The pronoun stands where the name would.
    const here = tokens(text)
    const end = pronoun.index + pronoun[0].length
    const tokenCount = Math.max(1, here.filter((t) => t.start >= pronoun.index && t.end <= end).length)
    const stand = { start: pronoun.index, end, firstToken: here.findIndex((t) => t.start >= pronoun.index), tokenCount }
    for (const { content } of earlier) {
      const there = tokens(content)
      const all = index.find(there)
      const out: Weighed[] = []
      for (const match of bestByEdit(all)) {
        const edit = match.kind === 'exact' || match.kind === 'alias' ? eligible(match.editId) : undefined
        if (edit === undefined || out.length === WEIGHED_CANDIDATES) continue
        const place: NameMatch = { ...match, ...stand }
        out.push({
          edit,
          evidence: {
            ...nameEvidence(content, there, match, edit, all),
            antecedent: 1,
            ...(await this.#relation(text, here, place, edit)),
          },
        })
      }
      if (out.length > 0) return out
    }
    return []
  }

  /** What speaks for the relation: cosines of masked texts, and shared words. */
  async #relation(text: string, words: readonly Token[], match: NameMatch, edit: Edit) {
    const near = surroundings(text, words, match)
    const relations = relationTexts(edit)
    const [masked, window, sentence, prompt, ...keys] = await this.#embedder.embed(
      [near.masked, near.window, near.sentence, edit.prompt, ...relations],
      'query',
    )
    const wanted = relationWords(relations[0] ?? '')
    const given = relationWords(near.masked)
    const best = (v: Float32Array | undefined) => Math.max(...keys.map((k) => cosine(v, k)))
    const common = await this.warm()
    const beaten = (v: Float32Array | undefined) =>
      Math.max(...common.map((r) => cosine(v, r) - Math.max(...keys.map((k) => cosine(k, r)))))
    return {
      relation: best(masked),
      relation_window: best(window),
      relation_words: wanted.size === 0 ? 0 : [...wanted].filter((w) => given.has(w)).length / wanted.size,
      bare: near.masked.replaceAll(MASK, '').trim() === '' ? 1 : 0,
      decoy: Math.min(beaten(masked), beaten(window)),
      whole: cosine(sentence, prompt),
      rival: 0,
    }
  }
}

interface Weighed {
  readonly edit: Edit
  readonly evidence: Evidence
}

/** The best match of each edit, whole names before loose ones, longer before shorter. */
function bestByEdit(all: readonly NameMatch[]): NameMatch[] {
  const best = new Map<string, NameMatch>()
  for (const match of all) {
    const had = best.get(match.editId)
    if (had === undefined || match.coverage > had.coverage) best.set(match.editId, match)
  }
  return [...best.values()].sort((a, b) => b.coverage - a.coverage || b.matchedWords - a.matchedWords)
}

/** Fill in `rival`: how much better another edit of the same subject fits the relation asked for. */
function rivals(all: readonly Weighed[]): Weighed[] {
  const closeness = (e: Evidence) => Math.max(e.relation, e.relation_window)
  return all.map((c) => {
    const others = all.filter((o) => o !== c && o.edit.subject === c.edit.subject).map((o) => closeness(o.evidence))
    return { ...c, evidence: { ...c.evidence, rival: Math.max(0, ...others.map((f) => f - closeness(c.evidence))) } }
  })
}

/** Of unit vectors. */
function cosine(a: Float32Array | undefined, b: Float32Array | undefined): number {
  if (a === undefined || b === undefined) return 0
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += (a[i] ?? 0) * (b[i] ?? 0)
  return sum
}
