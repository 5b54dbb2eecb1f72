/**
 * Probes for fitting and scoring the gate, read from benchmark files as published (a folder the user gives; nothing is kept here).
 * Every probe is a text with the ids of the edits it should fire; `group` is the relation, for cross-validation by relation.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Edit } from '../src/edit/edit.ts'
import { maskSubject } from '../src/edit/edit.ts'
import { words } from '../src/edit/words.ts'
import { sameFacts } from './gate-labels.ts'
import { OWN } from './gate-own.ts'

export interface Probe {
  readonly kind: string
  readonly text: string
  readonly wants: readonly string[]
  /** Edits that state nearly this fact, or about which the data set is silent: neither right nor a false alarm. */
  readonly also: readonly string[]
  readonly group: string
}

export interface Development {
  readonly edits: readonly Edit[]
  readonly probes: readonly Probe[]
}

const BASE = { aliases: [], paraphrases: [], tags: [], tenant: 'default' } as const
// biome-ignore lint/suspicious/noExplicitAny: foreign files, read loosely in a bench
type Foreign = any

const json = (file: string): Foreign[] => JSON.parse(readFileSync(file, 'utf8'))
const lines = (file: string): Foreign[] =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter((l) => l.endsWith('}'))
    .map((l) => JSON.parse(l))

export function development(folder: string): Development {
  const edits: Edit[] = []
  const probes: Probe[] = []
  const seen = new Map<string, string>()
  const edit = (subject: string, prompt: string, target: string, relation?: string): { id: string; group: string } => {
    const key = `${subject}\n${prompt}`
    const group = relation ?? words(maskSubject(prompt, subject, ' ')).join(' ')
    const had = seen.get(key)
    if (had !== undefined) return { id: had, group }
    const id = `d${edits.length}`
    seen.set(key, id)
    edits.push({ ...BASE, id, subject, prompt, targetNew: target })
    return { id, group }
  }
  const probe = (kind: string, text: string, id: string | null, group: string): void => {
    probes.push({ kind, text, wants: id === null ? [] : [id], also: [], group })
  }
  const counterfact = json(join(folder, 'counterfact/counterfact-dev-500.json'))
  for (const r of counterfact) {
    const { subject, prompt, target_new, relation_id } = r.requested_rewrite
    const { id } = edit(subject, prompt.replace('{}', subject), target_new.str)
    probe('cf.prompt', prompt.replace('{}', subject), id, relation_id)
    for (const p of r.paraphrase_prompts) probe('cf.paraphrase', p, id, relation_id)
    for (const p of r.neighborhood_prompts) probe('cf.neighbour', p, null, relation_id)
    probe('cf.portability', r.portability['New Question'], id, relation_id)
  }
  for (const r of json(join(folder, 'counterfact/counterfact-flat-12k.json'))) edit(r.subject, r.prompt, r.target_new)
  for (const r of json(join(folder, 'zsre/zsre-dev-500.json'))) {
    const { id, group } = edit(r.subject, r.src, r.alt)
    probe('zsre.prompt', r.src, id, group)
    probe('zsre.rephrase', r.rephrase, id, group)
    probe('zsre.portability', r.portability['New Question'], id, group)
    probe('zsre.loc', r.loc.replace(/^nq question: /, ''), null, group)
  }
  for (const file of ['wiki_counterfact_train_500', 'wiki_recent_train']) {
    for (const r of json(join(folder, `knowedit/${file}.json`))) {
      if (typeof r.target_new !== 'string') continue
      const { id, group } = edit(r.subject, r.prompt, r.target_new)
      probe('ke.prompt', r.prompt, id, group)
      for (const p of r.portability?.Reasoning ?? []) probe('ke.reasoning', p.prompt, id, group)
      for (const p of r.portability?.Subject_Aliasing ?? []) probe('ke.alias', p.prompt, id, group)
      for (const p of r.locality?.Relation_Specificity ?? []) probe('ke.other_relation', p.prompt, null, group)
    }
  }
  for (const r of json(join(folder, 'temporal/wikifactdiff-train-1000.json'))) {
    const { id, group } = edit(r.subject, r.src, r.alt)
    probe('wfd.prompt', r.src, id, group)
    probe('wfd.rephrase', r.rephrase, id, group)
    if (typeof r.loc === 'string') probe('wfd.loc', r.loc, null, group)
  }
  for (const r of json(join(folder, 'mquake/mquake-2002-dev-400.json')).slice(0, 400)) {
    for (const h of r.requested_rewrite)
      probe('mq.question', h.question, edit(h.subject, h.prompt.replace('{}', h.subject), h.target_new.str).id, h.relation_id)
  }
  const traffic = (name: string, text: (r: Foreign) => string[]): void => {
    for (const r of lines(join(folder, `traffic/${name}.jsonl`)))
      for (const t of text(r)) probe(`traffic.${name.split('-')[0]}`, t, null, `traffic${probes.length % 5}`)
  }
  traffic('nq-open-1500', (r) => [r.question])
  traffic('gsm8k-500', (r) => [r.question])
  traffic('mt-bench-80', (r) => r.turns)
  traffic('mmlu-1000', (r) => [`${r.question}\n${r.choices.join('\n')}`])
  for (const [subject, prompt, target, asks, not] of OWN) {
    const { id, group } = edit(subject, prompt, target)
    for (const text of asks) probe('own.asks', text, id, group)
    for (const text of not) probe('own.not', text, null, group)
  }
  return { edits, probes: sameFacts(edits, probes, counterfact) }
}
