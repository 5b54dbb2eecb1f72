import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { parse as parseYaml } from 'yaml'
import { createSnapshot, listSnapshots, restoreSnapshot, snapshotsDir } from '../../../src/backup/snapshot.ts'
import { parseBatch } from '../../../src/edit/batch.ts'
import type { Edit } from '../../../src/edit/edit.ts'
import type { Probe } from '../../../src/evaluate/data/probe.ts'
import { UNRELATED } from '../../../src/evaluate/data/unrelated.ts'
import type { Outcome } from '../../../src/evaluate/metrics/outcomes.ts'
import type { Forced, Scored } from '../../../src/evaluate/protocols/forced.ts'
import type { Generated } from '../../../src/evaluate/protocols/generated.ts'
import { type Advice, advise, type Past, type Situation } from '../../../src/handoff/advice.ts'
import { type Facts, misfits } from '../../../src/handoff/compatibility.ts'
import { requirements, venvPath } from '../../../src/handoff/editor/installation.ts'
import { hparamsFiles, passes, requestOf } from '../../../src/handoff/exchange/easyedit-export.ts'
import { subjectIn } from '../../../src/handoff/exchange/edit-query.ts'
import { THRESHOLDS } from '../../../src/handoff/job.ts'
import { judge } from '../../../src/handoff/stages/judge.ts'
import { probesOf, stillPrompts } from '../../../src/handoff/stages/probes.ts'
import { openMemory } from '../../../src/memory/store.ts'
import { lockFolder } from '../../../src/storage/folder-lock.ts'
import { fact as plain } from '../../support/memory-data.ts'
import { fakeEmbedder } from '../../support/memory-fixture.ts'

/** SUBJECT works for TARGET. */
const fact = (subject: string, targetNew: string): Edit =>
  plain(0, { id: `e_${subject}`, subject, prompt: `${subject} works for`, targetNew })

