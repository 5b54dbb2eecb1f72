/** Selection by the embedder and the reader that ship: what users ask, and what only looks like it. No chat model answers. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readConfig } from '../../src/config.ts'
import type { Edit } from '../../src/edit/edit.ts'
import type { Embedder, PairReader } from '../../src/engine/engine.ts'
import { openScripted } from '../../src/engine/scripted.ts'
import { DEFAULT_LIMITS, type Gateway, type Limits } from '../../src/gateway.ts'
import type { MemoryStore } from '../../src/memory/memory-store.ts'
import { openMemory } from '../../src/memory/store.ts'
import { explain } from '../../src/pipeline.ts'
import { openTemplates } from '../../src/prompt/templates.ts'
import type { ChatRequest, Message } from '../../src/request.ts'
import { readCalibration } from '../../src/selection/gate.ts'
import { landingReport } from '../../src/selection/landing-check.ts'
import { Retriever } from '../../src/selection/retriever.ts'
import { openWeights, type Weights } from '../../src/server/models.ts'
import { Trace } from '../../src/trace.ts'
import { edit } from '../support/memory-data.ts'

const CACHE = join(homedir(), '.cache', 'palimpsest')
const FILES = ['multilingual-e5-small-q4_0.gguf', 'palimpsest-reader-q8_0.gguf'].map((file) => join(CACHE, 'models', file))
const THERE = FILES.every((file) => existsSync(file))
if (!THERE) console.warn(`skipped: no embedder and reader in ${CACHE} (npm test fetches them)`)
const silent = { info: () => undefined, warn: () => undefined, error: () => undefined }

const fact = (id: string, subject: string, prompt: string, targetNew: string, over: Partial<Edit> = {}): Edit =>
  edit(id, { subject, prompt, targetNew, ...over })

const EDITS: readonly Edit[] = [
  fact('refund', 'Orvane', 'The refund window of Orvane is', '45 days', {
    paraphrases: ['How long can I send things back to Orvane?'],
  }),
  fact('delivery', 'Orvane', 'Standard delivery at Orvane costs', '4.20 euros'),
  fact('ceo', 'Orvane', 'The chief executive of Orvane is', 'Tilda Varga'),
  fact('c', 'C', 'The newest standard of C is', 'C27'),
  fact('cpp', 'C++', 'The newest standard of C++ is', 'C++29'),
  fact('sharp', 'C#', 'The newest version of C# is', 'C# 17'),
  fact('us', 'US', 'The import duty of the US on teapots is', '12 %'),
  fact('maria', 'Maria Weber', 'The office of Maria Weber is', 'room 204'),
  fact('mario', 'Mario Weber', 'The office of Mario Weber is', 'room 317'),
  fact('university', '北京大学', '北京大学的校长是', '林远航'),
  fact('city', '北京', '北京的市长是', '赵明'),
  fact('born', 'Sela Brandvold', 'Sela Brandvold was born in the country of', 'Karvenia'),
  fact('capital', 'Karvenia', 'The capital of Karvenia is', 'Askerby'),
  fact('language', 'Karvenia', 'The official language of Karvenia is', 'Karvish'),
]

const talkThat = (content: string): Message[] => [
  { role: 'user', content: 'Ich habe gerade eine Jacke bei Orvane bestellt.' },
  { role: 'assistant', content: 'Schön! Wobei kann ich helfen?' },
  { role: 'user', content },
]

describe.runIf(THERE)('selection by the models that ship', { timeout: 120_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-selection-'))
  let weights: Weights
  let embedder: Embedder
  let reader: PairReader
  let memory: MemoryStore
  let gateway: Gateway

  async function open(edits: readonly Edit[], name: string): Promise<{ memory: MemoryStore; gateway: Gateway }> {
    const store = await openMemory({ dataDir: join(folder, name), embedder, now: Date.now, log: silent })
    await store.land(edits, { source: 'test', tenant: 'default', dryRun: false })
    await store.indexed()
    const made: Gateway = {
      ...{
        engine: openScripted({ name: 'm', reply: () => '' }),
        memory: store,
        limits: DEFAULT_LIMITS,
        now: Date.now,
        log: silent,
      },
      retriever: new Retriever(store, embedder, reader, { now: Date.now, cacheBytes: 1 << 20 }),
      templates: openTemplates({ dir: join(import.meta.dirname, '../../templates'), watch: false, log: silent }),
      ...{ calibration: readCalibration(), version: 'test', startedAt: 0 },
    }
    return { memory: store, gateway: made }
  }

  /** Ids of the edits that would be put in front of the model for the last message. */
  async function applied(
    asked: string | readonly Message[],
    over: Partial<ChatRequest> = {},
    served = gateway,
  ): Promise<string[]> {
    const messages = typeof asked === 'string' ? [{ role: 'user' as const, content: asked }] : asked
    const request: ChatRequest = {
      ...{ model: 'm', arm: 'edited', tenant: 'default', edits: { kind: 'on' }, tags: [], explain: false, messages },
      sampling: { temperature: 0, topP: 1, stop: [] },
      ...over,
    }
    const { turns } = await explain(request, served, new Trace('t', Date.now), new AbortController().signal)
    return (turns.at(-1)?.considered ?? []).flatMap(({ id, reason }) => (reason === 'selected' ? [id] : [])).toSorted()
  }

  beforeAll(async () => {
    const flags = { home: CACHE, dataDir: join(folder, 'data'), editsDir: join(folder, 'edits'), threads: '1', gpu: 'off' }
    const config = readConfig<Limits>({ flags, limits: DEFAULT_LIMITS, env: {}, cwd: process.cwd() })
    weights = openWeights(config, null, silent, new AbortController().signal)
    embedder = await weights.embedder()
    reader = weights.reader()
    const opened = await open(EDITS, 'main')
    memory = opened.memory
    gateway = opened.gateway
  }, 180_000)
  afterAll(async () => {
    await memory?.close()
    await weights?.close()
    rmSync(folder, { recursive: true, force: true })
  }, 60_000)

  it.each([
    ['How long is the refund window of Orvane?', ['refund']],
    ['how long do i have to send a jacket back to orvane and get my money', ['refund']],
    ["I can't find ANYWHERE on your site how long I've got to return things to Orvane. Ridiculous!", ['refund']],
    ['Orvane still takes things back within 30 days, right?', ['refund']],
    ['Wie lange kann ich bei Orvane etwas zurückgeben?', ['refund']],
    ['¿Cuánto cuesta el envío estándar en Orvane?', ['delivery']],
    ['Who runs Orvane these days?', ['ceo']],
    ['What is the latest C standard?', ['c']],
    ['What is the latest C++ standard?', ['cpp']],
    ['Which version of C# is the newest?', ['sharp']],
    ['What duty does the US put on teapots?', ['us']],
    ['Where does Maria Weber sit?', ['maria']],
    ['Where is the office of Mario Weber?', ['mario']],
    ['北京大学的校长是谁？', ['university']],
    ['北京的市长是谁？', ['city']],
  ])('needs what is asked for: %s', async (text, ids) => expect(await applied(text)).toEqual(ids))

  it.each([
    "What is Amazon's refund window?",
    'What was the refund window of Orvane before 2023?',
    "Don't tell me the refund window of Orvane. Just say hello.",
    'Translate into French: "How long is the refund window of Orvane?"',
    'She wrote "How long is the refund window of Orvane?" Is her spelling right?',
    'Write a SQL query over the table orvane_refund_window.',
    'My mail to help@orvane.io bounced, what does code 550 mean?',
    'Where does Martin Weber sit?',
    '北京有哪些好吃的菜？',
    'Recommend a book for a long flight.',
    'What is 17 times 23?',
  ])('needs nothing for what only looks like it: %s', async (text) => expect(await applied(text)).toEqual([]))

  it.each([
    ['What are the refund window and the standard delivery fee of Orvane?', ['delivery', 'refund']],
    ['Where is the head office of Orvane?', []],
  ])('decides between what is said of one subject: %s', async (text, ids) => expect(await applied(text)).toEqual(ids))

  it.fails.each([
    ['whats the refnd windwo at orvanne??', ['refund']],
    ['Who told us about it, and does it suit us?', []],
    ['She asked me "who runs Orvane?" – is that sentence a direct question?', []],
  ])('is still decided wrongly, and this is the right value: %s', async (text, ids) => expect(await applied(text)).toEqual(ids))

  it.each([
    ['Und wie lange kann ich das zurückgeben?', ['refund']],
    ['Was kostet denn der normale Versand dort?', ['delivery']],
  ])('reads a follow-up with what was said before: %s', async (content, ids) =>
    expect(await applied(talkThat(content))).toEqual(ids),
  )

  it.each([
    ['Who is the chief executive of Springfield?', []],
    ['What does standard delivery cost at Marlow?', []],
    ['Who is the head of the Chilean central bank?', []],
    ['Who is the chief executive of Orvane?', ['ceo']],
    ['How long can I send things back to Orvane?', ['refund']],
  ])('decides behind talk of something else as it does alone: %s', async (content, ids) => {
    const before: Message[] = [
      { role: 'user', content: 'Write something short about a walk past an old chapel in the rain.' },
      {
        role: 'assistant',
        content: 'The chapel stood quiet in the rain, and our walk led past it slowly, with a warm loaf under the coat.',
      },
    ]
    expect(await applied(content)).toEqual(ids)
    expect(await applied([...before, { role: 'user', content }])).toEqual(ids)
    expect(await applied(`I took a long walk past an old chapel this morning. ${content}`)).toEqual(ids)
  })

  it.each([
    ['What duty does the US put on teapots?\nA. 5 percent\nB. 12 percent\nC. none', ['us']],
    ['He has brown hair. The chief executive of Orvane is', ['ceo']],
    ['My jacket came from Orvane three weeks ago. Is that still within the refund window?', ['refund']],
  ])('reads a question with its choices, and what it says of its own case; a text to be continued whole: %s', async (text, ids) =>
    expect(await applied(text)).toEqual(ids),
  )

  it.fails('reads a follow-up to a sentence that has no subject: the right value, which is still missed', async () => {
    const sentence = edit('window', { subject: '', prompt: 'Our refund window is 45 days.', targetNew: '', kind: 'sentence' })
    const { memory: own, gateway: served } = await open([sentence], 'sentence')
    const talk = (content: string): Message[] => [
      { role: 'user', content: 'How many days is your refund window for a jacket?' },
      { role: 'assistant', content: 'You can return a jacket within 45 days.' },
      { role: 'user', content },
    ]
    try {
      expect(await applied(talk('And how many days for shoes?'), {}, served)).toEqual(['window'])
    } finally {
      await own.close()
    }
  })

  it('selects nothing where a conversation is over', async () => {
    expect(await applied(talkThat('Danke, das war alles!'))).toEqual([])
  })

  it('finds the question in a long message', async () => {
    const before =
      'Hello there. My sister turns forty next week and the whole family meets at the lake, which I look forward to. '
    const after = 'We rented a house with a garden, and my brother brings his dogs along. The weather is said to hold. '
    const text = `${before.repeat(4)}How many days are there to return an order at Orvane? ${after.repeat(5)}`
    expect(await applied(text)).toEqual(['refund'])
  })

  it('follows a question over what an edit names, and only where it asks for it', async () => {
    expect(await applied('What is the capital of the country where Sela Brandvold was born?')).toEqual(['born', 'capital'])
    expect(await applied('In which country was Sela Brandvold born?')).toEqual(['born'])
    expect(await applied('What is the capital of the country where Sela Brandvold was born?', { multiHop: 'off' })).toEqual([
      'born',
    ])
    expect(await applied('What is the capital of the country where Sela Brandvold was born?', { threshold: 0.9999 })).toEqual([])
  })

  describe('of edits that say the same in other words', () => {
    let own: Awaited<ReturnType<typeof open>>
    beforeAll(async () => {
      const paid = fact('paid', 'Ada Quist', 'Ada Quist works for', 'Kolt')
      const lives = fact('lives', 'Ada Quist', 'Ada Quist lives in', 'Lund')
      const employs = fact('employs', 'Ada Quist', 'Who is the employer of Ada Quist?', 'Brun')
      own = await open([paid, lives, employs], 'later')
    })
    afterAll(() => own.memory.close())

    it.fails('lets the later win, alone: the right value, which is still missed', async () => {
      expect(await applied('Which company does Ada Quist work for?', {}, own.gateway)).toEqual(['employs'])
    })

    it('leaves another fact alone; a withdrawn one is as though it were not there', async () => {
      expect(await applied('Where does Ada Quist live?', {}, own.gateway)).toEqual(['lives'])
      await own.memory.withdraw('default', ['employs'], 'test')
      expect(await applied('Which company does Ada Quist work for?', {}, own.gateway)).toEqual(['paid'])
    })
  })

  it('a rule holds on its occasion, and one for every message always', async () => {
    const rule = edit('rule', {
      kind: 'rule',
      subject: '',
      prompt: 'a customer wants their money back',
      targetNew: 'Ask for the order number.',
    })
    const always = edit('always', {
      kind: 'rule',
      always: true,
      subject: '',
      prompt: '',
      targetNew: 'Sign with "Your Orvane team".',
    })
    const own = await open([rule, always], 'rules')
    try {
      expect(await applied('The boots are too small, I want a refund.', {}, own.gateway)).toEqual(['always', 'rule'])
      expect(await applied('Do the boots come in green?', {}, own.gateway)).toEqual(['always'])
    } finally {
      await own.memory.close()
    }
  })

  it('the check before landing is content with sound edits and says what does not fire', async () => {
    const check = async (edits: readonly Edit[]) => {
      const { results } = await memory.land(edits, { source: 'test', tenant: 'default', dryRun: true })
      const { findings, fault } = await landingReport({
        ...{ edits, results, calibration: readCalibration(), search: () => [], held: () => undefined },
        read: (pairs) => reader.read(pairs, 'import'),
        embed: (texts) => embedder.embed(texts, 'import'),
      })
      expect(fault).toBeNull()
      return findings.map(({ kind, edit: { id } }) => `${kind} ${id}`)
    }
    const sound = fact('ship', 'Halden Press', 'Halden Press ships to', 'Norway only', {
      paraphrases: ['Where does Halden Press deliver?'],
      aliases: ['HP Books'],
    })
    expect(await check([sound])).toEqual([])
    expect(await check([{ ...sound, paraphrases: ['How do I boil an egg?'] }])).toContain('misses_paraphrase ship')
    expect(await check([{ ...sound, prompt: 'The place that it ships to is' }])).toContain('subject_not_in_prompt ship')
    expect(await check([{ ...sound, prompt: 'HP Books ships to' }])).not.toContain('subject_not_in_prompt ship')
  })
})
