import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import type { Edit } from '../../../src/edit/edit.ts'
import { Allocator } from '../../../src/experiment/allocate.ts'
import type { Experiment } from '../../../src/experiment/experiment.ts'
import { Experiments } from '../../../src/experiment/experiments.ts'
import type { Ledger } from '../../../src/experiment/ledger/ledger.ts'
import { type Answerer, type Pair, Replays } from '../../../src/experiment/replay/replay.ts'
import { type Batches, Rollouts } from '../../../src/experiment/rollout/rollouts.ts'
import { DEFAULT_LIMITS } from '../../../src/gateway.ts'
import type { ChatRequest } from '../../../src/request.ts'
import { Postgres } from '../../../src/storage/postgres/postgres.ts'
import type { SqlDatabase } from '../../../src/storage/sql.ts'
import { readRollout } from '../../../src/wire/palimpsest/experiments.ts'
import { DIALECTS, databases } from '../../support/databases/databases.ts'
import { type PostgresServer, startPostgres } from '../../support/databases/postgres.ts'
import { experiment, ledgerOf } from '../../support/experiment-data.ts'
import { fact } from '../../support/memory-data.ts'

vi.setConfig({ testTimeout: 60_000 })

const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

interface Gateway {
  readonly database: SqlDatabase
  readonly ledger: Ledger
  readonly registry: Experiments
  readonly allocator: Allocator
  readonly warned: string[]
}

async function gatewayOver(database: SqlDatabase): Promise<Gateway> {
  const warned: string[] = []
  const ledger = await ledgerOf(database, { replayPairs: 1_000 })
  const registry = await Experiments.open({
    ...{ ledger, now: Date.now, runningExperiments: 3, warn: (message) => void warned.push(message) },
  })
  closing.push(async () => {
    await registry.close()
    await ledger.close()
  })
  return { database, ledger, registry, allocator: new Allocator(registry, Date.now), warned }
}

const request = (user: string, completion: string) =>
  ({
    ...{ model: 'm', tenant: 'default', arm: 'edited', edits: { kind: 'on' }, tags: [], explain: false },
    ...{ messages: [{ role: 'user', content: 'Where?' }], sampling: { temperature: 0, topP: 1, stop: [] } },
    caller: { completion, user, armChosen: false, header: () => undefined },
  }) as unknown as ChatRequest

const CHOSEN = { edits: '[[0,"s",""]]', targets: ['Rome'] }

/** The arm that answers; undefined: the request counts in no experiment. */
async function ask({ allocator }: Gateway, user: string, completion: string): Promise<number | undefined> {
  for (const contest of allocator.contests(request(user, completion))) {
    const exposed = await allocator.expose(contest, [CHOSEN, CHOSEN])
    if (exposed !== undefined) return exposed.arm
  }
  return undefined
}

const shown = ({ registry }: Gateway, id = 'e') => registry.known(`default/${id}`)
const kinds = async ({ ledger }: Gateway, id = 'e') => (await ledger.events(`default/${id}`)).map(({ kind }) => kind)

