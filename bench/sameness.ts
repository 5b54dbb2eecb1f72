/**
 * Where lies the threshold above which two edits of a subject state the same relation in other words, and how often is that wrong?
 * `npm run bench:sameness -- DATA_FOLDER EMBEDDER_FILE [CACHE_FILE]`. Same-relation pairs: two wordings of one fact (zsRE and WikiFactDiff
 * rephrases, MQuAKE and ConflictEdit statement and question, CounterFact statements under one relation id). Different-relation pairs: two
 * things asked of one subject (KnowEdit Relation_Specificity), and statements under two CounterFact relation ids.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Edit } from '../src/edit/edit.ts'
import { canonicalRelation } from '../src/edit/relation.ts'
import { opposed, relationTextsOf, sameFrame, sameRelation } from '../src/memory/sameness.ts'
import { diskEmbedder, dot } from './gate-rows.ts'

const [folder = '../shared/data', embedderPath = '', cachePath = '/tmp/palimpsest-embeddings.bin'] = process.argv.slice(2)
// biome-ignore lint/suspicious/noExplicitAny: foreign files, read loosely in a bench
type Foreign = any
const json = (file: string): Foreign[] => JSON.parse(readFileSync(join(folder, file), 'utf8'))

interface Pair {
  readonly source: string
  readonly same: boolean
  readonly a: Edit
  readonly b: Edit
  /** How often the files have it. */
  times: number
}

const pairs = new Map<string, Pair>()

function add(source: string, same: boolean, subject: string, one: string, other: string): void {
  const edit = (prompt: string): Edit => ({
    ...{ id: prompt, subject, prompt, aliases: [], targetNew: '', paraphrases: [], tags: [], tenant: 'default' },
  })
  const [a, b] = [edit(one), edit(other)]
  const texts = [a, b].map((e) => relationTextsOf(e)[0] ?? '')
  if (texts[0] === texts[1] || [one, other].some((text, i) => texts[i] === text.trim())) return
  const key = [source, ...texts].join('\n')
  const had = pairs.get(key)
  if (had === undefined) pairs.set(key, { source, same, a, b, times: 1 })
  else had.times++
}

for (const r of json('zsre/zsre-dev-500.json')) add('zsRE rephrase', true, r.subject, r.src, r.rephrase)
for (const r of json('temporal/wikifactdiff-train-1000.json')) add('WikiFactDiff rephrase', true, r.subject, r.src, r.rephrase)
for (const r of json('mquake/mquake-2002-dev-400.json'))
  for (const w of r.requested_rewrite) add('MQuAKE question', true, w.subject, w.prompt.replace('{}', w.subject), w.question)
for (const r of json('conflict/coverage-500.json')) {
  const { relation, subject } = r.edits[0]
  const fill = (text: string) => text.replace('{}', subject.label)
  add('ConflictEdit question', true, subject.label, fill(relation.prompt), fill(relation.query))
}
const wordings = new Map<string, Set<string>>()
for (const { requested_rewrite: w } of json('counterfact/counterfact-dev-500.json'))
  wordings.set(w.relation_id, (wordings.get(w.relation_id) ?? new Set()).add(w.prompt.replace('{}', 'Xyzzy')))
for (const [id, own] of wordings)
  for (const a of own)
    for (const [otherId, others] of wordings)
      for (const b of others)
        if (id === otherId ? a < b : id < otherId)
          add(id === otherId ? 'CounterFact, one id' : 'CounterFact, two ids', id === otherId, 'Xyzzy', a, b)
for (const file of ['wiki_counterfact_train_500', 'wiki_recent_train'])
  for (const r of json(`knowedit/${file}.json`)) {
    const asked: string[] = [r.prompt, ...(r.locality?.Relation_Specificity ?? []).map((p: Foreign) => p.prompt)]
    for (const [i, a] of asked.entries()) for (const b of asked.slice(0, i)) add('KnowEdit, one subject', false, r.subject, b, a)
  }

const embedder = await diskEmbedder(embedderPath, cachePath)
const vectors = new Map<string, Float32Array>()
for (const { a, b } of pairs.values())
  for (const text of [a, b].flatMap(relationTextsOf)) if (!vectors.has(text)) vectors.set(text, await embedder.embed(text))
await embedder.close()

const rows = [...pairs.values()].map((pair) => {
  const [va, vb] = [pair.a, pair.b].map((e) => vectors.get(relationTextsOf(e)[0] ?? ''))
  const [wa, wb] = [pair.a, pair.b].map((e) => canonicalRelation(e.prompt, e).split(' ')) as [string[], string[]]
  return {
    ...pair,
    cosine: va && vb ? dot(va, vb) : 0,
    equal: wa.join(' ') === wb.join(' '),
    opposed: opposed(wa, wb),
    frame: sameFrame(wa, wb),
    ships: sameRelation(pair.a, pair.b, vectors),
  }
})
type Row = (typeof rows)[number]
const sources = [...new Set(rows.map((r) => r.source))]

function line(name: string, taken: (row: Row) => boolean): string {
  const cells = sources.map((source) => {
    const of = rows.filter((r) => r.source === source)
    const weight = (list: readonly Row[]) => list.reduce((sum, r) => sum + r.times, 0)
    const hits = of.filter(taken)
    return `${((100 * hits.length) / of.length).toFixed(1)} (${((100 * weight(hits)) / weight(of)).toFixed(1)})`
  })
  return `| ${name} | ${cells.join(' | ')} |`
}

console.log('Share of pairs taken for the same relation: % of distinct pairs (% of occurrences in the files)')
console.log(`| rule | ${sources.join(' | ')} |\n|---|${sources.map(() => '---').join('|')}|`)
console.log(
  `| pairs | ${sources.map((s) => `${rows.find((r) => r.source === s)?.same ? 'same' : 'different'}, ${rows.filter((r) => r.source === s).length}`).join(' | ')} |`,
)
console.log(line('equal canonical words', (r) => r.equal))
for (const t of [0.65, 0.7, 0.75, 0.8, 0.85, 0.9]) {
  console.log(line(`cosine ≥ ${t}`, (r) => r.equal || r.cosine >= t))
  console.log(line(`… and not opposed`, (r) => r.equal || (r.cosine >= t && !r.opposed)))
  console.log(line(`… and ≥ 0.9 in one frame`, (r) => r.equal || (r.cosine >= (r.frame ? Math.max(t, 0.9) : t) && !r.opposed)))
}
console.log(line('**as it ships**', (r) => r.ships))
const wrong = rows.filter((r) => r.ships && !r.same).sort((a, b) => b.cosine - a.cosine)
console.log(`\nTaken for the same, under two labels or as two questions of one subject: ${wrong.length}`)
for (const { source, cosine, a, b } of wrong) console.log(`${cosine.toFixed(2)} ${source}: ${a.prompt} | ${b.prompt}`)
