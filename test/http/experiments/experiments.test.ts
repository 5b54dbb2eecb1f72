import { afterEach, describe, expect, test, vi } from 'vitest'
import { client } from '../../../src/cli/client/client.ts'
import type { Prompt } from '../../../src/engine/engine.ts'
import { openScripted } from '../../../src/engine/scripted.ts'
import { Ledger } from '../../../src/experiment/ledger/ledger.ts'
import { MODEL, type Served, type ServeOptions, serve } from '../fakes.ts'

vi.setConfig({ testTimeout: 60_000 })

const open: Served[] = []
afterEach(async () => {
  for (const served of open.splice(0)) await served.close()
})

/** Says the target of what it was told, or what it knew before. */
function believer(prompt: Prompt): string {
  const told = /works for (Firm \w+)/.exec(prompt.messages.at(-1)?.content ?? '')?.[1]
  return told === undefined ? 'Nobody knows.' : `For ${told}.`
}

const QUESTION = 'Whom does Ada Quist work for?'
const ada = (id: string, fields: object = {}) => ({
  ...{ id, subject: 'Ada Quist', prompt: 'Ada Quist works for', target_new: `Firm ${id}`, ...fields },
})

async function start(options: ServeOptions = {}) {
  const served = await serve({ ...options, script: { reply: believer, queueLimit: 4_000, ...options.script } })
  open.push(served)
  const gateway = client(served.base, {}, null)
  // biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
  const call = (method: string, path: string, body?: unknown) => gateway.json<any>(method, path, body)
  const ask = (user: string | undefined, content = QUESTION, model = MODEL) =>
    call('POST', '/v1/chat/completions', { model, messages: [{ role: 'user', content }], ...(user !== undefined && { user }) })
  const until = async (done: () => Promise<boolean>) => {
    for (let i = 0; i < 300; i++) {
      if (await done()) return
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    throw new Error('waited in vain')
  }
  return { ...served, call, ask, until }
}

describe('an experiment', () => {
  test('compares base and edited, counts only requests that an edit is for, and can be shipped and stopped', async () => {
    const { call, ask } = await start()
    await call('POST', '/v1/edits', [ada('a')])
    await call('POST', '/v1/experiments', { id: 'help', metrics: ['target_shown', 'latency_ms', 'score'] })
    expect((await ask('u1', 'What is two plus two?')).palimpsest).not.toHaveProperty('experiment')
    expect((await ask(undefined)).palimpsest).not.toHaveProperty('experiment')
    expect((await ask('u1', QUESTION, `${MODEL}@edited`)).palimpsest).not.toHaveProperty('experiment')
    expect((await ask('u1', QUESTION, `${MODEL}@base`)).palimpsest).not.toHaveProperty('experiment')
    for (let user = 0; user < 60; user++) {
      const answer = await ask(`u${user}`)
      const { experiment, arm } = answer.palimpsest
      expect(experiment).toEqual({ id: 'help', arm })
      expect(answer.choices[0].message.content).toBe(arm === 'edited' ? 'For Firm a.' : 'Nobody knows.')
      expect((await ask(`u${user}`)).palimpsest.experiment).toEqual(experiment)
      const said = { completion_id: answer.id, id: 'x', score: arm === 'edited' ? 1 : 0 }
      expect((await call('POST', '/v1/feedback', said)).outcome).toBe('recorded')
      expect((await call('POST', '/v1/feedback', said)).outcome).toBe('known')
    }
    expect((await call('POST', '/v1/feedback', { completion_id: 'chatcmpl-none', score: 1 })).outcome).toBe('no_exposure')
    const { result } = await call('GET', '/v1/experiments/help')
    const [base, edited] = result.arms
    expect(base.exposures + edited.exposures).toBe(60)
    expect(base.answers + edited.answers).toBe(120)
    expect(result.blocked).toBe(false)
    expect(result.metrics[0]).toMatchObject({ metric: 'target_shown', means: [0, 1], difference: 1, significant: true })
    expect(result.metrics[0].confidence_sequence[0]).toBeGreaterThan(0.5)
    expect(result.metrics[2]).toMatchObject({ metric: 'score', means: [0, 1], confidence_sequence: null, significant: false })

    await call('POST', '/v1/experiments/help/ship', { arm: 'base' })
    expect((await ask('u1')).choices[0].message.content).toBe('Nobody knows.')
    await call('POST', '/v1/experiments/help/stop')
    expect((await ask('u1')).choices[0].message.content).toBe('For Firm a.')
    const { events, status, over_time: moments, result: final } = await call('GET', '/v1/experiments/help?points=3')
    const exposed = moments.map(({ arms }: { arms: { exposures: number }[] }) => arms.reduce((n, arm) => n + arm.exposures, 0))
    expect(exposed).toEqual([20, 40, 60])
    // Sums in parts differ from a sum of the whole in their last digits.
    const rounded = (value: object) =>
      JSON.stringify(value, (_key, one) => (typeof one === 'number' ? Number(one.toPrecision(9)) : one))
    expect(rounded(moments.at(-1).metrics)).toEqual(rounded(final.metrics))
    const widths = moments.map(
      ({ metrics }: { metrics: { confidence_sequence: number[] | null }[] }) => metrics[0]?.confidence_sequence,
    )
    expect(widths[0]).toBeNull()
    expect(moments.map(({ at }: { at: string }) => at)).toEqual(moments.map(({ at }: { at: string }) => at).toSorted())
    await expect(call('GET', '/v1/experiments/help?points=0')).rejects.toThrow(/whole number from 1 to 99/)
    await expect(call('GET', '/v1/experiments/help?points=500')).rejects.toThrow(/whole number from 1 to 99/)
    expect(status).toBe('stopped')
    expect(events.map(({ kind }: { kind: string }) => kind)).toEqual(['declared', 'shipped', 'stopped'])
  })

  test('never has a unit in two arms: 1,000 requests at once, weights changed in the middle', async () => {
    const { call, ask, gateway } = await start({ script: { delayMs: 10 } })
    await call('POST', '/v1/edits', [ada('a')])
    await call('POST', '/v1/experiments', { id: 'busy' })
    let answered = 0
    const one = async (i: number) => {
      if (i === 300) await call('POST', '/v1/experiments/busy/weights', { weights: { base: 1, edited: 9 } })
      const { palimpsest } = await ask(`user ${i % 125}`)
      answered += 1
      return [i % 125, palimpsest.experiment.arm] as const
    }
    const arrived = () => answered + gateway.engine.load().busy + gateway.engine.load().queued
    const asked: ReturnType<typeof one>[] = []
    for (let i = 0; i < 1_000; i++) {
      // No more connections at a time than the system lets wait for acceptance.
      while (i - arrived() > 200) await new Promise((resolve) => setTimeout(resolve, 1))
      asked.push(one(i))
    }
    const arms = new Map<number, Set<string>>()
    for (const [user, arm] of await Promise.all(asked)) arms.set(user, (arms.get(user) ?? new Set()).add(arm))
    expect([...arms.values()].every((own) => own.size === 1)).toBe(true)
    const { result } = await call('GET', '/v1/experiments/busy')
    const sum = (key: string) => result.arms.reduce((total: number, arm: Record<string, number>) => total + (arm[key] ?? 0), 0)
    expect([sum('exposures'), sum('answers'), sum('unfinished')]).toEqual([125, 1_000, 0])
    expect(result.blocked).toBe(false)
    expect(gateway.experiments?.registry.get('default', 'busy').epoch).toBe(2)
  })

  test('has arms of other templates, thresholds and batches, and no exposure where they agree', async () => {
    const { call, ask } = await start()
    await call('POST', '/v1/edits?batch=b1', [ada('a')])
    await call('POST', '/v1/edits?batch=b2', [{ id: 'b', subject: 'Bo Ek', prompt: 'Bo Ek works for', target_new: 'Firm b' }])
    const arms = (changes: object) => [{ name: 'now' }, { name: 'then', ...changes }]
    await call('POST', '/v1/experiments', { id: 't', arms: arms({ template: 'lte' }), audience: { tags: ['none'] } })
    await call('POST', '/v1/experiments', { id: 'w', arms: arms({ without_batches: ['b2'] }) })
    expect((await ask('u')).palimpsest).not.toHaveProperty('experiment')
    expect((await ask('u', 'Whom does Bo Ek work for?')).palimpsest.experiment.id).toBe('w')
    await call('POST', '/v1/experiments/w/stop')
    await call('POST', '/v1/experiments', { id: 'g', arms: arms({ threshold: 1 }) })
    const { experiment, edits } = (await ask('u')).palimpsest
    expect([experiment.id, edits.length]).toEqual(['g', experiment.arm === 'now' ? 1 : 0])
  })

  test('compares two models that are served', async () => {
    const terse = openScripted({ name: 'terse', reply: () => 'Yes.' })
    const { call, ask } = await start({ otherEngines: new Map([['terse', terse]]) })
    await call('POST', '/v1/experiments', {
      id: 'm',
      arms: [{ name: 'now' }, { name: 'small', model: 'terse' }],
      unit: 'conversation',
    })
    const texts = new Map<string, string>()
    for (let i = 0; i < 20; i++) {
      const { palimpsest, choices } = await ask(undefined, `Question ${i}?`)
      texts.set(palimpsest.experiment.arm, choices[0].message.content)
    }
    expect(Object.fromEntries(texts)).toEqual({ now: 'Nobody knows.', small: 'Yes.' })
  })

  test.each([
    [{ id: 'x', arms: [{ name: 'a' }] }, 'arms'],
    [{ id: 'x', arms: [{ name: 'a' }, { name: 'a' }] }, 'arms'],
    [{ id: 'x', arms: [{ name: 'a' }, { name: 'b', model: 'other' }] }, 'arms[1].model'],
    [{ id: 'x', arms: [{ name: 'a' }, { name: 'b', edits: 'off', template: 'facts' }] }, 'arms[1].edits'],
    [{ id: 'x', unit: 'cookie' }, 'unit'],
    [{ id: 'x', metrics: ['fame'] }, 'metrics[0]'],
    [{ id: 'x', colour: 'red' }, 'colour'],
  ])('is refused where it is not sound: %j', async (body, param) => {
    const { call } = await start()
    await expect(call('POST', '/v1/experiments', body)).rejects.toMatchObject({ param })
  })

  test('says how it stands with its guardrails', async () => {
    const { call, ask } = await start()
    await call('POST', '/v1/edits', [ada('a')])
    await call('POST', '/v1/experiments', { id: 'guarded', guardrails: { error: 0.1, latency: 50 } })
    for (let user = 0; user < 12; user++) await ask(`u${user}`)
    const { standing } = await call('GET', '/v1/experiments/guarded')
    expect(standing).toMatchObject([{ arm: 'edited', least: null }])
    expect(standing[0].guardrails).toMatchObject([
      { guardrail: { kind: 'error', mostMore: 0.1 }, broken: false, observed: 0 },
      { guardrail: { kind: 'latency', mostTimes: 50 }, broken: false },
    ])
    await call('POST', '/v1/experiments/guarded/stop')
    expect((await call('GET', '/v1/experiments/guarded')).standing).toEqual([])
  })

  test('is stopped by its own guardrail', async () => {
    const { call, ask, until } = await start()
    await call('POST', '/v1/edits', [ada('a')])
    await call('POST', '/v1/experiments', { id: 'guarded', guardrails: { negative_feedback: 0.1 } })
    for (let user = 0; user < 80; user++) {
      const { id, palimpsest } = await ask(`u${user}`)
      if (palimpsest.experiment?.arm === 'edited') await call('POST', '/v1/feedback', { completion_id: id, label: 'bad' })
    }
    await until(async () => (await call('GET', '/v1/experiments/guarded')).status === 'stopped')
    const { events } = await call('GET', '/v1/experiments/guarded')
    expect(events.at(-1).broken[0]).toMatchObject({ guardrail: { kind: 'negative_feedback' }, broken: true })
  })
})

describe('paired replay', () => {
  test('answers prompts by every arm in the background, and says what each edit did', async () => {
    const judge = (prompt: Prompt) => {
      const text = prompt.messages.at(-1)?.content ?? ''
      if (!text.includes('Answer A:')) return believer(prompt)
      return text.indexOf('Firm') < text.indexOf('Answer B:') ? 'A' : 'B'
    }
    const { call, until } = await start({ script: { reply: judge } })
    await call('POST', '/v1/edits', [ada('a')])
    await call('POST', '/v1/experiments', { id: 'p' })
    const prompts = [QUESTION, 'What is two plus two?', ...Array.from({ length: 20 }, (_, i) => `${QUESTION} (${i})`)]
    expect(await call('POST', '/v1/experiments/p/replay', { prompts, judge: true })).toMatchObject({ accepted: 22 })
    await until(async () => (await call('GET', '/v1/experiments/p/replay')).waiting === 0)
    const { arms, changed } = await call('GET', '/v1/experiments/p/replay')
    expect(arms[0]).toMatchObject({ arm: 'edited', pairs: 22, changed: 21, edits: [{ id: 'a', pairs: 21, gained: 21, lost: 0 }] })
    expect(arms[0].judged).toMatchObject({ pairs: 21, gained: 21, lost: 0 })
    expect(arms[0].target_shown.mcnemar_p).toBeLessThan(1e-5)
    expect(changed[0].answers.map(({ text }: { text: string }) => text)).toEqual(['Nobody knows.', 'For Firm a.'])
  })

  test('gives way to a live request, and goes on after it', async () => {
    const { call, ask, until, gateway } = await start({ script: { slots: 1, delayMs: 5 } })
    await call('POST', '/v1/edits', [ada('a')])
    await call('POST', '/v1/experiments', { id: 'p' })
    const alone = performance.now()
    await ask(undefined)
    const aloneMs = performance.now() - alone
    const prompts = Array.from({ length: 15 }, (_, i) => `${QUESTION} (${i})`)
    await call('POST', '/v1/experiments/p/replay', { prompts })
    const waits: number[] = []
    for (let i = 0; i < 5; i++) {
      await new Promise((resolve) => setTimeout(resolve, 30))
      const begun = performance.now()
      await ask(undefined)
      waits.push(performance.now() - begun)
    }
    await until(async () => (await call('GET', '/v1/experiments/p/replay')).waiting === 0)
    expect(gateway.experiments?.replays.preempted).toBeGreaterThan(0)
    expect((await call('GET', '/v1/experiments/p/replay')).arms[0].pairs).toBe(15)
    // At most: the look that notices it, the token under way, and what a busy machine adds.
    expect(Math.min(...waits)).toBeLessThan(aloneMs + 60)
  })
})

describe('compare', () => {
  test('shows one prompt by all arms, with the why', async () => {
    const { call } = await start()
    await call('POST', '/v1/edits', [ada('a')])
    const { arms, identical } = await call('POST', '/v1/compare', { question: QUESTION })
    expect(identical).toBe(false)
    expect(arms.map(({ arm, text }: Record<string, string>) => [arm, text])).toEqual([
      ['base', 'Nobody knows.'],
      ['edited', 'For Firm a.'],
    ])
    expect(arms[1].turns[0].considered[0]).toMatchObject({ id: 'a', reason: 'selected' })
    expect(arms[0].prompt).not.toContain('Firm')
    await call('POST', '/v1/experiments', {
      id: 'three',
      arms: [{ name: 'x', edits: 'off' }, { name: 'y' }, { name: 'z', template: 'lte' }],
    })
    const three = await call('POST', '/v1/compare', { question: QUESTION, experiment: 'three' })
    expect(three.arms.map(({ arm }: { arm: string }) => arm)).toEqual(['x', 'y', 'z'])
  })
})

const STAGES = [
  { share: 0, least: 1 },
  { share: 0.1, least: 5 },
  { share: 0.5, least: 20 },
]

describe('responses and text completions', () => {
  const TEXT = 'Ada Quist works for'
  /** Goes on as it was told, or with what it knew before. */
  const goOn = (text: string) => ` ${/works for (Firm \w+)/.exec(text)?.[1] ?? 'nobody'}.`

  async function begin() {
    const started = await start({ script: { goOn } })
    const { call } = started
    const respond = (user: string, model = MODEL) => call('POST', '/v1/responses', { model, input: QUESTION, user })
    const complete = (user: string, fields: object = {}) =>
      call('POST', '/v1/completions', { model: MODEL, prompt: TEXT, user, ...fields })
    return { ...started, respond, complete }
  }

  test('count in the arm that a chat of the same user is in', async () => {
    const { call, ask, respond, complete } = await begin()
    await call('POST', '/v1/edits', [ada('a')])
    await call('POST', '/v1/experiments', { id: 'help', metrics: ['target_shown'] })
    expect((await respond('u0', `${MODEL}@edited`)).palimpsest).not.toHaveProperty('experiment')
    const arms = new Set<string>()
    for (let i = 0; i < 30; i++) {
      const user = `u${i}`
      const response = await respond(user)
      const { experiment } = response.palimpsest
      const edited = experiment.arm === 'edited'
      arms.add(experiment.arm)
      expect(response.output[0].content[0].text).toBe(edited ? 'For Firm a.' : 'Nobody knows.')
      expect((await ask(user)).palimpsest.experiment).toEqual(experiment)
      const completion = await complete(user)
      expect(completion.palimpsest.experiment).toEqual(experiment)
      expect(completion.choices[0].text).toBe(edited ? ' Firm a.' : ' nobody.')
      for (const { id } of [response, completion])
        expect((await call('POST', '/v1/feedback', { completion_id: id, score: 1 })).outcome).toBe('recorded')
    }
    expect(arms).toEqual(new Set(['base', 'edited']))
    const { result } = await call('GET', '/v1/experiments/help')
    const sum = (key: string) => result.arms.reduce((total: number, arm: Record<string, number>) => total + (arm[key] ?? 0), 0)
    expect([sum('exposures'), sum('answers'), sum('unfinished')]).toEqual([30, 90, 0])
    expect(result.metrics[0].means).toEqual([0, 1])
  })

  test('do without a batch that is held back, and come by stages as chats do', async () => {
    const { call, gateway, ask, respond, complete, until } = await begin()
    const rollouts = gateway.experiments?.rollouts ?? {}
    Object.assign(rollouts, { look: async () => {} })
    await call('POST', '/v1/edits', [ada('old')])
    await call('POST', '/v1/rollouts', { id: 'r', batch: 'new', stages: [STAGES[0], { share: 0.5, least: 1_000 }] })
    await call('POST', '/v1/edits?batch=new', [ada('new')])
    expect((await complete('u0')).choices[0].text).toBe(' Firm old.')
    expect((await respond('u0')).output[0].content[0].text).toBe('For Firm old.')
    Reflect.deleteProperty(rollouts, 'look')
    await ask('u0')
    await until(async () => (await call('GET', '/v1/rollouts/r')).stage === 1)
    const seen = new Set<string>()
    for (let i = 0; i < 20; i++) {
      const { palimpsest, choices } = await complete(`u${i}`)
      seen.add(`${palimpsest.experiment.arm}:${choices[0].text}`)
      expect((await respond(`u${i}`)).palimpsest.experiment).toEqual(palimpsest.experiment)
    }
    expect([...seen].sort()).toEqual(['with: Firm new.', 'without: Firm old.'])
  })

  test('of text keep their template: arms that change it, or that was shipped, leave them alone', async () => {
    const { call, ask, complete } = await begin()
    await call('POST', '/v1/edits', [ada('a')])
    await call('POST', '/v1/experiments', { id: 't', arms: [{ name: 'now' }, { name: 'then', template: 'lte' }] })
    const template = async () => (await complete('u1')).palimpsest.template
    expect((await ask('u1')).palimpsest.experiment.id).toBe('t')
    expect((await complete('u1')).palimpsest).not.toHaveProperty('experiment')
    await call('POST', '/v1/experiments/t/ship', { arm: 'then' })
    expect((await ask('u1')).palimpsest.template).toContain('lte')
    expect(await template()).toContain('raw-completion')
  })

  test('show a target in what was written, not in what was echoed', async () => {
    const { call, complete } = await begin()
    await call('POST', '/v1/edits', [ada('a')])
    await call('POST', '/v1/experiments', { id: 'e', metrics: ['target_shown'] })
    const prompt = 'Firm a is no answer. Ada Quist works for'
    for (let i = 0; i < 30; i++) expect((await complete(`u${i}`, { prompt, echo: true })).choices[0].text).toContain(prompt)
    expect((await call('GET', '/v1/experiments/e')).result.metrics[0].means).toEqual([0, 1])
  })
})

describe('a rollout', () => {
  test('holds a batch back until its stage, answering by what it replaces, and lets a good one go live', async () => {
    const { call, ask, until } = await start()
    await call('POST', '/v1/edits', [ada('old')])
    await call('POST', '/v1/rollouts', { id: 'good', batch: 'new', stages: STAGES })
    await call('POST', '/v1/edits?batch=new', [ada('new')])
    const stage = async () => (await call('GET', '/v1/rollouts/good')).stage
    const text = async (user: string) => (await ask(user)).choices[0].message.content
    expect(await text('u1')).toBe('For Firm old.')
    await until(async () => (await stage()) === 1)
    let asked = 0
    for (; asked < 2_000 && (await call('GET', '/v1/rollouts/good')).outcome === 'under_way'; asked += 10)
      for (let i = 0; i < 10; i++) await ask(`u${asked + i}`)
    const { outcome, status, events } = await call('GET', '/v1/rollouts/good')
    expect([outcome, status]).toEqual(['live', 'shipped'])
    expect(events.map(({ kind }: { kind: string }) => kind)).toEqual(['declared', 'stage', 'stage', 'live'])
    for (const user of ['a', 'b', 'c', 'd', 'e', 'f']) expect(await text(user)).toBe('For Firm new.')
  })

  test('takes back a batch that changes what it is not about, before anyone has seen it', async () => {
    const { call, ask, until } = await start({
      script: { reply: (prompt) => prompt.messages.at(-1)?.content.slice(0, 400) ?? '' },
    })
    await call('POST', '/v1/rollouts', { id: 'bad', batch: 'broad', stages: STAGES })
    // "water" and "rain" are words of everyday questions.
    await call('POST', '/v1/edits?batch=broad', [
      { id: 'w', subject: 'water', prompt: 'water is', target_new: 'dry' },
      { id: 'r', subject: 'rain', prompt: 'rain is', target_new: 'dry' },
      { id: 'e', subject: 'egg', prompt: 'egg is', target_new: 'square' },
    ])
    await until(async () => (await call('GET', '/v1/rollouts/bad')).outcome === 'rolled_back')
    const { events, stage } = await call('GET', '/v1/rollouts/bad')
    expect(stage).toBe(0)
    expect(events.at(-1)).toMatchObject({
      kind: 'rolled_back',
      requests_affected: 0,
      broken: [{ guardrail: { kind: 'locality' } }],
    })
    expect((await call('GET', '/v1/edits/w')).state).toBe('withdrawn')
    expect((await ask('u', 'Is water wet?')).palimpsest.edits).toEqual([])
  })

  test('takes back a batch whose answers its users dislike', async () => {
    const { call, ask, until } = await start()
    await call('POST', '/v1/edits', [ada('old')])
    await call('POST', '/v1/rollouts', { id: 'bad', batch: 'new', stages: [STAGES[0], { share: 0.1, least: 1_000 }] })
    await call('POST', '/v1/edits?batch=new', [ada('new')])
    await until(async () => (await call('GET', '/v1/rollouts/bad')).stage === 1)
    for (let user = 0; user < 600; user++) {
      const { id, palimpsest } = await ask(`u${user}`)
      if (palimpsest.experiment === undefined) break
      if (palimpsest.experiment.arm === 'with') await call('POST', '/v1/feedback', { completion_id: id, score: -1 })
    }
    await until(async () => (await call('GET', '/v1/rollouts/bad')).outcome === 'rolled_back')
    const { events } = await call('GET', '/v1/rollouts/bad')
    const last = events.at(-1)
    expect(last.broken[0].guardrail.kind).toBe('negative_feedback')
    expect(last.requests_affected).toBeLessThan(40)
    expect((await ask('u1')).choices[0].message.content).toBe('For Firm old.')
  })

  test('is rolled back by hand', async () => {
    const { call, ask } = await start()
    await call('POST', '/v1/rollouts', { id: 'r', batch: 'new' })
    await call('POST', '/v1/edits?batch=new', [ada('new')])
    await call('POST', '/v1/rollouts/r/rollback')
    expect((await call('GET', '/v1/rollouts/r')).outcome).toBe('rolled_back')
    expect((await ask('u')).palimpsest.edits).toEqual([])
    await expect(call('GET', '/v1/experiments/none')).rejects.toMatchObject({ code: 'experiment_not_found' })
  })

  test('outlives a ledger that fails while it is judged, and a gateway that closes before it is', async () => {
    const { call, ask, gateway, logged } = await start()
    await call('POST', '/v1/edits', [ada('old')])
    await call('POST', '/v1/rollouts', { id: 'r', batch: 'new' })
    await call('POST', '/v1/edits?batch=new', [ada('new')])
    const full = vi.spyOn(Ledger.prototype, 'pairs').mockRejectedValue(new Error('disk full'))
    await gateway.experiments?.rollouts.look()
    expect(full).toHaveBeenCalled()
    full.mockRestore()
    expect(logged).toContainEqual({})
    await call('POST', '/v1/experiments', { id: 'g', guardrails: { negative_feedback: 0.1 } })
    await ask('u')
    for (const served of open.splice(0)) await served.close()
    // An error of a timer would end the process, and here the test run.
    await new Promise((resolve) => setTimeout(resolve, 200))
  })
})
