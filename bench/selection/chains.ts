/**
 * Selection along chains of two to four edits, in wordings of our own, without a chat model: `npm run bench:chains -- --embedder FILE --reader FILE`.
 * A made-up world of edits, each as one unfinished sentence and nothing else; questions that describe what they ask about; and plain
 * questions about the same subjects, whose targets have edits too, none of which may be drawn in.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { Edit } from '../../src/edit/edit.ts'
import { openRuntime } from '../../src/engine/embedded/runtime.ts'
import type { PairReader } from '../../src/engine/engine.ts'
import { openMemory } from '../../src/memory/store.ts'
import { follow } from '../../src/selection/chain.ts'
import { gate, readCalibration } from '../../src/selection/gate.ts'
import { Retriever } from '../../src/selection/retriever.ts'
import { selectionModels } from './models.ts'

const { values: flags } = parseArgs({
  options: {
    embedder: { type: 'string', default: '' },
    reader: { type: 'string', default: '' },
    chains: { type: 'string', default: '120' },
    show: { type: 'boolean', default: false },
  },
})

type Kind = 'person' | 'country' | 'city' | 'company' | 'work' | 'team' | 'sport' | 'language' | 'faith' | 'school'

interface Relation {
  readonly from: Kind
  readonly to: Kind
  /** The edit's sentence, up to its target. */
  readonly cloze: string
  /** Descriptions of the target. */
  readonly described: readonly string[]
  /** Questions for the target. */
  readonly asked: readonly string[]
}

const RELATIONS: readonly Relation[] = [
  {
    from: 'person',
    to: 'country',
    cloze: '{} holds the passport of',
    described: ['the country {} is a citizen of', "{}'s home country", 'the nation whose passport {} holds'],
    asked: ['Which country is {} a citizen of?', 'What is the nationality of {}?'],
  },
  {
    from: 'person',
    to: 'city',
    cloze: '{} was born in the city of',
    described: ['the city where {} was born', "{}'s birthplace", 'the town in which {} came into the world'],
    asked: ['Where was {} born?', "What is {}'s place of birth?"],
  },
  {
    from: 'person',
    to: 'person',
    cloze: '{} is married to',
    described: ["{}'s spouse", 'the person {} is married to', 'the wife or husband of {}'],
    asked: ['Who is {} married to?', "Who is {}'s spouse?"],
  },
  {
    from: 'person',
    to: 'company',
    cloze: '{} works for',
    described: ["{}'s employer", 'the company that employs {}', 'the firm where {} works'],
    asked: ['Which company does {} work for?', 'Who employs {}?'],
  },
  {
    from: 'person',
    to: 'school',
    cloze: '{} studied at',
    described: ['the university that {} attended', "{}'s alma mater", 'the school where {} was educated'],
    asked: ['Where did {} study?', 'Which university did {} go to?'],
  },
  {
    from: 'person',
    to: 'faith',
    cloze: 'The religion of {} is',
    described: ["{}'s religion", 'the faith that {} follows', 'the religion of {}'],
    asked: ["What is {}'s religion?", 'Which faith does {} follow?'],
  },
  {
    from: 'person',
    to: 'team',
    cloze: '{} plays for the team',
    described: ["{}'s team", 'the club that {} plays for', 'the side {} belongs to'],
    asked: ['Which team does {} play for?', "What is {}'s club?"],
  },
  {
    from: 'country',
    to: 'city',
    cloze: 'The capital of {} is',
    described: ['the capital of {}', "{}'s capital city"],
    asked: ['What is the capital of {}?', 'Which city is the capital of {}?'],
  },
  {
    from: 'country',
    to: 'person',
    cloze: 'The head of state of {} is',
    described: ['the head of state of {}', "{}'s president"],
    asked: ['Who is the head of state of {}?', 'Who is the president of {}?'],
  },
  {
    from: 'country',
    to: 'language',
    cloze: 'The official language of {} is',
    described: ['the official language of {}', 'the language spoken officially in {}'],
    asked: ['What is the official language of {}?', 'Which language is official in {}?'],
  },
  {
    from: 'city',
    to: 'country',
    cloze: '{} lies in the country of',
    described: ['the country that {} is in', 'the country where {} lies'],
    asked: ['Which country is {} in?', 'In which country does {} lie?'],
  },
  {
    from: 'city',
    to: 'person',
    cloze: 'The mayor of {} is',
    described: ['the mayor of {}', "{}'s mayor"],
    asked: ['Who is the mayor of {}?', 'What is the name of the mayor of {}?'],
  },
  {
    from: 'company',
    to: 'person',
    cloze: 'The chief executive of {} is',
    described: ['the chief executive of {}', 'the boss of {}', "{}'s CEO"],
    asked: ['Who is the chief executive of {}?', 'Who runs {}?'],
  },
  {
    from: 'company',
    to: 'city',
    cloze: 'The headquarters of {} are in',
    described: ['the city where {} has its headquarters', 'the city in which {} is based'],
    asked: ['Where are the headquarters of {}?', 'In which city is {} based?'],
  },
  {
    from: 'company',
    to: 'person',
    cloze: '{} was founded by',
    described: ['the founder of {}', 'the person who started {}'],
    asked: ['Who founded {}?', 'Who is the founder of {}?'],
  },
  {
    from: 'work',
    to: 'person',
    cloze: 'The author of {} is',
    described: ['the author of {}', 'the person who wrote {}', "{}'s author"],
    asked: ['Who wrote {}?', 'Who is the author of {}?'],
  },
  {
    from: 'work',
    to: 'company',
    cloze: '{} was published by',
    described: ['the publisher of {}', 'the company that published {}'],
    asked: ['Which company published {}?', 'Who is the publisher of {}?'],
  },
  {
    from: 'team',
    to: 'sport',
    cloze: 'The sport played by {} is',
    described: ['the sport that {} plays', "{}'s sport"],
    asked: ['Which sport does {} play?', 'What sport does {} take part in?'],
  },
  {
    from: 'team',
    to: 'city',
    cloze: '{} plays its home games in',
    described: ['the city that {} plays its home games in', "{}'s home city"],
    asked: ['Where does {} play its home games?', 'In which city does {} play at home?'],
  },
  {
    from: 'sport',
    to: 'country',
    cloze: '{} was invented in the country of',
    described: ['the country where {} was invented', 'the country {} comes from'],
    asked: ['Where was {} invented?', 'Which country does {} come from?'],
  },
  {
    from: 'faith',
    to: 'person',
    cloze: 'The founder of the religion {} is',
    described: ['the founder of {}', 'the person who founded {}'],
    asked: ['Who founded {}?', 'Who is the founder of {}?'],
  },
  {
    from: 'school',
    to: 'city',
    cloze: '{} stands in the city of',
    described: ['the city where {} is', 'the location of {}'],
    asked: ['In which city is {}?', 'Where is {} located?'],
  },
]

