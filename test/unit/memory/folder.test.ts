import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { describeProblem, type EditFolder, openFolder } from '../../../src/memory/files/watcher.ts'
import type { MemoryStore } from '../../../src/memory/memory-store.ts'
import { openMemory } from '../../../src/memory/store.ts'
import { parseEditFile } from '../../../src/server/edit-file.ts'

const embedder = {
  name: 'letters',
  dimensions: 4,
  maxTokens: 256,
  embed: async (texts: readonly string[]) =>
    texts.map((text) => Float32Array.of(Math.cos(text.length), Math.sin(text.length), 0, 0)),
  close: async () => {},
}
const quiet = { info: () => {}, warn: () => {}, error: () => {} }

let root: string
let dir: string
let memory: MemoryStore
let folder: EditFolder | undefined

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'palimpsest-folder-'))
  dir = join(root, 'edits')
  mkdirSync(dir)
  memory = await openStore()
})
afterEach(async () => {
  await folder?.close()
  folder = undefined
  await memory.close()
  rmSync(root, { recursive: true, force: true })
})

const openStore = () => openMemory({ dataDir: join(root, 'data'), embedder, now: Date.now, log: quiet })
const open = async (watch = false, log = quiet) => {
  folder = await openFolder({ dir, memory, parse: parseEditFile, watch, log })
  return folder
}
const write = (name: string, content: string) => writeFileSync(join(dir, name), content)
const line = (id: string, target: string, more: object = {}) =>
  `${JSON.stringify({ id, subject: `Subject ${id}`, prompt: `Subject ${id} is`, target_new: target, ...more })}\n`
/** Live edits as `id=target`, sorted. */
const live = (tenant = 'default') =>
  memory
    .list({ tenant, state: 'live', limit: 100 })
    .edits.map(({ edit }) => `${edit.id}=${edit.targetNew}`)
    .sort()