const root = mkdtempSync(join(tmpdir(), 'palimpsest-handoff-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))

describe('advice', () => {
  const GB = 1e9
  const here: Situation = {
    ...{
      edits: 50,
      when: 'later',
      freeMemoryBytes: 20 * GB,
      gpuFreeBytes: null,
      parameters: 0.5 * GB,
      cores: 2,
      ready: true,
      past: [],
      notTaken: { memit: 0, alphaedit: 0, pmet: 0, lora: 0, distil: 0 },
    },
  }
  const past = (method: Past['method'], edits: number, ok = true, seconds = edits * 5): Past => ({
    method,
    edits,
    ok,
    seconds,
    peakBytes: 6 * GB,
  })

  it.each<[string, Partial<Situation>, Advice['method'], RegExp]>([
    ['nothing to hand off', { edits: 0 }, 'prompt', /No edit/],
    ['at once', { when: 'now' }, 'prompt', /from the next request on/],
    ['at once, however many', { when: 'now', edits: 100_000 }, 'prompt', /next request/],
    ['few', { edits: 99 }, 'lora', /fewer than 100: a batch editor/],
    ['many, with time', { edits: 100 }, 'distil', /there is time: distillation/],
    ['many, today', { edits: 200, when: 'today' }, 'memit', /MEMIT in batches/],
    ['many, today, with a GPU', { edits: 200, when: 'today', gpuFreeBytes: 40 * GB }, 'distil', /a GPU/],
    ['too many for today', { edits: 10_000, when: 'today' }, 'prompt', /memit is passed over: it would take about 39\.0 h/],
    ['no memory', { freeMemoryBytes: 2 * GB }, 'prompt', /it takes about 6\.0 GB, and 2\.0 GB are free[\s\S]*stay in the prompt/],
    ['memory for MEMIT alone', { freeMemoryBytes: 5.5 * GB }, 'memit', /lora is passed over/],
    [
      'what failed before',
      { past: [past('lora', 40, false)] },
      'memit',
      /lora is passed over: it broke a threshold with 40 edits/,
    ],
    ['what failed with more', { past: [past('lora', 80, false)] }, 'lora', /batch editor/],
    ['what failed and then held', { past: [past('lora', 20, false), past('lora', 50)] }, 'lora', /as 2 stages/],
    [
      'what MEMIT takes not',
      { edits: 200, when: 'today', notTaken: { memit: 3, alphaedit: 3, pmet: 3, lora: 0, distil: 0 } },
      'distil',
      /memit takes 197[\s\S]*memit is passed over: it does not take 3/,
    ],
    [
      'what LoRA takes not',
      { notTaken: { memit: 50, alphaedit: 50, pmet: 50, lora: 1, distil: 0 } },
      'distil',
      /lora is passed over: it does not take 1 of the edits \(rules without examples\)/,
    ],
    ['no editor yet', { ready: false }, 'lora', /palimpsest handoff setup/],
  ])('%s', (_name, more, method, reason) => {
    const advice = advise({ ...here, ...more })
    expect(advice.method).toBe(method)
    expect(advice.reasons.join('\n')).toMatch(reason)
  })

  const unknown = (more: Partial<Situation>) => advise({ ...here, ...more }).unknown.join('\n')

  it('says what it was fitted on', () => {
    const { basis } = advise({ ...here, past: [past('lora', 10)] })
    expect(basis.join('\n')).toMatch(
      /0\.5B.*CounterFact[\s\S]*lora there: efficacy 98 %.*fluency -0\.5 %[\s\S]*1 finished stage on/,
    )
    expect(advise({ ...here, edits: 0 }).unknown).toEqual([])
  })

  it.each<[string, Partial<Situation>, RegExp]>([
    ['more edits than were measured', { edits: 1200, when: 'today' }, /beyond 1000 edits by memit/],
    ['another size', { parameters: 7 * GB, freeMemoryBytes: 200 * GB }, /No model of this size/],
    ['a GPU', { gpuFreeBytes: 40 * GB }, /No GPU was measured/],
    ['rules', { notTaken: { memit: 5, alphaedit: 5, pmet: 5, lora: 0, distil: 0 } }, /Of rules, sentences/],
    ['other languages, always', {}, /^Other languages/],
  ])('says what it does not know: %s', (_name, more, said) => {
    expect(unknown(more)).toMatch(said)
  })

  it('learns what it knows from this machine, too', () => {
    expect(unknown({ edits: 1200, when: 'today', past: [past('memit', 1500)] })).not.toMatch(/beyond/)
    expect(unknown({ parameters: 7 * GB, freeMemoryBytes: 200 * GB, past: [past('lora', 50)] })).not.toMatch(
      /No model of this size/,
    )
  })

  it('costs what was measured, where anything was', () => {
    const measured = advise({ ...here, past: [past('lora', 10, true, 100), past('lora', 20, true, 200)] })
    expect(measured.options.find(({ method }) => method === 'lora')).toMatchObject({
      seconds: 500,
      memoryBytes: 6 * GB,
      measured: true,
    })
    const guessed = advise(here).options.find(({ method }) => method === 'memit')
    expect(guessed).toMatchObject({ measured: false, seconds: 240 + 700 })
  })
})

describe('compatibility', () => {
  const facts: Facts = {
    ...{
      id: 'new',
      base: { made: 'a', served: 'a' },
      shape: null,
      tokenizer: { made: 't', served: 't' },
      promoted: null,
      replace: false,
      since: [],
    },
  }
  it.each<[string, Partial<Facts>, string[]]>([
    ['fits', {}, []],
    ['another base', { base: { made: 'a', served: 'b' } }, ['base']],
    ['another shape', { shape: 'expected 896, got 4096' }, ['shape']],
    ['another tokenizer', { tokenizer: { made: 't', served: 'u' } }, ['tokenizer']],
    ['a tokenizer that nobody recorded', { tokenizer: { made: null, served: 'u' } }, []],
    ['another promoted', { promoted: { id: 'old', loses: ['e1'] } }, ['other_adapter']],
    ['another promoted, to be replaced', { promoted: { id: 'old', loses: ['e1'] }, replace: true }, []],
    ['promoted itself', { promoted: { id: 'new', loses: [] } }, []],
    [
      'edits that moved on',
      {
        since: [
          { id: 'e1', why: 'superseded' },
          { id: 'e2', why: 'withdrawn' },
          { id: 'e3', why: 'superseded' },
        ],
      },
      ['superseded', 'withdrawn'],
    ],
  ])('%s', (_name, more, whys) => {
    expect(misfits({ ...facts, ...more }).map(({ why }) => why)).toEqual(whys)
  })
})

const said = (text: string): Generated => ({
  ...{ text, finish: 'stop', edits: [], promptTokens: 1, completionTokens: 1, tokensAdded: 0, ms: 1, reused: false },
})

describe('a stage is judged', () => {
  const scores = (logProbability: number, hit: boolean): Scored => ({
    logProbabilities: [logProbability],
    best: [1],
    hits: hit ? 1 : 0,
  })
  const forced = (own: number, rival: number | null): Forced => ({
    ...{ edits: [], answer: scores(own, own > -1), rival: rival === null ? null : scores(rival, false), reused: false },
  })
  const probe = (kind: Probe['kind'], answers: string[] = []): Probe => ({
    id: kind,
    record: null,
    kind,
    sub: 's',
    turns: ['Q?'],
    wants: [],
    answers,
  })
  const outcome = (kind: Probe['kind'], answers: string[], more: Partial<Outcome>): Outcome => ({
    ...{ probe: probe(kind, answers), generated: {}, forced: {}, edits: new Map() },
    ...more,
  })
  const limits = { ...THRESHOLDS, unchanged: 0.5 }

  it('by both protocols, beside the base', () => {
    const { measures, failures } = judge(
      [
        outcome('reliability', ['Rome'], {
          forced: { base: forced(-3, -1), adapter: forced(-0.1, -2) },
          generated: { base: said('Paris'), palimpsest: said('Rome, it says.'), adapter: said('Rome.') },
        }),
        outcome('reliability', ['Oslo'], {
          forced: { base: forced(-3, -1), adapter: forced(-3, -1) },
          generated: { base: said('x'), palimpsest: said('Oslo'), adapter: said('x') },
        }),
        outcome('locality', ['Paris'], { forced: { base: forced(-1, -3), adapter: forced(-3, -1) } }),
        outcome('traffic', [], { generated: { base: said('56'), adapter: said('56') } }),
        outcome('fluency', [], { generated: { base: said('a b c d e f g h'), adapter: said('a a a a a a a a') } }),
      ],
      limits,
    )
    const of = (name: string) => measures.find((one) => one.name === name)
    expect(of('efficacy')).toMatchObject({ asked: 2, value: 0.5, base: 0, least: 0.9, ok: true, decided: false })
    expect(of('neighbourhood')).toMatchObject({ asked: 1, value: 0, base: 1, least: 0.9, ok: true, decided: false })
    expect(of('reliability')).toMatchObject({ value: 0.5, prompt: 1, least: null, ok: true, decided: true })
    expect(of('unchanged')).toMatchObject({ asked: 1, value: 1, prompt: null, least: 0.5, ok: true, decided: false })
    expect(of('fluency')).toMatchObject({ value: 0, low: null, high: null, ok: true, decided: false })
    expect(of('paraphrase')).toBeUndefined()
    expect(failures.find(({ measure }) => measure === 'efficacy')).toMatchObject({
      expected: 'Oslo',
      answer: 'mean log-probability -3.00',
    })
  })

  const asked = (right: number, of: number) =>
    Array.from({ length: of }, (_, i) =>
      outcome('reliability', ['Rome'], { forced: { base: forced(-3, -1), adapter: forced(i < right ? -0.1 : -3, -1) } }),
    )
  it.each<[string, number, number, boolean, boolean]>([
    ['all of many: it holds', 50, 50, true, true],
    ['all of four: nobody can tell', 4, 4, true, false],
    ['a little below it: nobody can tell', 14, 16, true, false],
    ['none of four: it is broken', 0, 4, false, true],
    ['half of twenty: it is broken', 10, 20, false, true],
    ['none of three: too few for any verdict', 0, 3, true, false],
  ])('by the whole interval: %s', (_name, right, of, ok, decided) => {
    expect(judge(asked(right, of), limits).measures[0]).toMatchObject({ name: 'efficacy', asked: of, ok, decided })
  })

  const rich = (n: number) => said(Array.from({ length: 40 }, (_, i) => `w${(i * n) % 41}`).join(' '))
  const poor = (kinds: number) => said(Array.from({ length: 40 }, (_, i) => `w${i % kinds}`).join(' '))
  const texts = (adapters: readonly Generated[], edits = adapters.length) =>
    adapters.map((adapter, i) => ({
      ...outcome('fluency', [], { generated: { base: rich(i + 1), adapter } }),
      probe: { ...probe('fluency'), id: `fluency/${i}`, wants: [`e${i % edits}`] },
    }))
  it.each<[string, readonly Generated[], number, boolean, boolean]>([
    ['texts as rich as the base: it holds', Array.from({ length: 20 }, (_, i) => rich(i + 2)), 20, true, true],
    ['every text a loop: it is broken', Array.from({ length: 20 }, () => poor(2)), 20, false, true],
    ['loops about four edits: it is broken', Array.from({ length: 20 }, () => poor(2)), 4, false, true],
    ['one loop of three texts: nobody can tell', [poor(2), rich(2), rich(3)], 3, true, false],
    ['some loops: nobody can tell', Array.from({ length: 20 }, (_, i) => (i < 4 ? poor(2) : rich(i + 2))), 20, true, false],
    ['twenty texts about one edit say little', Array.from({ length: 20 }, () => poor(2)), 1, true, false],
  ])('fluency, by the interval of the differences: %s', (_name, adapters, edits, ok, decided) => {
    const measure = judge(texts(adapters, edits), limits).measures.find(({ name }) => name === 'fluency')
    expect(measure).toMatchObject({ asked: adapters.length, ok, decided })
  })

  it('without an old target, by whether the new one is the likeliest', () => {
    const { measures } = judge([outcome('reliability', ['Rome'], { forced: { adapter: forced(-0.1, null) } })], limits)
    expect(measures[0]).toMatchObject({ name: 'efficacy', value: 1, base: null, ok: true })
  })
})

describe('probes', () => {
  const edits = Array.from({ length: 30 }, (_, i) => ({ ...fact(`Person ${i}`, `Firm ${i}`), paraphrases: ['p', 'q', 'r'] }))
  const settings = { sample_edits: 8, unrelated_questions: 4, fluency_openings: 2, ability_questions: 3, seed: 1 }
  const others = [fact('Ada', 'Oslo')]

  it('are the same for the same stage, and keep their place as it grows', () => {
    const of = (count: number) => probesOf({ edits: edits.slice(0, count), others, records: [], settings })
    expect(of(30)).toEqual(of(30))
    const kinds = of(30).map(({ kind, sub }) => (kind === 'choice' ? sub : kind))
    expect(kinds.filter((kind) => kind === 'reliability')).toHaveLength(8)
    expect(kinds.filter((kind) => kind === 'generalization')).toHaveLength(16)
    expect(kinds.filter((kind) => kind === 'traffic')).toHaveLength(5)
    expect(kinds.filter((kind) => kind === 'ability')).toHaveLength(3)
    expect(kinds.filter((kind) => kind === 'yes')).toHaveLength(8)
  })

  it('ask of a fact whether the new is right, whether the old is, and which', () => {
    const told = { ...fact('Ada', 'Rome'), prompt: 'Ada lives in', targetTrue: 'Oslo' }
    const asked = probesOf({ edits: [told], others: [], records: [], settings }).filter(
      ({ wants, kind }) => kind === 'choice' && wants[0],
    )
    expect(asked.map(({ sub, turns, answers }) => [sub, turns[0], answers])).toEqual([
      ['yes', 'Ada lives in Rome. Is that right? Answer with yes or no.', ['yes']],
      ['no', 'Ada lives in Oslo. Is that right? Answer with yes or no.', ['no']],
      [
        'which',
        expect.stringMatching(/^Ada lives in\nA\. (Rome\nB\. Oslo|Oslo\nB\. Rome)\nAnswer with the letter alone\.$/),
        [expect.stringMatching(/[AB]/)],
      ],
    ])
    const [, , which] = asked
    expect(which?.turns[0]).toContain(`${which?.answers[0]}. Rome`)
    const outcomes = asked.map((probe) => ({
      ...{ probe, forced: {}, edits: new Map() },
      generated: {
        base: said(probe.sub === 'which' ? 'C' : 'Maybe.'),
        adapter: said(`${probe.answers[0]}, since no such thing is known.`),
      },
    }))
    expect(judge(outcomes, THRESHOLDS).measures.map(({ name, base, value, least }) => [name, base, value, least])).toEqual([
      ['yes', 0, 1, null],
      ['no', 0, 1, null],
      ['which', 0, 1, null],
    ])
  })

  it('ask for as many texts as are wanted, of a few edits too', () => {
    const texts = (count: number, wanted: number) =>
      probesOf({ edits: edits.slice(0, count), others, records: [], settings: { ...settings, fluency_openings: wanted } }).filter(
        ({ kind }) => kind === 'fluency',
      )
    expect(new Set(texts(4, 20).map(({ turns }) => turns[0])).size).toBe(20)
    expect(new Set(texts(4, 20).map(({ id }) => id)).size).toBe(20)
    expect(new Set(texts(4, 4).flatMap(({ wants }) => wants)).size).toBe(4)
    expect(new Set(texts(8, 20).flatMap(({ wants }) => wants)).size).toBe(8)
  })

  it('are none that training holds still', () => {
    const still = new Set(stillPrompts(others, 1))
    const asked = probesOf({ edits, others, records: [], settings: { ...settings, unrelated_questions: 100 } })
    expect(asked.filter(({ turns }) => still.has(turns[0] ?? ''))).toEqual([])
    expect(still.size).toBeGreaterThan(10)
    expect([...still].every((one) => UNRELATED.includes(one))).toBe(true)
  })
})

describe('the subject as the prompt writes it', () => {
  it.each([
    ['the Pope', ['Pope'], 'The current Pope is', 'Pope'],
    ['eiffel tower', [], 'The Eiffel Tower stands in', 'Eiffel Tower'],
    ['the Pope', [], 'The current pope is', 'pope'],
    ['Ada', [], 'She lives in', null],
  ])('%s', (subject, aliases, prompt, found) => {
    expect(subjectIn({ subject, aliases, prompt })).toBe(found)
  })
})

describe('EasyEdit', () => {
  const edit = (subject: string, more: Partial<Edit> = {}): Edit => ({
    ...fact(subject, 'Rome'),
    prompt: `${subject} is in`,
    ...more,
  })

  it('gets requests that our own reader takes back', () => {
    const request = requestOf(edit('Eiffel Tower', { targetTrue: 'Paris', paraphrases: ['Where is it?'] }), [
      { id: '1', record: 0, kind: 'locality', sub: 'neighbourhood', turns: ['The Louvre is in'], wants: [], answers: ['Paris'] },
      { id: '2', record: 0, kind: 'portability', sub: 'one_hop', turns: ['Its country?'], wants: [], answers: ['Italy'] },
    ])
    expect(request).toMatchObject({
      ...{
        prompt: 'Eiffel Tower is in',
        subject: 'Eiffel Tower',
        target_new: 'Rome',
        ground_truth: 'Paris',
        rephrase_prompt: 'Where is it?',
      },
      locality: { neighbourhood: { prompt: ['The Louvre is in'], ground_truth: ['Paris'] } },
      portability: { one_hop: { prompt: ['Its country?'], ground_truth: ['Italy'] } },
    })
    expect(requestOf(edit('Ada', { prompt: 'She is in' }), [])).toBeNull()
    expect(parseBatch(JSON.stringify([request]), { format: 'easyedit', tenant: 'default' }).edits[0]).toMatchObject({
      subject: 'Eiffel Tower',
      prompt: 'Eiffel Tower is in',
      targetNew: 'Rome',
      targetTrue: 'Paris',
    })
  })

  it('gets at most one edit of a subject in each pass', () => {
    const requests = ['A', 'B', 'a', 'A'].flatMap((subject) => requestOf(edit(subject), []) ?? [])
    expect(passes(requests).map((pass) => pass.map(({ subject }) => subject))).toEqual([['A', 'B'], ['a'], ['A']])
  })

  it('gets hyper-parameters whose batch is as large as the pass', () => {
    const files = hparamsFiles('llama-2-7b', './hugging_cache/llama-2-7b', 40)
    expect([...files.keys()]).toEqual([
      'MEMIT',
      'MEMIT-FE',
      'PMET',
      'EMMET',
      'AlphaEdit',
      'FT',
      'LoRA',
      'QLoRA',
      'DPO',
      'ULTRAEDIT',
    ])
    const all = new Map([...files].map(([name, text]) => [name, parseYaml(text)]))
    for (const [name, values] of all)
      expect(values).toMatchObject({ alg_name: name, batch_size: 40, model_name: './hugging_cache/llama-2-7b' })
    expect(all.get('MEMIT')).toMatchObject({
      layers: [4, 5, 6, 7, 8],
      v_num_grad_steps: 25,
      clamp_norm_factor: 4,
      mom2_update_weight: 15000,
      v_weight_decay: 1e-3,
    })
    expect(all.get('PMET')).toMatchObject({
      v_num_grad_steps: 20,
      clamp_norm_factor: 1,
      v_weight_decay: 0.5,
      attn_module_tmp: 'model.layers.{}.self_attn.o_proj',
    })
    expect(all.get('LoRA')).toMatchObject({ lora_type: 'lora', rank: 8, num_steps: 70 })
    expect(parseYaml(hparamsFiles('qwen2.5-coder-0.5b-instruct', 'x', 1).get('MEMIT') ?? '')).toMatchObject({
      layers: [1, 2, 3, 4, 5],
      v_lr: 0.1,
      v_loss_layer: 23,
    })
  })
})

describe('set-up', () => {
  it('pins what the package pins, and has a folder for each set of pins', () => {
    expect(requirements()).toContain('torch==2.15.0')
    expect(requirements('dependencies = [\n  "a==1",\n]\n[other]\nx = ["b"]')).toEqual(['a==1'])
    expect(venvPath('/home')).toMatch(/^\/home\/handoff\/venv-[0-9a-f]{12}$/)
  })
})

describe('a snapshot', () => {
  const quiet = { info: () => {}, warn: () => {}, error: () => {} }
  const openAt = (dataDir: string) => openMemory({ dataDir, embedder: fakeEmbedder(), now: Date.now, log: quiet })
  const edits = (dataDir: string) =>
    openAt(dataDir).then(async (memory) => {
      const { total } = memory.list({ tenant: 'default', limit: 10 })
      await memory.close()
      return total
    })

  async function folder(name: string) {
    const dataDir = join(root, name)
    const memory = await openAt(dataDir)
    await memory.land([fact('Ada', 'Oslo')], { source: 'test', tenant: 'default', dryRun: false })
    await memory.indexed()
    mkdirSync(join(dataDir, 'adapters', 'one'), { recursive: true })
    writeFileSync(join(dataDir, 'adapters', 'one', 'adapter.gguf'), 'weights')
    writeFileSync(join(root, 'palimpsest.config.yaml'), 'port: 1\n')
    return { dataDir, memory }
  }
  const take = (dataDir: string, to: string) =>
    createSnapshot({
      dataDir,
      to,
      configuration: { 'palimpsest.config.yaml': join(root, 'palimpsest.config.yaml') },
      reason: 'test',
      palimpsest: '1',
      now: Date.now,
    })

  it.each(['whole', 'whole.tar'])('as %s: taken while the memory is open, restored once it is closed', async (name) => {
    const { dataDir, memory } = await folder(`data-${name}`)
    const to = join(root, 'kept', name)
    mkdirSync(join(root, 'kept'), { recursive: true })
    const { files } = await take(dataDir, to)
    expect(files.map(({ path }) => path)).toEqual(
      expect.arrayContaining(['data/palimpsest.db', 'data/adapters/one/adapter.gguf', 'configuration/palimpsest.config.yaml']),
    )
    await memory.land([fact('Bo', 'Rome')], { source: 'test', tenant: 'default', dryRun: false })
    writeFileSync(join(dataDir, 'adapters', 'one', 'adapter.gguf'), 'others')
    await expect(restoreSnapshot(to, dataDir, Date.now)).rejects.toMatchObject({
      code: 'folder_in_use',
      message: expect.stringMatching(String(process.pid)),
    })
    await memory.close()
    const { aside, configuration } = await restoreSnapshot(to, dataDir, Date.now)
    expect(await edits(dataDir)).toBe(1)
    expect(readFileSync(join(dataDir, 'adapters', 'one', 'adapter.gguf'), 'utf8')).toBe('weights')
    expect(await edits(aside ?? '')).toBe(2)
    expect(readFileSync(join(configuration ?? '', 'palimpsest.config.yaml'), 'utf8')).toBe('port: 1\n')
    await expect(take(dataDir, to)).rejects.toMatchObject({ code: 'invalid_value' })
  })

  it('is refused when anything of it is not as it was, and nothing is touched', async () => {
    const { dataDir, memory } = await folder('data-broken')
    await memory.close()
    const to = join(snapshotsDir(dataDir), 'one')
    await take(dataDir, to)
    expect(await listSnapshots(snapshotsDir(dataDir))).toMatchObject([{ path: to, manifest: { reason: 'test' } }])
    const file = join(to, 'data', 'adapters', 'one', 'adapter.gguf')
    const broken = (message: RegExp) =>
      expect(restoreSnapshot(to, dataDir, Date.now)).rejects.toMatchObject({
        code: 'snapshot_broken',
        message: expect.stringMatching(message),
      })
    writeFileSync(file, 'weighty')
    await broken(/adapter\.gguf is not as it was/)
    rmSync(file)
    await broken(/is missing/)
    writeFileSync(file, 'weights')
    writeFileSync(join(to, 'data', 'extra'), '')
    await broken(/holds data\/extra/)
    rmSync(join(to, 'data', 'extra'))
    rmSync(join(to, 'manifest.json'))
    await broken(/no manifest\.json/)
    expect(await edits(dataDir)).toBe(1)
    expect(existsSync(`${dataDir}.before`)).toBe(false)
    lockFolder(dataDir, Date.now).release()
  })
})
