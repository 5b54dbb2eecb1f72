import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Finish, OwnEngine, Piece } from '../../../../src/engine/engine.ts'
import { buildInBackground, buildLog } from '../../../../src/engine/llama-server/background-build.ts'
import { buildTurn, noteFault, recentFault, serverPath } from '../../../../src/engine/llama-server/build.ts'
import { ServedEngine } from '../../../../src/engine/llama-server/engine.ts'
import { ServerProcess } from '../../../../src/engine/llama-server/process.ts'
import { type OwnModel, type OwnModelOptions, openOwnModel } from '../../../../src/engine/own-model.ts'
import { openScripted } from '../../../../src/engine/scripted.ts'
import { Trace } from '../../../../src/trace.ts'

const SUPPORT = join(import.meta.dirname, '../../../support/stand-ins')
const BUILDER = [process.execPath, join(SUPPORT, 'builder-stand-in.mjs')]
const SERVER = join(SUPPORT, 'llama-server-stand-in.mjs')
const never = new AbortController().signal
/** A stand-in is a process of Node's, on a machine that does other things too. */
const PATIENCE = { timeout: 60_000 }

let home: string
const undo: (() => Promise<unknown>)[] = []
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'palimpsest-home-'))
})
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
  rmSync(home, { recursive: true, force: true })
})

const at = (name: string) => join(home, name)
const notes = () => (existsSync(at('log')) ? readFileSync(at('log'), 'utf8').trim().split('\n') : [])
const builds = () => notes().filter((line) => line.startsWith('build '))
const environment = (more: Readonly<Record<string, string>> = {}) => ({
  ...{ PATH: process.env.PATH, LOG: at('log'), MARK: at('mark'), BUILT: serverPath(home) },
  ...more,
})
const alive = (pid: number) => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

const lorasOf = (): OwnEngine['loras'] => ({
  check: async () => ({ architecture: 'a', rank: 1, bytes: 1 }),
  baseSha256: async () => '',
  load: async () => {},
  unload: async () => {},
  loaded: () => false,
})

/** The engine in this process: scripted, and slow enough to be caught at it. */
function embedded(closed: () => void): OwnEngine {
  const engine = openScripted({ name: 'm', reply: () => 'from within the gateway', delayMs: 20 })
  const { close } = engine
  return Object.assign(engine, {
    loras: lorasOf(),
    openScorer: async () => ({ score: async () => [], close: async () => {} }),
    close: (graceMs: number) => {
      closed()
      return close.call(engine, graceMs)
    },
  }) as OwnEngine
}

async function served(fault: Readonly<Record<string, string>>): Promise<OwnEngine> {
  const server = new ServerProcess({
    ...{ command: process.execPath, args: [SERVER], environment: { ...environment(fault), TEXT: 'from the server' } },
    ...{ log: () => {}, now: () => performance.now(), limits: { firstBackoffMs: 20 } },
  })
  await server.start()
  return new ServedEngine({
    server,
    vocabulary: { tokens: { bos: null, eos: null }, tokenize: (text) => [...text].map((c) => c.codePointAt(0) ?? 0) },
    info: { name: 'm', family: 'chatml', contextTokens: 10_000, device: 'cpu', threads: 1, sha256: null },
    family: 'chatml',
    ...{ defaultSystem: null, bosText: '', eosText: '', leadingSpace: false, slots: 2, queueLimit: 4 },
    ...{ now: () => performance.now(), randomSeed: () => 7, free: async () => {} },
    ...{ detokenize: () => '', shouldPrependBos: false, vocabularySize: 0x110000 },
    ...{ args: () => [SERVER], loraMemoryBytes: 1000, basePath: 'base.gguf', baseSha256: async () => '' },
    checkLora: async () => ({ architecture: 'qwen2', rank: 1, bytes: 1 }),
    openEmbedded: async () => embedded(() => {}),
  })
}

interface Opened extends OwnModel {
  readonly said: string[]
  readonly closed: () => boolean
}

type Wanted = Partial<OwnModelOptions['config']> & {
  readonly env?: Readonly<Record<string, string>>
  readonly server?: Readonly<Record<string, string>>
  readonly freeBytes?: number
  readonly signal?: AbortSignal
  readonly device?: string
}