describe('openFolder', () => {
  it('searches linked folders, once each, and names a link to nothing, which does not keep it from starting', async () => {
    const elsewhere = join(root, 'elsewhere')
    mkdirSync(elsewhere)
    writeFileSync(join(elsewhere, 'a.jsonl'), line('a', 'one'))
    symlinkSync(elsewhere, join(dir, 'linked'))
    symlinkSync(dir, join(elsewhere, 'round'))
    symlinkSync(join(root, 'gone.jsonl'), join(dir, 'gone.jsonl'))
    write('b.jsonl', line('b', 'two'))
    const opened = await open(true)
    expect(live()).toEqual(['a=one', 'b=two'])
    expect(opened.problems()).toEqual([
      { file: 'edits/gone.jsonl', field: null, message: expect.stringMatching(/^is a link to nothing/) },
    ])
    writeFileSync(join(root, 'gone.jsonl'), line('c', 'three'))
    await opened.reload()
    expect([opened.problems(), live()]).toEqual([[], ['a=one', 'b=two', 'c=three']])
    // What links lead to is followed, too.
    writeFileSync(join(root, 'gone.jsonl'), line('c', 'four'))
    writeFileSync(join(elsewhere, 'a.jsonl'), line('a', 'five'))
    await expect.poll(live, { timeout: 5_000 }).toEqual(['a=five', 'b=two', 'c=four'])
  })

  it('loads every notation, subfolders too, and nothing hidden or foreign', async () => {
    mkdirSync(join(dir, 'more'))
    write('a.jsonl', line('a', 'one'))
    write('b.yaml', '- id: b\n  subject: B\n  prompt: B is\n  target_new: two\n')
    write('more/c.csv', 'id,subject,prompt,target_new\nc,C,C is,three\n')
    write('d.json', `[${line('d', 'four')}]`)
    write('e.txt', '# ours\nWe close at 6.\n\nWe are shut on Sundays.\n')
    write('.hidden.jsonl', line('h', 'no'))
    write('README.md', 'no edits here')
    const { counts, problems } = await open()
    const isNamed = (one: string) => !one.startsWith('e_')
    expect(live().filter(isNamed)).toEqual(['a=one', 'b=two', 'c=three', 'd=four'])
    expect(live()).toHaveLength(6)
    expect(problems()).toEqual([])
    expect(counts().map(({ file, edits }) => `${file} ${edits}`)).toEqual([
      'edits/a.jsonl 1',
      'edits/b.yaml 1',
      'edits/d.json 1',
      'edits/e.txt 2',
      'edits/more/c.csv 1',
    ])
  })

  it('adds, revises and withdraws as a file changes, and restores what comes back', async () => {
    write('a.jsonl', line('x', 'one') + line('y', 'one'))
    const { reload } = await open()
    write('a.jsonl', line('x', 'two') + line('z', 'one'))
    await reload()
    expect(live()).toEqual(['x=two', 'z=one'])
    write('a.jsonl', line('x', 'two') + line('y', 'one'))
    await reload()
    expect(live()).toEqual(['x=two', 'y=one'])
  })

  it('keeps what a file said before when a line of it is broken, and says where; a repair is taken', async () => {
    write('a.jsonl', line('x', 'one') + line('y', 'one'))
    write('b.jsonl', line('z', 'one'))
    const warn = vi.fn()
    const { reload, problems } = await open(false, { ...quiet, warn })
    write('a.jsonl', `${line('x', 'two')}{"id":"y","subject":"Y","prompt":"Y is","target_new":""}\n`)
    write('b.jsonl', line('z', 'two'))
    await reload()
    expect(live()).toEqual(['x=one', 'y=one', 'z=two'])
    expect(problems()).toMatchObject([{ file: 'edits/a.jsonl', line: 2, field: 'target_new' }])
    expect(warn.mock.calls[0]?.[1]).toMatch(/edits\/a\.jsonl:2: target_new: /)
    write('a.jsonl', line('x', 'two'))
    await reload()
    expect(live()).toEqual(['x=two', 'z=two'])
    expect(problems()).toEqual([])
  })

  it('withdraws the edits of a file that is deleted or emptied, and no others', async () => {
    write('a.jsonl', line('x', 'one'))
    write('b.jsonl', line('y', 'one'))
    write('c.yaml', '- id: z\n  subject: Z\n  prompt: Z is\n  target_new: one\n')
    const { reload, problems } = await open()
    await memory.land(
      [{ ...(memory.get('default', 'x')?.edit as never as object), id: 'posted', subject: 'P', prompt: 'P is' } as never],
      {
        source: 'http',
        tenant: 'default',
        dryRun: false,
      },
    )
    rmSync(join(dir, 'a.jsonl'))
    write('c.yaml', '# nothing for now\n')
    await reload()
    expect(live()).toEqual(['posted=one', 'y=one'])
    expect(problems()).toEqual([])
  })

  it('withdraws at start what a file deleted meanwhile had said', async () => {
    write('a.jsonl', line('x', 'one'))
    await open()
    await memory.close()
    rmSync(join(dir, 'a.jsonl'))
    memory = await openStore()
    expect(live()).toEqual(['x=one'])
    await open()
    expect(live()).toEqual([])
  })

  it('lands nothing twice on a second start', async () => {
    write('a.jsonl', line('x', 'one'))
    await open()
    const version = memory.version('default')
    await memory.close()
    memory = await openStore()
    await open()
    expect([memory.version('default'), live()]).toEqual([version, ['x=one']])
  })

  it('takes the tenant that a record names', async () => {
    write('a.jsonl', line('x', 'one', { tenant: 'acme' }) + line('y', 'one'))
    await open()
    expect([live('acme'), live()]).toEqual([['x=one'], ['y=one']])
  })

  it('follows changes on disk: new, changed, renamed, deleted', async () => {
    const { problems } = await open(true)
    write('a.jsonl', line('x', 'one'))
    await vi.waitFor(() => expect(live()).toEqual(['x=one']), 5_000)
    write('a.jsonl', line('x', 'two'))
    await vi.waitFor(() => expect(live()).toEqual(['x=two']), 5_000)
    write('a.jsonl', '{"id":')
    await vi.waitFor(() => expect(problems()).toMatchObject([{ file: 'edits/a.jsonl', line: 1 }]), 5_000)
    renameSync(join(dir, 'a.jsonl'), join(dir, 'a.bak'))
    await vi.waitFor(() => expect([live(), problems()]).toEqual([[], []]), 5_000)
  })

  it('does without the folder', async () => {
    rmSync(dir, { recursive: true })
    expect((await open(true)).counts()).toEqual([])
  })
})

describe('describeProblem', () => {
  it.each([
    [{ file: 'a', line: 2, field: 'b', message: 'c' }, 'a:2: b: c'],
    [{ file: 'a', field: null, message: 'c' }, 'a: c'],
    [{ field: null, message: 'c' }, 'c'],
  ])('leaves out what is not known', (problem, text) => {
    expect(describeProblem(problem)).toBe(text)
  })
})