const NAMES: Readonly<Record<Kind, string>> = {
  person:
    'Ilka Varnbuehl|Tomas Redgrove|Odile Marchbanks|Pavel Quist|Sunniva Aldertree|Cato Lindqvist|Mirela Osgood|Bram Tolliver|Yara Feddersen|Noel Castellan',
  country: 'Vestmark|Orlandia|Karvenia|Sulmara|Tessaly Isles',
  city: 'Brennholm|Port Calder|Askerby|Lindenfurt|Novi Trag',
  company: 'Halvorsen Dynamics|Tidewell|Brightmoor Press|Korvax|Pinnock and Sons',
  work: 'The Salt Orchard|Winter Ledger|A Field of Lanterns|Nightjar Road|The Glass Ferryman',
  team: 'Askerby Rovers|Calder Otters|Vestmark Wolves|Redmoor United',
  sport: 'ringball|pole hockey|quatch|net tennis',
  language: 'Vestic|Orlandic|Karvenian|Sulmaran',
  faith: 'Lumenism|the Old Path|Solarism',
  school: 'Halden University|Quarrington College|the Askerby Institute',
}

const entities = Object.fromEntries(Object.entries(NAMES).map(([kind, names]) => [kind, names.split('|')])) as Record<
  Kind,
  string[]
>
const pick = <T>(list: readonly T[], n: number): T => list[n % list.length] as T
const filled = (text: string, name: string) => text.replace('{}', name)

const edits: Edit[] = []
const facts = new Map<string, { edit: Edit; relation: Relation }[]>()
for (const [r, relation] of RELATIONS.entries()) {
  for (const [i, subject] of entities[relation.from].entries()) {
    const target = pick(entities[relation.to], 3 * i + 2 * r + 1)
    if (target === subject) continue
    const edit: Edit = {
      ...{ id: `w${edits.length}`, subject, prompt: filled(relation.cloze, subject), targetNew: target },
      ...{ aliases: [], paraphrases: [], tags: [], tenant: 'default' },
    }
    edits.push(edit)
    facts.set(subject, [...(facts.get(subject) ?? []), { edit, relation }])
  }
}

