import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { client } from '../../../src/cli/client/client.ts'
import { addExperimentCommands } from '../../../src/cli/experiments.ts'
import { declareFiles } from '../../../src/server/experiments.ts'
import { MODEL, type Served, serve } from '../fakes.ts'

let served: Served
let folder: string
beforeEach(async () => {
  served = await serve({ script: { reply: ({ messages }) => (messages.at(-1)?.content.includes('Firm') ? 'Firm a.' : 'No.') } })
  folder = mkdtempSync(join(tmpdir(), 'palimpsest-experiments-'))
})
afterEach(async () => {
  await served.close()
  rmSync(folder, { recursive: true, force: true })
})

function file(name: string, content: string): string {
  writeFileSync(join(folder, name), content)
  return join(folder, name)
}

// biome-ignore lint/suspicious/noExplicitAny: what came is what the test asserts
const call = (method: string, path: string, body?: unknown) => client(served.base, {}, null).json<any>(method, path, body)

/** What the command prints, as typed. */
async function run(...typed: string[]): Promise<string> {
  let text = ''
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((piece) => {
    text += piece
    return true
  })
  try {
    const program = new Command()
    addExperimentCommands(program)
    await program.parseAsync([...typed, '--url', served.base], { from: 'user' })
    return text
  } finally {
    write.mockRestore()
  }
}

const QUESTION = 'Whom does Ada Quist work for?'
const EDIT = { id: 'a', subject: 'Ada Quist', prompt: 'Ada Quist works for', target_new: 'Firm a' }
const DECLARATION = `id: help
arms:
  - { name: base, edits: off, weight: 3 }
  - { name: edited }
metrics: [target_shown]
`

describe('palimpsest experiments', () => {
  test('start from a file, show, list, ship and stop', async () => {
    await call('POST', '/v1/edits', [EDIT])
    expect(await run('experiments', 'list')).toBe('None.\n')
    expect(await run('experiments', 'start', file('help.yaml', DECLARATION))).toMatch(/^help: running\n/)
    for (let i = 0; i < 20; i++)
      await call('POST', '/v1/chat/completions', {
        ...{ model: MODEL, user: `u${i}` },
        messages: [{ role: 'user', content: QUESTION }],
      })
    const shown = await run('experiments', 'show', 'help')
    const { result } = await call('GET', '/v1/experiments/help')
    for (const { arm, exposures, answers } of result.arms)
      expect(shown).toMatch(new RegExp(`^${arm} +${arm === 'base' ? 3 : 1} +${exposures} +${answers} +0$`, 'm'))
    expect(shown).toMatch(/^target_shown +edited .*\+100\.0 pt/m)
    expect(JSON.parse(await run('experiments', 'show', 'help', '--json')).result).toEqual(result)
    expect(await run('experiments', 'list')).toMatch(/^help +running +base 3, edited 1 /m)
    expect(await run('experiments', 'ship', 'help', 'edited')).toMatch(/^help: shipped edited\n/)
    expect(await run('experiments', 'stop', 'help')).toMatch(/^help: stopped\n/)
    expect(await run('experiments', 'list', '--tenant', 'other')).toBe('None.\n')
    await expect(run('experiments', 'show', 'none')).rejects.toMatchObject({ code: 'experiment_not_found' })
    await expect(run('experiments', 'ship', 'help', 'third')).rejects.toMatchObject({ code: 'invalid_value', param: 'arm' })
  })

  test('replay the prompts of a file, and say what came of them', async () => {
    await call('POST', '/v1/edits', [EDIT])
    await run('experiments', 'start', file('help.json', JSON.stringify({ id: 'help' })))
    const prompts = file('prompts.txt', `${QUESTION}\n\nWhat is two plus two?\n`)
    expect(await run('experiments', 'replay', 'help', prompts)).toMatch(/^2 prompts are answered in the background\./)
    await vi.waitFor(async () => expect((await call('GET', '/v1/experiments/help/replay')).waiting).toBe(0), 10_000)
    expect(await run('experiments', 'replay', 'help')).toMatch(/^edited: 2 prompts answered by both arms, 1 differently\n/)
  })
})

describe('palimpsest rollouts', () => {
  test('start, list, show and take back', async () => {
    expect(await run('rollouts', 'start', 'new')).toMatch(/: stage 0: 0 %\n/)
    await call('POST', '/v1/edits?batch=new', [EDIT])
    const { data } = await call('GET', '/v1/rollouts')
    const [{ id }] = data
    expect(await run('rollouts', 'list')).toContain(id)
    expect(await run('experiments', 'list')).toBe('None.\n')
    expect(await run('rollouts', 'show', id)).toContain(`${id}: stage `)
    expect(await run('rollouts', 'back', id)).toMatch(/: rolled back\n/)
    expect((await call('GET', '/v1/edits/a')).state).toBe('withdrawn')
  })
})

describe('palimpsest compare', () => {
  test('shows the answers side by side', async () => {
    await call('POST', '/v1/edits', [EDIT])
    const text = await run('compare', ...QUESTION.split(' '))
    expect(text).toMatch(/^base \(\d+ ms, 0 tokens added\)\n {2}No\.\n/)
    expect(text).toMatch(/^edited \(\d+ ms, [1-9]\d* tokens added\)\n {2}Firm a\.\n/m)
    expect(text).toMatch(/The answers differ\.\n$/)
  })
})

describe('files of experiments', () => {
  /** What was warned of. */
  const declare = async (from = folder) => {
    const told: string[] = []
    await declareFiles(from, {
      ...served.gateway,
      log: { info: () => {}, error: () => {}, warn: (_, message) => void told.push(message) },
    })
    return told
  }
  const ids = async (tenant = 'default') =>
    (await call('GET', `/v1/experiments?tenant=${tenant}`)).data.map(({ id }: { id: string }) => id).sort()

  test('are declared once, each in its tenant; one that is not sound stops no other', async () => {
    file('1-broken.yaml', 'id: [')
    file('2-wrong.yaml', 'id: wrong\ncolour: red\n')
    file('3-help.yaml', DECLARATION)
    file('4-more.json', JSON.stringify({ id: 'more', tenant: 'acme' }))
    file('notes.txt', 'id: notes')
    const told = await declare()
    expect(await ids()).toEqual(['help'])
    expect(await ids('acme')).toEqual(['more'])
    expect(told).toEqual([expect.stringContaining('1-broken.yaml: not taken'), expect.stringContaining('`colour`')])
    expect((await call('GET', '/v1/experiments/help')).source).toMatch(/\/3-help\.yaml$/)
  })

  test('change nothing that is declared: a file with other arms is told, a stopped experiment stays stopped', async () => {
    file('help.yaml', DECLARATION)
    await declare()
    await call('POST', '/v1/experiments/help/stop')
    expect(await declare()).toEqual([])
    file('help.yaml', DECLARATION.replace('weight: 3', 'weight: 5'))
    expect(await declare()).toEqual([expect.stringContaining('declared already')])
    const { status, arms } = await call('GET', '/v1/experiments/help')
    expect([status, arms[0].weight]).toEqual(['stopped', 3])
  })

  test('are not needed: a folder that is missing declares nothing', async () => {
    expect(await declare(join(folder, 'missing'))).toEqual([])
    expect(await ids()).toEqual([])
  })
})