describe.each(DIALECTS)('gateways over one %s', (dialect) => {
  const { open, again } = databases(dialect)
  const two = async () => {
    const database = await open()
    return [await gatewayOver(database), await gatewayOver(again(database))] as const
  }

  test('know within a second what one of them declares, changes and ends, and ask nothing for it at a request', async () => {
    const [one, other] = await two()
    const within = (holds: () => void) => vi.waitFor(holds, { timeout: 1_000, interval: 20 })
    await one.registry.declare(experiment())
    await within(() => expect(other.registry.running('default')).toHaveLength(1))
    await other.registry.reweigh(experiment(), [undefined, 9])
    await within(() => expect(shown(one)).toMatchObject({ epoch: 2, arms: [{ weight: 0.5 }, { weight: 9 }] }))
    await one.registry.declare(experiment({ id: 'f' }))
    await within(() => expect(other.registry.everywhere().map(({ id }) => id)).toEqual(['e', 'f']))
    await other.registry.ship(experiment(), 0)
    await within(() => expect(one.registry.usual(request('u', 'c')).arm).toBe('base'))
    await one.registry.stop(one.registry.get('default', 'e'))
    await within(() => expect(other.registry.usual(request('u', 'c')).arm).toBe('edited'))
    expect(await kinds(one)).toEqual(['declared', 'reweighed', 'shipped', 'stopped'])
  })

  test('declare an id once, and no more than may run', async () => {
    const [one, other] = await two()
    const tried = await Promise.allSettled([one, other, one, other].map(({ registry }) => registry.declare(experiment())))
    expect(tried.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    for (const result of tried)
      if (result.status === 'rejected')
        expect(result.reason).toMatchObject({ code: 'invalid_value', message: expect.stringMatching(/'e' already/) })
    const more = await Promise.allSettled(
      Array.from({ length: 6 }, (_, n) => (n % 2 === 0 ? one : other).registry.declare(experiment({ id: `e${n}` }))),
    )
    expect(more.filter(({ status }) => status === 'fulfilled')).toHaveLength(2)
    expect(await kinds(one)).toEqual(['declared'])
  })

  test('count every change of weights as an epoch of its own, and stop or ship once', async () => {
    const [one, other] = await two()
    await one.registry.declare(experiment())
    const reweighed = await Promise.all(
      Array.from({ length: 10 }, (_, n) => (n % 2 === 0 ? one : other).registry.reweigh(experiment(), [n + 1])),
    )
    expect(new Set(reweighed.map(({ epoch }) => epoch)).size).toBe(10)
    const events = (await one.ledger.events('default/e')).filter(({ kind }) => kind === 'reweighed')
    expect(events.map(({ body }) => body.epoch)).toEqual(Array.from({ length: 10 }, (_, n) => n + 2))
    // Each begins with the weights that the one before it set.
    expect(events.slice(1).map(({ body }) => body.before)).toEqual(events.slice(0, -1).map(({ body }) => body.weights))
    const shipped = await Promise.allSettled([one, other].map(({ registry }) => registry.ship(experiment(), 1)))
    expect(shipped.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    expect(shipped.find(({ status }) => status === 'rejected')).toMatchObject({ reason: { code: 'invalid_value' } })
    await Promise.all([one, other, one].map(({ registry }) => registry.stop(registry.get('default', 'e'))))
    expect((await kinds(one)).slice(11)).toEqual(['shipped', 'stopped'])
  })

  test('answer a unit by one arm, while its weights change', async () => {
    const [one, other] = await two()
    await one.registry.declare(experiment({ coverage: 0.9 }))
    await other.registry.refresh()
    const arms = new Map<string, Set<number | undefined>>()
    const round = async (times: number) => {
      const asked = Array.from({ length: 200 * times }, async (_, n) => {
        const user = `u${n % 200}`
        const arm = await ask(n % 3 === 0 ? one : other, user, `${user} ${performance.now()} ${n}`)
        if (arm !== undefined) arms.set(user, (arms.get(user) ?? new Set()).add(arm))
      })
      await Promise.all(asked)
    }
    const first = round(2)
    await one.registry.reweigh(experiment(), [1, 9])
    await first
    // The other deals by the weights of before.
    expect([shown(one)?.epoch, shown(other)?.epoch].sort()).toEqual([1, 2])
    await round(3)
    await other.registry.refresh()
    await round(1)
    expect([...arms.values()].filter((own) => own.size > 1)).toEqual([])
    expect(arms.size).toBeGreaterThan(150)
    const units = (await one.ledger.counts(experiment())).reduce((sum, row) => sum + row.units, 0)
    expect(units).toBe(arms.size)
  })

  test('replay each prompt once, and take over what one that is gone had begun', async () => {
    const [one, other] = await two()
    await one.registry.declare(experiment())
    const asked: string[] = []
    const answerer = (slow: boolean): Answerer => ({
      ...{ model: 'm', load: () => 0, answer: () => Promise.reject(new Error('nobody judges')) },
      answers: async (requests, signal) => {
        asked.push(requests[0]?.messages.at(-1)?.content ?? '')
        if (slow) await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
        return requests.map(({ arm }) => ({ text: arm, edits: [], targets: [], latencyMs: 1, completionTokens: 1 }))
      },
    })
    const replaysOf = ({ registry }: Gateway) =>
      new Replays({ registry, replayQueue: 100, warn: () => {}, leaseMs: 500, lookMs: 100 })
    const [dead, first, second] = [replaysOf(one), replaysOf(one), replaysOf(other)]
    closing.push(async () => {
      await Promise.all([dead, first, second].map((replays) => replays.close()))
    })
    // Begins one, and is heard of no more.
    vi.spyOn(one.ledger.replays, 'keep').mockResolvedValue()
    dead.start(answerer(true))
    await dead.enqueue(experiment(), [[{ role: 'user', content: 'begun' }]], 'uploaded', null)
    await vi.waitFor(() => expect(asked).toEqual(['begun']))
    const prompts = Array.from({ length: 20 }, (_, n) => [{ role: 'user' as const, content: `q${n}` }])
    first.start(answerer(false))
    second.start(answerer(false))
    expect(await first.enqueue(experiment(), prompts, 'uploaded', null)).toBe(20)
    await vi.waitFor(async () => expect(await second.waiting(experiment())).toBe(0), { timeout: 5_000 })
    expect(asked.slice().sort()).toEqual(['begun', 'begun', ...prompts.map(([message]) => message?.content ?? '')].sort())
    for (const { ledger } of [one, other]) {
      const pairs = await ledger.pairs<Pair>(experiment())
      expect(new Set(pairs.map(({ question }) => question)).size).toBe(21)
      expect(pairs.every(({ answers }) => answers[0]?.text === 'base' && answers[1]?.text === 'edited')).toBe(true)
    }
  })

  test('give up a prompt that ended several of them', async () => {
    const [one] = await two()
    await one.registry.declare(experiment())
    const deadly = { prompt: 'p', messages: [{ role: 'user' as const, content: 'deadly' }], origin: 'uploaded', judge: null }
    await one.ledger.replays.add(experiment(), [deadly])
    for (let n = 0; n < 3; n++) expect((await one.ledger.replays.claim(-1))?.attempts).toBe(n + 1)
    const replays = new Replays({ registry: one.registry, replayQueue: 100, warn: () => {} })
    const answers = vi.fn()
    replays.start({ model: 'm', load: () => 0, answer: answers, answers })
    await vi.waitFor(async () => expect(await replays.waiting(experiment())).toBe(0))
    await replays.close()
    expect(answers).not.toHaveBeenCalled()
    expect(await one.ledger.pairs<Pair>(experiment())).toMatchObject([{ error: expect.stringContaining('3 gateways') }])
  })

  describe('a rollout', () => {
    interface Node extends Gateway {
      readonly rollouts: Rollouts
      readonly replays: Replays
    }
    const BATCH: readonly Edit[] = [fact(1), fact(2)]

    /** Two gateways whose answers to the batch's prompts change, and to others too where `harms`. */
    async function nodes({ harms = false, withdraw = async () => {} }: { harms?: boolean; withdraw?: Batches['withdraw'] } = {}) {
      const gateways = await two()
      const made = gateways.map((gateway): Node => {
        const { registry, warned } = gateway
        const warn = (message: string) => void warned.push(message)
        const replays = new Replays({ registry, replayQueue: 1_000, warn, lookMs: 50 })
        const rollouts = new Rollouts({
          ...{ registry, replays, unrelated: ['What is rain?'], now: Date.now, warn, tickMs: 1e9 },
          batches: { has: () => true, live: (_, __, others) => (others ? [] : BATCH), withdraw },
        })
        const answer: Answerer['answer'] = async ({ messages, withoutBatches = [] }) => {
          const isOwn = BATCH.some(({ prompt }) => prompt === messages.at(-1)?.content)
          const edit = withoutBatches.length === 0 && (isOwn || harms) ? BATCH[0] : undefined
          const told = { edits: edit === undefined ? [] : [edit.id], targets: edit === undefined ? [] : [edit.targetNew] }
          return { ...told, text: edit?.targetNew ?? 'As ever.', latencyMs: 1, completionTokens: 1 }
        }
        replays.start({
          ...{ model: 'm', load: () => 0, answer },
          answers: (requests, signal) => Promise.all(requests.map((one) => answer(one, signal))),
        })
        closing.push(async () => {
          await rollouts.close()
          await replays.close()
        })
        return { ...gateway, rollouts, replays }
      })
      return made as [Node, Node]
    }
    const declared = (stages: object[], guardrails: object = { locality: 1, collateral: 0.3 }) =>
      readRollout({ id: 'r', batch: 'b', stages, guardrails }, DEFAULT_LIMITS, 'default', { now: Date.now(), source: 'test' })
    /** Both judge, again and again, until it is over for both. */
    const untilOver = (nodes: readonly Node[]) =>
      vi.waitFor(
        async () => {
          await Promise.all(nodes.flatMap((node) => [node, node]).map(({ rollouts }) => rollouts.look()))
          await Promise.all(nodes.map(({ registry }) => registry.refresh()))
          expect(nodes.map((node) => shown(node, 'r')?.status)).not.toContain('running')
        },
        { timeout: 10_000, interval: 10 },
      )

    test('takes each step once, whichever of them judges', async () => {
      const [one, other] = await nodes()
      await one.registry.declare(
        declared([
          { share: 0, least: 1 },
          { share: 0.1, least: 0 },
          { share: 0.5, least: 0 },
        ]),
      )
      await other.registry.refresh()
      await untilOver([one, other])
      expect(await kinds(one, 'r')).toEqual(['declared', 'stage', 'stage', 'live'])
      for (const node of [one, other])
        expect(shown(node, 'r')).toMatchObject({ status: 'shipped', version: 3, rollout: { stage: 2, outcome: 'live' } })
      expect([...one.warned, ...other.warned]).toEqual([])
    })

    test('goes on from where one was that is gone: its prompts are on record, and so is what it began', async () => {
      const [one, other] = await nodes()
      await one.registry.declare(
        declared([
          { share: 0, least: 2 },
          { share: 0.1, least: 1_000 },
        ]),
      )
      await other.registry.refresh()
      await one.rollouts.look()
      await one.rollouts.close()
      await vi.waitFor(
        async () => {
          await other.rollouts.look()
          expect(shown(other, 'r')).toMatchObject({ version: 2, rollout: { stage: 1 } })
        },
        { timeout: 10_000, interval: 10 },
      )
      expect(await kinds(other, 'r')).toEqual(['declared', 'stage'])
    })

    if (dialect === 'postgres')
      test('waits for one that judges it, and goes on when its connection is gone', async () => {
        const [one, other] = await nodes()
        await one.registry.declare(
          declared(
            [
              { share: 0.1, least: 0 },
              { share: 0.5, least: 1_000 },
            ],
            { error: 0.1 },
          ),
        )
        await other.registry.refresh()
        let hold = () => {}
        let end = () => {}
        const isHeld = new Promise<void>((resolve) => {
          hold = resolve
        })
        const isOver = new Promise<void>((resolve) => {
          end = resolve
        })
        const judging = one.ledger.atOnce('judging', async (turn) => {
          await turn.tryLock('default/r')
          await turn.lockChanges()
          hold()
          await isOver
        })
        const failed = judging.then(
          () => null,
          ({ code }) => code,
        )
        await isHeld
        await other.rollouts.look()
        expect(shown(other, 'r')).toMatchObject({ version: 1 })
        const dropped = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'"
        expect(await other.database.all('dropping a connection', dropped)).toHaveLength(1)
        await vi.waitFor(async () => {
          await other.rollouts.look()
          expect(shown(other, 'r')).toMatchObject({ version: 2, rollout: { stage: 1 } })
        })
        end()
        expect(await failed).toBe('storage_unavailable')
        expect(await kinds(other, 'r')).toEqual(['declared', 'stage'])
      })

    test('is taken back once, by a batch withdrawn once', async () => {
      const withdrawn: string[] = []
      const withdraw = async (_: string, batch: string) => {
        await new Promise((resolve) => setTimeout(resolve, 100))
        withdrawn.push(batch)
      }
      const [one, other] = await nodes({ harms: true, withdraw })
      await one.registry.declare(
        declared([
          { share: 0, least: 1 },
          { share: 0.5, least: 5 },
        ]),
      )
      await other.registry.refresh()
      await untilOver([one, other])
      expect(withdrawn).toEqual(['b'])
      expect(await kinds(one, 'r')).toEqual(['declared', 'rolled_back'])
      const [, last] = await one.ledger.events('default/r')
      expect(last?.body).toMatchObject({ broken: [{ guardrail: { kind: 'locality' }, broken: true }], requests_affected: 0 })
      expect(shown(other, 'r')).toMatchObject({ status: 'stopped', rollout: { outcome: 'rolled_back' } })
      expect(shown(other, 'r')?.rollout).not.toHaveProperty('takenBack')
    })

    test('that one began to take back is held from everyone, and ended by the other', async () => {
      const withdrawn: string[] = []
      const state = { dead: true }
      const withdraw = async (_: string, batch: string) => {
        if (state.dead) throw new Error('killed here')
        withdrawn.push(batch)
      }
      const [one, other] = await nodes({ withdraw })
      await one.registry.declare(declared([{ share: 0.5, least: 5 }]))
      await expect(one.rollouts.rollBack(one.registry.get('default', 'r'), 'asked for')).rejects.toThrow('killed here')
      await other.registry.refresh()
      expect(other.registry.dealing('default')).toEqual([])
      expect(other.registry.usual(request('u', 'c')).withoutBatches).toEqual(['b'])
      expect(await ask(other, 'u', 'c')).toBeUndefined()
      state.dead = false
      await untilOver([other, one])
      expect(withdrawn).toEqual(['b'])
      expect(await kinds(other, 'r')).toEqual(['declared', 'rolled_back'])
      const ended: Experiment = other.registry.get('default', 'r')
      expect(ended).toMatchObject({ status: 'stopped', rollout: { outcome: 'rolled_back' } })
      // By hand once more: it is over.
      expect(await other.rollouts.rollBack(ended, 'asked for')).toEqual(ended)
      expect(withdrawn).toEqual(['b'])
    })
  })
})

describe('a gateway whose PostgreSQL is away', () => {
  let server: PostgresServer | undefined
  let database: Postgres | undefined
  beforeAll(async () => {
    server = await startPostgres()
    database = new Postgres({ url: await server.database(), warn: () => {} })
  }, 120_000)
  afterAll(async () => {
    await database?.close()
    await server?.remove()
  })

  test('refuses what an experiment concerns, answers all else as it did, and catches up by itself', async () => {
    if (server === undefined || database === undefined) throw new Error('no server')
    const gateway = await gatewayOver(database)
    const { registry, ledger, warned } = gateway
    const of = await registry.declare(experiment())
    await registry.declare(experiment({ id: 'shipped', audience: { tags: ['t'], models: [] } }))
    await registry.ship(registry.get('default', 'shipped'), 0)
    const arm = await ask(gateway, 'u', 'before')
    await server.kill()
    await expect(ask(gateway, 'u', 'while')).rejects.toMatchObject({ code: 'storage_unavailable', retryAfterSeconds: 2 })
    await expect(registry.declare(experiment({ id: 'f' }))).rejects.toMatchObject({ code: 'storage_unavailable' })
    const elsewhere = { ...request('u', 'c'), tenant: 'other' }
    expect([...gateway.allocator.contests(elsewhere)]).toEqual([])
    expect(gateway.allocator.usual({ ...request('u', 'c'), tags: ['t'] }).arm).toBe('base')
    const outcome = { latencyMs: 1, promptTokens: 1, completionTokens: 1, error: false, refusal: false, targetShown: true }
    registry.finished(of, 'before', outcome)
    await vi.waitFor(() => expect(warned).toEqual([expect.stringMatching(/as they are known here: .* cannot be reached/)]), 5_000)
    await server.start()
    await vi.waitFor(async () => expect(await ledger.samples(of, 'target_shown')).toMatchObject([{ arm, n: 1, mean: 1 }]), 5_000)
    expect(await ask(gateway, 'u', 'after')).toBe(arm)
    await registry.declare(experiment({ id: 'f' }))
    expect(warned).toHaveLength(1)
  })
})