async function open({
  env,
  server = {},
  freeBytes = 4e9,
  signal = never,
  device = 'cpu',
  ...config
}: Wanted = {}): Promise<Opened> {
  const said: string[] = []
  let closed = false
  const say = (level: string) => (_fields: object, message: string) => void said.push(`${level}: ${message}`)
  const own = await openOwnModel({
    runtime: {
      device,
      openChat: async () => embedded(() => (closed = true)),
      openServed: () => served(server),
      memoryBytes: async () => 1e9,
    },
    config: { engine: 'auto', build: true, home, environment: environment(env), ...config },
    options: { modelPath: 'm.gguf', name: 'm' },
    log: { info: say('info'), warn: say('warn'), error: say('error') },
    ...{ signal, builder: BUILDER, freeBytes: () => freeBytes },
  })
  undo.push(async () => {
    await own.engine.close(0)
    await own.end()
  })
  return { ...own, said, closed: () => closed }
}

const begin = ({ engine }: OwnModel) =>
  engine.generate(
    { messages: [{ role: 'user', content: 'hello' }] },
    { temperature: 0, topP: 1, stop: [] },
    new Trace('t', () => performance.now()),
    never,
  )

async function text(answer: AsyncGenerator<Piece, Finish>): Promise<string> {
  let said = ''
  for await (const piece of answer) said += piece.text
  return said
}

describe.skipIf(process.platform === 'win32')('the faster engine, built in the background', PATIENCE, () => {
  it('serves at once, and changes over between requests when it is built', async () => {
    const own = await open({ env: { GO: at('go') } })
    expect([own.faster, own.engine.backends?.()]).toEqual(['being built', []])
    const begun = begin(own)
    const first = await begun.next()
    writeFileSync(at('go'), '')
    await expect.poll(() => own.engine.backends?.()[0], PATIENCE).toMatchObject({ name: 'llama-server', state: 'up' })
    expect(await text(begin(own))).toBe('from the server')
    expect(own.closed()).toBe(false)
    expect(`${first.done ? '' : first.value.text}${await text(begun)}`).toBe('from within the gateway')
    await expect.poll(own.closed).toBe(true)
    expect(own.said).toEqual(['info: the model runs in llama-server from now on'])
    expect(recentFault(home, Date.now())).toBeNull()
  })

  it('says once why it could not be built, and does not try again within a day', async () => {
    const own = await open({ env: { FAULT: 'error: no such header' } })
    await expect.poll(() => own.said, PATIENCE).toHaveLength(1)
    expect(own.said[0]).toMatch(
      /^warn: the faster engine could not be built \(src\/a\.cpp:1: error: no such header\); .*build\.log$/,
    )
    expect(readFileSync(buildLog(home), 'utf8')).toContain('make: *** Error 2')
    expect(await text(begin(own))).toBe('from within the gateway')
    const again = await open()
    expect([again.faster, again.said, builds().length]).toEqual(['failed lately', [], 1])
    await noteFault(home, { at: Date.now() - 25 * 3_600_000, why: '' })
    const nextDay = await open()
    expect(nextDay.faster).toBe('being built')
    await expect.poll(() => nextDay.engine.backends?.().length, PATIENCE).toBe(1)
  })

  it('goes on as it is where the server does not start, and leaves it alone for a day', async () => {
    const own = await open({ server: { FAULT: 'no start' } })
    await expect.poll(() => own.said, PATIENCE).toEqual([expect.stringMatching(/^warn: the faster engine .* does not serve/)])
    expect(await text(begin(own))).toBe('from within the gateway')
    expect(recentFault(home, Date.now())?.why).toContain('not to its taste')
    expect((await open()).faster).toBe('failed lately')
  })

  it('leaves the change-over to the next start where two models do not fit in memory', async () => {
    const own = await open({ freeBytes: 5e8 })
    await expect.poll(() => own.said, PATIENCE).toEqual([expect.stringContaining('serves from the next start on')])
    expect(own.engine.backends?.()).toEqual([])
    const next = await open({ freeBytes: 5e8 })
    expect([next.faster, next.engine.backends?.().length]).toEqual(['no', 1])
  })

  it('is built once for two gateways, and both change over', async () => {
    const [one, two] = [await open({ env: { GO: at('go') } }), await open({ env: { GO: at('go') } })]
    await expect.poll(() => [...one.said, ...two.said], PATIENCE).toEqual([expect.stringContaining('waiting for it')])
    writeFileSync(at('go'), '')
    for (const own of [one, two]) await expect.poll(() => own.engine.backends?.().length, PATIENCE).toBe(1)
    expect(builds()).toHaveLength(1)
  })

  it('is built by the second where the first gateway stops; the build ends with the gateway', async () => {
    const stopping = new AbortController()
    const one = await open({ env: { GO: at('go') }, signal: stopping.signal })
    await expect.poll(builds, PATIENCE).toHaveLength(1)
    const two = await open({ env: { GO: at('go') } })
    stopping.abort(new Error('stopped'))
    await one.end()
    expect(alive(Number(builds()[0]?.slice('build '.length)))).toBe(false)
    expect(notes()).toContain('told to stop')
    expect(one.said).toEqual([])
    await expect.poll(builds, PATIENCE).toHaveLength(2)
    writeFileSync(at('go'), '')
    await expect.poll(() => two.engine.backends?.().length, PATIENCE).toBe(1)
  })

  it.each([
    ['nobody wants it', { build: false }, 'by hand'],
    ['there is no compiler', { environment: { PATH: '/nowhere' } }, 'by hand'],
    ['there is a GPU', { device: 'cuda' }, 'no'],
    ['the embedded engine is asked for', { engine: 'embedded' }, 'no'],
  ] as const)('is not built where %s', async (_why, config, faster) => {
    const own = await open(config)
    expect(own.faster).toBe(faster)
    await own.end()
    expect(existsSync(join(home, 'engines'))).toBe(false)
  })
})

