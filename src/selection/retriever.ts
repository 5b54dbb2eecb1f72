import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { type Edit, isForModel } from '../edit/edit.ts'
import { normalized } from '../edit/words.ts'
import type { Embedder, PairReader, TextPair } from '../engine/engine.ts'
import { product } from '../memory/graph/vector.ts'
import type { HeldEdit, VectorHit } from '../memory/memory.ts'
import { embedKeys } from '../memory/vectors/index-texts.ts'
import type { SelectionQuery } from '../request.ts'
import { type Candidate, Offers } from './candidate.ts'
import { NameIndex } from './names.ts'
import { type Nearness, nearnessFor } from './nearness.ts'
import {
  behind,
  conversationEnd,
  earlierOf,
  earlierRead,
  editText,
  endsOf,
  messageRead,
  type Part,
  partsOf,
  saidOf,
  sentencesFor,
} from './text.ts'

/** What retrieval needs of the memory. */
export interface Source {
  tenants(): Iterable<string>
  all(tenant: string): Iterable<HeldEdit>
  get(tenant: string, id: string, at?: number): HeldEdit | undefined
  heldAt(tenant: string, id: string, at: number): boolean
  search(tenant: string, vector: Float32Array, k: number, at?: number): readonly VectorHit[]
  /** Those of the edit's `embedKeys`, in their order; absent: it keeps none. */
  vectorsOf?(tenant: string, seq: number): readonly Float32Array[]
  /** Told of edits that will be added; absent: they are not known before. */
  onComing?(listener: (coming: { tenant: string; edit: Edit }) => void): void
  onChange(listener: (change: { tenant: string; added: readonly HeldEdit[] }) => void): void
}

/** The reader's log-odds of pairs. */
export type Read = (pairs: readonly TextPair[]) => Float32Array | Promise<Float32Array>

/** Edits nearest to each part of a message that are looked at, by cosine and by nearness each. */
const NEAREST = 16
/** Candidates that the reader reads at most, each at some milliseconds; of long messages fewer, down to … */
const READ_CANDIDATES = 8
const READ_LEAST = 4
/** … as many as fit in so many characters. */
const READ_CHARS = 1_600
/** Nearest by the cosine that are read whatever was learned of nearness. */
const READ_BY_COSINE = 1
/** What an edit's own text usually has. */
const EDIT_CHARS = 80
/** Log-odds by which one that is not named may promise less than the nearest and still be read; … */
const BEHIND_NEAREST = 2
/** … and any one less than the best, what its name adds included. */
const BEHIND_BEST = 7
/** Candidates kept for `explain` and as raw material of demonstrations. */
const KEPT_CANDIDATES = 24
/** Cosine to a counterexample from which on a rule for every message stands back. */
const COUNTERED = 0.93
/** Log-odds that a name adds, for the order of reading. One that is named in full is always plausible. */
const NAMED = { here: 5, earlier: 2.5, loosely: 3 } as const
/** Log-odds of nearness from which on something that was said before, or a sentence of the message, is about an edit. */
const ABOUT = 0
/** Earlier turns, the assistant's too, in which names are sought. */
const EARLIER_TURNS = 4

/** Offers the edits of a tenant's memory that a turn may need, by meaning and by name, and what the reader says of each. */
export class Retriever {
  readonly #source: Source
  readonly #embedder: Embedder
  readonly #reader: PairReader
  readonly #now: () => number
  readonly #nearness: Nearness
  readonly #names = new Map<string, NameIndex>()
  /** Whose names are known already. */
  readonly #foreseen = new WeakSet<Edit>()
  /** Ids of rules that hold for every message. */
  readonly #always = new Map<string, Set<string>>()
  /** Times at which edits that were not yet valid when they came become so. */
  readonly #begins = new Map<string, number[]>()
  /** Changes of each tenant's memory since the start. */
  readonly #changes = new Map<string, number>()
  readonly #turns: LRUCache<string, readonly Candidate[]>

  constructor(source: Source, embedder: Embedder, reader: PairReader, options: { now: () => number; cacheBytes: number }) {
    this.#source = source
    this.#embedder = embedder
    this.#reader = reader
    this.#now = options.now
    this.#nearness = nearnessFor(embedder)
    this.#turns = new LRUCache({ maxSize: options.cacheBytes, sizeCalculation: (c) => 256 + c.length * 2_048 })
    for (const tenant of source.tenants()) this.#add(tenant, source.all(tenant))
    source.onComing?.(({ tenant, edit }) => this.#foresee(tenant, edit))
    source.onChange(({ tenant, added }) => {
      this.#changes.set(tenant, (this.#changes.get(tenant) ?? 0) + 1)
      this.#add(tenant, added)
    })
  }

  /** Nobody finds a new edit by its names before it is held. Those of a revised one stay until it is. */
  #foresee(tenant: string, edit: Edit): void {
    const index = this.#namesOf(tenant)
    if (index.has(edit.id)) return
    index.add(edit)
    this.#foreseen.add(edit)
  }

