/** `palimpsest edits check` on a real model, as typed. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterAll, expect, it, vi } from 'vitest'
import { addEditsCommand } from '../../src/cli/edits.ts'
import { MODELS, needing } from '../needs.ts'

const CACHE = join(homedir(), '.cache', 'palimpsest')
const NAME = 'qwen2.5-coder-0.5b-instruct'
const THERE =
  existsSync(join(CACHE, 'models', `${NAME}-q4_k_m.gguf`)) &&
  ['multilingual-e5-small-q4_0.gguf', 'palimpsest-reader-q8_0.gguf'].every((file) => existsSync(join(CACHE, 'models', file)))

needing(THERE, MODELS)('a check before landing', { timeout: 180_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-check-test-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  const settings = ['--data-dir', join(folder, 'data'), '--edits-dir', join(folder, 'edits'), '--port', '0']

  /** What the command prints, and its exit code. */
  async function run(...typed: string[]): Promise<{ text: string; code: number }> {
    let text = ''
    const write = vi.spyOn(process.stdout, 'write').mockImplementation((piece) => {
      text += piece
      return true
    })
    const before = process.exitCode
    process.exitCode = 0
    try {
      const program = new Command()
      addEditsCommand(program)
      await program.parseAsync(['edits', ...typed, ...settings], { from: 'user' })
      return { text, code: Number(process.exitCode) }
    } finally {
      process.exitCode = before
      write.mockRestore()
    }
  }
  const check = (file: string, ...more: string[]) =>
    run(
      'check',
      file,
      '--home',
      CACHE,
      '--model',
      NAME,
      '--threads',
      '1',
      '--gpu',
      'off',
      '--held',
      '2',
      '--max-tokens',
      '12',
      '--json',
      ...more,
    )
  const file = (name: string, records: object[]) => {
    writeFileSync(join(folder, name), records.map((record) => JSON.stringify(record)).join('\n'))
    return join(folder, name)
  }
  const mayor = { subject: 'Lindenfurt', prompt: 'Who is the mayor of Lindenfurt?', target_new: 'Odelia Krantz' }
  const egg = { subject: 'eggs', prompt: 'How many eggs are left?', target_new: 'nine hundred' }

  it('passes good edits and lands nothing; a bad one is stopped in its stage, with evidence, and all is taken back', async () => {
    const good = await check(file('good.jsonl', [mayor]), '--unrelated', '2')
    expect(good.code).toBe(0)
    const { result } = JSON.parse(good.text)
    expect(result.stages[0].scores[0]).toMatchObject({ measure: 'reliability', asked: 1, passed: 1 })
    expect(JSON.parse((await run('list', '--json')).text).total).toBe(0)

    const towns = Array.from({ length: 5 }, (_, n) => ({
      ...mayor,
      subject: `Ort ${n}`,
      prompt: `Who is the mayor of Ort ${n}?`,
    }))
    const bad = await check(file('bad.jsonl', [...towns, egg]), '--progressive', '--sample', '2', '--unrelated', '2')
    expect(bad.code).toBe(1)
    const { stages } = JSON.parse(bad.text).result
    expect(stages.map(({ landed, ok }: { landed: number; ok: boolean }) => [landed, ok])).toEqual([
      [5, true],
      [6, false],
    ])
    expect(stages[1].failures[0]).toMatchObject({ measure: 'locality_unrelated', answered: { edits: [expect.any(String)] } })
    const held = JSON.parse((await run('list', '--json')).text)
    expect(new Set(held.data.map(({ state }: { state: string }) => state))).toEqual(new Set(['withdrawn']))
  })

  it('asks nothing when the file contradicts itself', async () => {
    const both = [mayor, { ...mayor, target_new: 'Bo Ek' }]
    const { text, code } = await check(file('both.jsonl', both))
    expect(code).toBe(1)
    expect(JSON.parse(text)).toMatchObject({ conflicts: 1, result: null, ok: false })
  })
})