describe.skipIf(process.platform === 'win32')('a build in the background', PATIENCE, () => {
  const build = (env: Readonly<Record<string, string>>, more: object = {}) =>
    buildInBackground({
      ...{ home, jobs: 1, environment: environment(env), signal: never, onWait: () => {}, isBusy: () => false, builder: BUILDER },
      ...more,
    })

  it.runIf(process.platform === 'linux')('runs only while nobody else wants the processor', async () => {
    const built = build({ GO: at('go') })
    await expect.poll(builds, PATIENCE).toHaveLength(1)
    const pid = builds()[0]?.slice('build '.length) ?? ''
    // Fields from the third on, after the name in brackets: nice is the 19th, the policy the 41st (5: idle).
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ')
    const [nice, policy] = [fields[19 - 3], fields[41 - 3]]
    writeFileSync(at('go'), '')
    expect(await built).toBeNull()
    expect(nice).toBe('19')
    if (idleWorks()) expect(policy).toBe('5')
  })

  it.runIf(process.platform === 'linux')('pauses while an answer is being written, all but who notices the end', async () => {
    let isBusy = true
    const stop = new AbortController()
    const builder = ['sh', '-c', `sleep 60 & echo $! > ${at('compiler')}; echo $$ > ${at('first')}; wait`]
    const built = build({}, { builder, isBusy: () => isBusy, signal: stop.signal })
    const state = (who: string) =>
      existsSync(at(who)) && /\) (\w)/.exec(readFileSync(`/proc/${readFileSync(at(who), 'utf8').trim()}/stat`, 'utf8'))?.[1]
    await expect.poll(() => state('compiler'), PATIENCE).toBe('T')
    await expect.poll(() => state('first'), PATIENCE).toBe('S')
    isBusy = false
    await expect.poll(() => state('compiler'), PATIENCE).toBe('S')
    isBusy = true
    await expect.poll(() => state('compiler'), PATIENCE).toBe('T')
    stop.abort(new Error('the gateway stops'))
    await expect(built).rejects.toThrow('the gateway stops')
    await expect.poll(() => existsSync(`/proc/${readFileSync(at('compiler'), 'utf8').trim()}`), PATIENCE).toBe(false)
  })

  it('is ended when it takes too long, and that is its fault', async () => {
    const why = await build({ GO: at('go') }, { limitMs: 500 })
    expect(why).toMatch(/took longer than/)
    expect(recentFault(home, Date.now())?.why).toBe(why)
  })

  it('says how it ended where it said nothing', async () => {
    expect(await build({}, { builder: [process.execPath, '-e', 'process.exit(3)'] })).toBe('it ended with code 3')
    expect(await build({}, { builder: ['true'] })).toBe('it ended with code 3')
  })

  it('is not begun while a build by hand has its turn, nor where that has built it', async () => {
    const leave = await buildTurn(home, never, () => {})
    const built = build({})
    mkdirSync(dirname(serverPath(home)), { recursive: true })
    writeFileSync(serverPath(home), '')
    leave()
    expect(await built).toBeNull()
    expect(builds()).toEqual([])
  })
})

function idleWorks(): boolean {
  try {
    execFileSync('chrt', ['--idle', '0', 'true'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
