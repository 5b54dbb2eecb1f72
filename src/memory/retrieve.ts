import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { type Edit, isForModel } from '../edit/edit.ts'
import type { Embedder } from '../engine/engine.ts'
import type { Message, SelectionQuery } from '../request.ts'
import { asks, type Evidence, nameEvidence, surroundings } from './evidence.ts'
import { likeness, mentions } from './likeness.ts'
import type { HeldEdit, VectorHit } from './memory.ts'
import { type Asked, type EmbedKept, RelationReader } from './relation-reader.ts'
import { outdated, relationTextsOf, rivalPairs, type Vectors } from './sameness.ts'
import { type NameMatch, SubjectIndex } from './subject-index.ts'
import { sentences, type Token, tokens } from './tokens.ts'

/** What retrieval needs of the memory. */
export interface Source {
  readonly version: number
  tenants(): Iterable<string>
  all(tenant: string): Iterable<HeldEdit>
  get(tenant: string, id: string, at?: number): HeldEdit | undefined
  heldAt(tenant: string, id: string, at: number): boolean
  search(tenant: string, vector: Float32Array, k: number, at?: number): readonly VectorHit[]
  /** Absent: texts of edits are embedded whenever they are not in the embedder's cache. */
  embedKept?: EmbedKept
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
/** Least likeness of a name to a subject that makes the edit worth looking at. */
const ALIKE = 0.5
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
  readonly #outdated = new WeakMap<readonly Candidate[], ReadonlyMap<string, string>>()
  readonly #relation: RelationReader