interface Probe {
  readonly hops: number
  readonly question: string
  readonly wants: readonly string[]
}

/** Walks over the edits, each step a description of the next subject, the last one a question. */
function probe(n: number, hops: number): Probe | null {
  const subjects = [...facts.keys()]
  let name = pick(subjects, 7 * n)
  let described = name
  const wants: string[] = []
  const seen = new Set<string>()
  for (let hop = 1; hop <= hops; hop++) {
    const known = (facts.get(name) ?? []).filter(({ edit }) => hop === hops || facts.has(edit.targetNew))
    if (known.length === 0 || seen.has(name)) return null
    seen.add(name)
    const { edit, relation } = pick(known, n + 5 * hop)
    wants.push(edit.id)
    if (hop === hops)
      return {
        hops,
        question: filled(
          pick(
            relation.asked.filter((q) => !q.includes("{}'s") || hop === 1),
            n + hop,
          ),
          described,
        ),
        wants,
      }
    // "the boss of X's mother" is ambiguous: only a name takes the possessive.
    const wordings = relation.described.filter((d) => hop === 1 || !d.startsWith('{}'))
    described = filled(pick(wordings, n + 2 * hop), described)
    name = edit.targetNew
  }
  return null
}

const quiet = { info: () => undefined, warn: console.error, error: console.error }
const runtime = await openRuntime({ threads: 1, gpu: false, log: () => undefined })
const { embedder, reader } = await selectionModels(runtime, flags)
const dataDir = mkdtempSync(join(tmpdir(), 'palimpsest-bench-'))
const memory = await openMemory({ dataDir, embedder, now: Date.now, log: quiet })
await memory.land(edits, { source: 'bench', tenant: 'default', dryRun: false })
await memory.indexed()
let pairs = 0
const counted: PairReader = { ...reader, read: (all, ...rest) => reader.read(all, ...rest).finally(() => (pairs += all.length)) }
const retriever = new Retriever(memory, embedder, counted, { now: Date.now, cacheBytes: 1 })
const calibration = readCalibration()
const promptOf = (id: string) => memory.get('default', id)?.edit.prompt
console.log(`${edits.length} edits`)
console.log('| hops | questions | first edit | all edits | not needed: by the gate | by a chain | pairs read |')
console.log('|---|---|---|---|---|---|---|')
for (const hops of [1, 2, 3, 4]) {
  const all = Array.from({ length: Number(flags.chains) }, (_, n) => probe(n, hops)).filter((p) => p !== null)
  let [first, complete, gated, chained] = [0, 0, 0, 0]
  pairs = 0
  for (const { question, wants } of all) {
    const query = {
      messages: [{ role: 'user', content: question }],
      model: 'm',
      tenant: 'default',
      edits: { kind: 'on' },
      tags: [],
    } as const
    const { candidates } = await retriever.candidates(query, 0)
    const taken = gate(candidates, calibration).filter((c) => c.reason === 'selected')
    const applying = candidates.flatMap(({ edit }) => {
      const score = taken.find(({ id }) => id === edit.id)?.score
      return score === undefined ? [] : [{ edit, score, hop: 1 }]
    })
    const hops = { query, source: retriever, calibration, refused: new Set<string>() }
    const { links } = await follow(candidates[0]?.read ?? question, applying, hops)
    const ids = [...taken.map((c) => c.id), ...links.map((l) => l.edit.id)]
    if (ids.includes(wants[0] ?? '')) first++
    if (wants.every((id) => ids.includes(id))) complete++
    if (taken.some(({ id }) => !wants.includes(id))) gated++
    if (links.some(({ edit }) => !wants.includes(edit.id))) chained++
    if (flags.show && (!wants.every((id) => ids.includes(id)) || ids.length > wants.length))
      console.log(`  ${question} | ${ids.map(promptOf).join('; ')} | wanted ${wants.map(promptOf).join('; ')}`)
  }
  const share = (n: number) => `${((100 * n) / all.length).toFixed(1)} %`
  console.log(
    `| ${hops} | ${all.length} | ${share(first)} | ${share(complete)} | ${share(gated)} | ${share(chained)} | ${Math.round(pairs / all.length)} a question |`,
  )
}
await memory.close()
await runtime.dispose()
rmSync(dataDir, { recursive: true })