  #namesOf(tenant: string): NameIndex {
    const index = this.#names.get(tenant) ?? new NameIndex()
    this.#names.set(tenant, index)
    return index
  }

  #add(tenant: string, held: Iterable<HeldEdit>): void {
    const index = this.#namesOf(tenant)
    const always = this.#always.get(tenant) ?? new Set()
    const begins = this.#begins.get(tenant) ?? []
    this.#begins.set(tenant, begins)
    this.#always.set(tenant, always)
    for (const { edit } of held) {
      if (!this.#foreseen.delete(edit)) index.add(edit)
      if (edit.validFrom !== undefined && edit.validFrom > this.#now()) begins.push(edit.validFrom)
      if (edit.always) always.add(edit.id)
      else always.delete(edit.id)
    }
    begins.sort((a, b) => a - b)
  }

  /**
   * Candidates of the user turn at `messages[turn]`: a function of the conversation up to it, the query's scope and the tenant's memory.
   * `digests`: of this conversation, kept by whoever asks for several of its turns. `read`: how the reader is asked.
   */
  async candidates(
    query: SelectionQuery,
    turn: number,
    {
      signal,
      digests = [],
      read = (pairs) => this.read(pairs, signal),
    }: { readonly signal?: AbortSignal; readonly digests?: string[]; readonly read?: Read } = {},
  ): Promise<{ candidates: readonly Candidate[]; cached: boolean }> {
    const at = query.asOf ?? this.#now()
    const key = this.#key(query, digestOf(query.messages, turn, digests), at)
    const had = this.#turns.get(key)
    // Validity can end between two requests without any change in memory: a cached candidate is still asked for. What begins is in the key.
    if (had?.every((c) => this.#source.heldAt(query.tenant, c.edit.id, at))) return { candidates: had, cached: true }
    const found = await this.#find(query, turn, at, read, signal)
    this.#turns.set(key, found)
    return { candidates: found, cached: false }
  }

  #key({ tenant, model, tags, asOf }: SelectionQuery, digest: string, at: number): string {
    const begun = countUpTo(this.#begins.get(tenant) ?? [], at)
    const changes = this.#changes.get(tenant) ?? 0
    return JSON.stringify([tenant, model, tags, asOf ?? null, begun, changes, digest])
  }

  async #find(query: SelectionQuery, turn: number, at: number, read: Read, signal?: AbortSignal): Promise<Candidate[]> {
    const last = query.messages[turn]?.content ?? ''
    const index = this.#names.get(query.tenant)
    if (index === undefined || !/\S/.test(last)) return []
    const eligible = (id: string) => this.#eligible(query, id, at)
    const earlier = earlierOf(query.messages, turn, EARLIER_TURNS)
    const parts = partsOf(last)
    const offers = new Offers(eligible, index.edits)
    const outdone = offerNamed(offers, index, { last, earlier, parts }, (id) => eligible(id) !== undefined)
    const whole = parts[0]?.read ?? ''
    const said = await this.embed(saidOf(earlier), signal)
    const near = new Set(said.flatMap((vector) => aboutOf(this.#nearTo(query, vector))))
    const goesOn = (c: Candidate) => c.earlier || near.has(c.edit.id)
    const isFollowUp = near.size > 0 || offers.all().some(goesOn)
    const searched = [...parts, ...(isFollowUp ? [{ searched: conversationEnd(earlier, last), read: whole }] : [])]
    const texts = searched.map((part) => normalized(part.searched))
    const vectors = await this.#embedder.embed(texts, 'query', signal)
    const sentences = this.#offerNear(offers, query, searched, vectors).filter(({ isSentence }) => isSentence)
    for (const id of this.#always.get(query.tenant) ?? []) offers.add(id, { read: whole })
    const before = earlierRead(earlier)
    const found = offers.all().map((c) => {
      const text = sentences.length === 0 ? c.read : sentencesReadFor(c, sentences, last)
      return {
        ...c,
        read: goesOn(c) ? behind(before, text) : text,
        otherNamed: c.name === null && outdone.has(c.edit.id),
      }
    })
    return this.#read(query, found, vectors, read, signal)
  }

  /** The edits nearest to a text, and their nearness in log-odds. */
  #nearTo(query: SelectionQuery, vector: Float32Array): Near[] {
    const { direction, norm } = this.#nearness.towards(vector)
    return this.#source
      .search(query.tenant, direction, NEAREST, query.asOf)
      .map(({ editId, similarity }) => ({ editId, nearness: norm * similarity + this.#nearness.bias }))
  }

  /** Offers what is near to a part of the message, by cosine and by nearness; returns the parts with the edits that they are about. */
  #offerNear(offers: Offers, query: SelectionQuery, searched: readonly Part[], vectors: readonly Float32Array[]): SearchedPart[] {
    return searched.flatMap((part, i) => {
      const vector = vectors[i]
      if (vector === undefined) return []
      const { read } = part
      for (const { editId, similarity } of this.#source.search(query.tenant, vector, NEAREST, query.asOf))
        offers.add(editId, { similarity, read })
      const near = this.#nearTo(query, vector)
      for (const { editId, nearness } of near) offers.add(editId, { nearness, read })
      // What a question says of its own case ("There are three of us.") is near to no edit by itself, but nearest to the one that is asked for.
      return [{ ...part, about: new Set([...aboutOf(near), ...near.slice(0, 1).map(({ editId }) => editId)]) }]
    })
  }

  /** The candidates with what the reader says of the plausible ones: rules for every message first, then the most promising. */
  async #read(
    query: SelectionQuery,
    found: readonly Candidate[],
    vectors: readonly Float32Array[],
    read: Read,
    signal?: AbortSignal,
  ): Promise<Candidate[]> {
    const promise = (c: Candidate) => promiseOf(c, this.#nearness.least)
    const always = found.filter((c) => c.edit.always)
    const ranked = found.filter((c) => !c.edit.always).toSorted((a, b) => promise(b) - promise(a))
    const plausible = plausibleOf(ranked, this.#nearness)
    const logits = await read(plausible.map((c) => [c.read, editText(c.edit)]))
    const counters = await this.#countered([...plausible, ...always], vectors, signal)
    const known = new Map(
      plausible.map((c, i) => [c.edit.id, { ...c, logit: logits[i] ?? null, key: this.#nearestKey(query, c.edit, vectors) }]),
    )
    return [...always, ...ranked.slice(0, KEPT_CANDIDATES)].map((c) => ({
      ...(known.get(c.edit.id) ?? c),
      counter: counters.has(c.edit.id),
    }))
  }

  /** The words of the key by which it was found, as far as its vectors are known. */
  #nearestKey(query: SelectionQuery, edit: Edit, vectors: readonly Float32Array[]): string | null {
    const own = this.#source.vectorsOf?.(query.tenant, this.landed(query, edit.id)) ?? []
    const keys = own.length === 0 ? [] : embedKeys(edit)
    const scored = keys.map((key, i) => ({ key, score: Math.max(...vectors.map((vector) => product(vector, own[i]))) }))
    return scored.sort((a, b) => b.score - a.score)[0]?.key ?? null
  }

  /** Ids of those for which the message is nearer to a counterexample than to any key. */
  async #countered(
    candidates: readonly Candidate[],
    vectors: readonly Float32Array[],
    signal?: AbortSignal,
  ): Promise<ReadonlySet<string>> {
    const out = new Set<string>()
    for (const { edit, similarity } of candidates) {
      const counter = (edit.counterexamples ?? []).map(normalized)
      if (counter.length === 0) continue
      const nearest = Math.max(
        ...(await this.#embedder.embed(counter, 'query', signal)).flatMap((key) => vectors.map((vector) => product(vector, key))),
      )
      if (nearest > (similarity ?? COUNTERED)) out.add(edit.id)
    }
    return out
  }

  #eligible(query: SelectionQuery, id: string, at: number): Edit | undefined {
    const held = this.#source.get(query.tenant, id, at)
    if (held?.state !== 'live' || !isForModel(held.edit, query.model)) return undefined
    return query.tags.length === 0 || query.tags.some((t) => held.edit.tags.includes(t)) ? held.edit : undefined
  }

  /** The edits in the query's scope whose subject, or an alias of it, a text names in full. */
  about(query: SelectionQuery, text: string): readonly Edit[] {
    const at = query.asOf ?? this.#now()
    const index = this.#names.get(query.tenant)
    const named = index?.find(endsOf(text), (id) => this.#eligible(query, id, at) !== undefined) ?? []
    const whole = named.filter(({ kind }) => kind === 'exact' || kind === 'alias')
    return [...new Set(whole.map((m) => m.editId))].flatMap((id) => this.#eligible(query, id, at) ?? [])
  }

  /** Position in the log of an edit that is held: the later of two wins. */
  landed({ tenant, asOf }: SelectionQuery, id: string): number {
    return this.#source.get(tenant, id, asOf ?? this.#now())?.seq ?? 0
  }

  /** The reader's log-odds of pairs, and vectors of texts. */
  read(
    pairs: Parameters<PairReader['read']>[0],
    signal?: AbortSignal,
    priority: 'query' | 'import' = 'query',
  ): Promise<Float32Array> {
    return pairs.length === 0 ? Promise.resolve(new Float32Array()) : this.#reader.read(pairs, priority, signal)
  }

  embed(texts: readonly string[], signal?: AbortSignal, priority: 'query' | 'import' = 'query'): Promise<Float32Array[]> {
    return texts.length === 0 ? Promise.resolve([]) : this.#embedder.embed(texts, priority, signal)
  }
}

/** How many of `times`, which rise, are not after `at`. */
function countUpTo(times: readonly number[], at: number): number {
  let [low, high] = [0, times.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if ((times[middle] ?? at) <= at) low = middle + 1
    else high = middle
  }
  return low
}

/** How much a candidate promises before it is read: its nearness, and what a name adds. */
function promiseOf({ nearness, name, earlier }: Candidate, least: number): number {
  const lowest = least - NAMED.earlier
  if (name === null && !earlier) return nearness ?? Number.NEGATIVE_INFINITY
  const near = Math.max(nearness ?? lowest, lowest)
  if (name?.kind === 'exact' || name?.kind === 'alias') return near + NAMED.here
  return near + (name === null ? 0 : NAMED.loosely * name.coverage) + (earlier ? NAMED.earlier : 0)
}

/** Which of them are read. `ranked`: the most promising first. */
function plausibleOf(ranked: readonly Candidate[], { least, close }: Nearness): Candidate[] {
  const nearest = Math.max(...ranked.map(({ nearness }) => nearness ?? Number.NEGATIVE_INFINITY))
  const best = ranked[0] === undefined ? 0 : promiseOf(ranked[0], least)
  const byCosine = ranked
    .filter(({ similarity }) => similarity !== null && similarity >= close)
    .sort((a, b) => (b.similarity ?? 0) - (a.similarity ?? 0))
    .slice(0, READ_BY_COSINE)
  const plausible = ranked.filter((c) => {
    const promise = promiseOf(c, least)
    if (promise < best - BEHIND_BEST) return false
    if (c.name !== null || c.earlier) return promise >= least
    return (promise >= least && promise >= nearest - BEHIND_NEAREST) || byCosine.includes(c)
  })
  const fit = Math.floor(READ_CHARS / ((plausible[0]?.read.length ?? 0) + EDIT_CHARS))
  return plausible.slice(0, Math.min(READ_CANDIDATES, Math.max(READ_LEAST, fit)))
}

interface Near {
  readonly editId: string
  readonly nearness: number
}

type SearchedPart = Part & { readonly about: ReadonlySet<string> }

function aboutOf(near: readonly Near[]): string[] {
  return near.flatMap(({ editId, nearness }) => (nearness >= ABOUT ? [editId] : []))
}

/**
 * What of a message's sentences is read with a candidate. As with what was said before, those that have nothing to do with it are left out:
 * behind talk of something else the reader takes another's name, or another question, for an edit's own (docs/LOG.md, 2026-11-30).
 */
function sentencesReadFor({ edit, name }: Candidate, sentences: readonly SearchedPart[], last: string): string {
  const named = name === null ? null : last.slice(name.start, name.end)
  const read = sentencesFor(
    sentences,
    ({ searched, about }) => about.has(edit.id) || (named !== null && searched.includes(named)),
  )
  return messageRead(read.map(({ searched }) => searched).join(' '))
}

interface RetrievedTurn {
  readonly last: string
  readonly earlier: readonly string[]
  readonly parts: readonly Part[]
}

/** Offers what the message names, and what the turns before it name in full. Returns ids that are outdone by another's whole name. */
function offerNamed(
  offers: Offers,
  index: NameIndex,
  { last, earlier, parts }: RetrievedTurn,
  eligible: (id: string) => boolean,
): ReadonlySet<string> {
  const whole = parts[0]?.read ?? ''
  const { named, outdone } = index.look(endsOf(last), eligible)
  for (const match of named) {
    const written = last.slice(match.start, match.end)
    const part = parts.find((p, i) => i > 0 && p.searched.includes(written))
    offers.add(match.editId, { name: match, read: part?.read ?? whole })
  }
  for (const text of earlier)
    for (const { editId, kind } of index.find(endsOf(text), eligible))
      if (kind === 'exact' || kind === 'alias') offers.add(editId, { earlier: true, read: whole })
  return outdone
}

/** Of the conversation up to `messages[turn]`: a chain, each message's made from the one before it, so that a turn costs its own words only. */
function digestOf(messages: SelectionQuery['messages'], turn: number, chain: string[]): string {
  for (let i = chain.length; i <= turn; i++) {
    const hash = createHash('sha256').update(chain[i - 1] ?? '')
    chain.push(hash.update(JSON.stringify(messages[i])).digest('base64'))
  }
  return chain[turn] ?? ''
}