  constructor(source: Source, embedder: Embedder, options: { now: () => number; cacheBytes: number }) {
    this.#source = source
    this.#embedder = embedder
    this.#now = options.now
    this.#relation = new RelationReader(embedder, source.embedKept?.bind(source))
    this.#turns = new LRUCache({ maxSize: options.cacheBytes, sizeCalculation: (c) => 256 + c.length * 2_048 })
    for (const tenant of source.tenants()) this.#add(tenant, source.all(tenant))
    source.onChange(({ tenant, added }) => this.#add(tenant, added))
  }

  /** Makes ready what would make the first request wait. */
  async warm(): Promise<void> {
    await this.#relation.warm()
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

  /**
   * Those of one turn's candidates that a later one contradicts in other words, with its id. Most turns have no two such and cost nothing.
   * `asked`: whether the turn clearly asks for one; only looked at where two of one subject meet.
   */
  async outdated(
    { tenant, asOf }: SelectionQuery,
    candidates: readonly Candidate[],
    asked: (candidate: Candidate) => boolean = () => false,
  ): Promise<ReadonlyMap<string, string>> {
    const had = this.#outdated.get(candidates)
    if (had !== undefined) return had
    const at = asOf ?? this.#now()
    const pairs = rivalPairs(candidates.map(({ edit }) => ({ edit, seq: this.#source.get(tenant, edit.id, at)?.seq ?? 0 })))
    const texts = pairs.flat().flatMap(({ edit }) => relationTextsOf(edit))
    const clear = pairs.length === 0 ? [] : candidates.filter(asked)
    const found = outdated(pairs, await this.relationVectors(texts, 'query'), new Set(clear.map(({ edit }) => edit.id)))
    this.#outdated.set(candidates, found)
    return found
  }

  /** Vectors of relations' texts, by the text. */
  async relationVectors(texts: readonly string[], priority: 'query' | 'import', signal?: AbortSignal): Promise<Vectors> {
    const unique = [...new Set(texts)]
    const vectors = unique.length === 0 ? [] : await this.#embedder.embed(unique, priority, signal)
    return new Map(unique.map((text, i) => [text, vectors[i] ?? new Float32Array()]))
  }

  #key({ tenant, model, tags, asOf, messages }: SelectionQuery, turn: number): string {
    const asked = [tenant, model, tags, asOf ?? null, this.#source.version, messages.slice(0, turn + 1)]
    return createHash('sha256').update(JSON.stringify(asked)).digest('base64')
  }

  async #find(query: SelectionQuery, turn: number, at: number): Promise<Candidate[]> {
    const text = query.messages[turn]?.content ?? ''
    const index = this.#indexes.get(query.tenant)
    if (index === undefined || text.trim() === '') return []
    const eligible = (id: string) => this.#eligible(query, id, at)
    const whole = text.length > WHOLE_TEXT_CHARS ? [] : await this.#nearest(query, text)
    const found = namesIn(text, index, eligible)
    const alike = namesLike(text, found, whole, eligible)
    const named = await this.#weigh(text, [...found.named, ...alike], found)
    const referred = named.some((c) => c.evidence.exact > 0) ? [] : await this.#referred(query.messages, turn, index, eligible)
    const known = new Map([...referred, ...named].map((c) => [c.edit.id, c]))
    const out: Candidate[] = [...known.values()].map((c) => ({
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
    if (held?.state !== 'live' || !isForModel(held.edit, query.model)) return undefined
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

  /** Evidence for edits named in `text`. What is asked around a name is embedded once, however many edits have that name. */
  async #weigh(text: string, places: readonly Place[], { words, all }: Found): Promise<Weighed[]> {
    const asked = new Map<string, Promise<Asked>>()
    const read = (match: NameMatch, from: string, tokens: readonly Token[]) => {
      const key = `${from === text ? 'here' : 'below'} ${match.firstToken} ${match.tokenCount}`
      const had = asked.get(key) ?? this.#relation.asked(surroundings(from, tokens, match))
      asked.set(key, had)
      return had
    }
    return Promise.all(
      places.map(async ({ edit, match }) => {
        const name = nameEvidence(text, words, match, edit.subject, all)
        const here = { ...name, antecedent: 0, ...(await this.#relation.compare(await read(match, text, words), edit)) }
        const below = here.told === 1 ? askedBelow(text, match) : null
        if (below === null) return { edit, evidence: here }
        const there = await this.#relation.compare(await read(below.match, below.text, below.words), edit)
        return { edit, evidence: { ...name, antecedent: 1, ...there } }
      }),
    )
  }

  /** Edits whose subject an earlier turn names in full, when this turn speaks of it by a pronoun only. */
  async #referred(
    messages: readonly Message[],
    turn: number,
    index: SubjectIndex,
    eligible: (id: string) => Edit | undefined,
  ): Promise<Weighed[]> {
    const text = messages[turn]?.content ?? ''
    const here = tokens(text)
    const pronoun = pronounIn(text, here)
    if (pronoun === null) return []
    const earlier = messages.slice(0, turn).filter((m) => m.role === 'user')
    for (const { content } of earlier.slice(-ANTECEDENT_TURNS).reverse()) {
      const there = namesIn(content, index, eligible)
      const whole = there.named.filter(({ match }) => match.kind === 'exact' || match.kind === 'alias')
      if (whole.length === 0) continue
      const asked = await this.#relation.asked(surroundings(text, here, { ...(whole[0] as Place).match, ...pronoun }))
      return Promise.all(
        whole.map(async ({ edit, match }) => ({
          edit,
          evidence: {
            ...nameEvidence(content, there.words, match, edit.subject, there.all),
            antecedent: 1,
            ...(await this.#relation.compare(asked, edit)),
          },
        })),
      )
    }
    return []
  }
}

interface Weighed {
  readonly edit: Edit
  readonly evidence: Evidence
}

interface Place {
  readonly edit: Edit
  readonly match: NameMatch
}

interface Found {
  readonly words: readonly Token[]
  /** Every match in the text, of edits that are not eligible too. */
  readonly all: readonly NameMatch[]
  readonly named: readonly Place[]
}

/** Eligible edits whose subject the text names, whole names first. */
function namesIn(text: string, index: SubjectIndex, eligible: (id: string) => Edit | undefined): Found {
  const words = tokens(text)
  const all = index.find(words)
  const named: Place[] = []
  let loose = 0
  for (const match of bestByEdit(all)) {
    if (named.length === WEIGHED_CANDIDATES) break
    const whole = match.kind === 'exact' || match.kind === 'alias'
    const least = match.kind === 'partial' ? PARTIAL_COVERAGE : MISSPELT_COVERAGE
    if (!whole && (loose === LOOSE_CANDIDATES || match.coverage < least)) continue
    const edit = eligible(match.editId)
    if (edit === undefined) continue
    if (!whole) loose++
    named.push({ edit, match })
  }
  return { words, all, named }
}

/** Of the edits that are near by vector but not named: those whose subject resembles a name in the text. */
function namesLike(
  text: string,
  { words, named }: Found,
  near: readonly VectorHit[],
  eligible: (id: string) => Edit | undefined,
): Place[] {
  const known = new Set(named.map(({ edit }) => edit.id))
  const written = near.length === 0 ? [] : mentions(text, words)
  const out: Place[] = []
  for (const { editId } of near) {
    const edit = known.has(editId) ? undefined : eligible(editId)
    if (edit === undefined) continue
    const names = [edit.subject, ...edit.aliases]
    const scored = written.map((mention) => ({ mention, score: Math.max(...names.map((n) => likeness(mention.words, n))) }))
    const best = scored.reduce((a, b) => (b.score > a.score ? b : a), scored[0] ?? { mention: null, score: 0 })
    if (best.mention === null || best.score < ALIKE) continue
    out.push({
      edit,
      match: { ...best.mention, editId, kind: 'alike', coverage: best.score, matchedWords: best.mention.words.length },
    })
    if (out.length === LOOSE_CANDIDATES) break
  }
  return out
}

/** Where a pronoun stands that a name may be put for. */
function pronounIn(text: string, words: readonly Token[]): Pick<NameMatch, 'start' | 'end' | 'firstToken' | 'tokenCount'> | null {
  const pronoun = PRONOUN.exec(text)
  if (pronoun === null) return null
  const start = pronoun.index
  const end = start + pronoun[0].length
  const tokenCount = Math.max(1, words.filter((t) => t.start >= start && t.end <= end).length)
  return { start, end, firstToken: words.findIndex((t) => t.start >= start), tokenCount }
}

/** The later part of a message that asks about a name told before by a pronoun: "We moved to Ulm. Who runs it?" */
function askedBelow(text: string, match: NameMatch): { text: string; words: Token[]; match: NameMatch } | null {
  for (const { start, end } of sentences(text).filter((s) => s.start >= match.end)) {
    const sentence = text.slice(start, end)
    if (!asks({ sentence, followed: text.slice(end).trim() !== '' })) continue
    const words = tokens(sentence)
    const pronoun = pronounIn(sentence, words)
    if (pronoun !== null) return { text: sentence, words, match: { ...match, ...pronoun } }
  }
  return null
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
