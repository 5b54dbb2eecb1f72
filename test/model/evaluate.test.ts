/** `palimpsest eval` from the command line to the report, on the real 0.5B. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { addEvalCommand } from '../../src/cli/eval/eval.ts'
import type { Method } from '../../src/evaluate/methods/methods.ts'
import type { Line } from '../../src/evaluate/protocols/answers.ts'
import type { Results } from '../../src/evaluate/report/report.ts'
import { MODELS, needing } from '../needs.ts'
import { town } from '../support/evaluate-fixture.ts'

const CACHE = join(homedir(), '.cache', 'palimpsest')
const NAME = 'qwen2.5-coder-0.5b-instruct'
const THERE =
  existsSync(join(CACHE, 'models', `${NAME}-q4_k_m.gguf`)) &&
  ['multilingual-e5-small-q4_0.gguf', 'palimpsest-reader-q8_0.gguf'].every((file) => existsSync(join(CACHE, 'models', file)))

needing(THERE, MODELS)('palimpsest eval', { timeout: 400_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-eval-test-'))
  const data = join(folder, 'towns.json')
  const out = join(folder, 'out')
  const evaluate = async (...more: string[]) => {
    const program = new Command().exitOverride()
    addEvalCommand(program)
    const printed = vi.spyOn(process.stdout, 'write').mockReturnValue(true)
    try {
      const common = ['--data', data, '--threads', '1', '--gpu', 'off', '--home', CACHE, '--out', out]
      await program.parseAsync(['node', 'palimpsest', 'eval', ...common, ...more])
      return printed.mock.calls.map(([text]) => String(text)).join('')
    } finally {
      printed.mockRestore()
    }
  }
  const results = () => JSON.parse(readFileSync(join(out, 'results.json'), 'utf8')) as Results
  const lines = () =>
    readFileSync(join(out, 'answers.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Line)

  beforeAll(() => {
    // No town near them is in memory, nor known to any model.
    const records = [
      town('Lindenfurt', 'Ottilie Brandvold', 'Paris', 'Quarrow'),
      town('Ostermoor', 'Caspar Weidel', 'London', 'Hexby'),
    ]
    writeFileSync(data, JSON.stringify(records))
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it('both protocols, every method that fits', async () => {
    const asked = ['--model', NAME, '--answer-tokens', '16']
    const text = await evaluate(...asked)
    expect(text).toContain('## Generated answers')
    expect(readFileSync(join(out, 'report.html'), 'utf8')).toContain('<svg')
    const { about, generated, forced } = results()
    expect(about.methods).toEqual(['base', 'ice', 'ike', 'cosine', 'palimpsest'])
    const value = (rows: Results['generated'], id: string, method: Method) =>
      rows.find((row) => row.id === id)?.values[method]?.value
    expect(value(generated, 'reliability', 'base')).toBe(0)
    expect(value(generated, 'reliability', 'ice')).toBe(1)
    expect(value(generated, 'reliability', 'palimpsest')).toBe(1)
    expect(value(generated, 'locality/identical', 'palimpsest')).toBe(1)
    expect(value(forced, 'reliability/prompt/accuracy', 'base')).toBeLessThan(0.7)
    expect(value(forced, 'reliability/prompt/accuracy', 'ice')).toBe(1)
    expect(value(forced, 'reliability/prompt/magnitude', 'palimpsest')).toBeGreaterThan(0.5)
    expect(value(forced, 'locality/neighbourhood/agreement', 'palimpsest')).toBe(1)
    const before = lines()
    await evaluate(...asked, '--resume')
    expect(lines()).toEqual(before)
    expect(results().notes.some((note) => note.startsWith(`${before.length} answers taken over`))).toBe(true)
    expect(results().generated).toEqual(generated)
  })

  it('generating anew gives the same bytes as taking answers over', async () => {
    const texts = () => lines().map((line) => (line.protocol === 'generated' ? [line.method, line.probe, line.outcome.text] : []))
    const few = ['--methods', 'palimpsest', '--protocols', 'generated', '--kinds', 'reliability,locality']
    const asked = ['--model', NAME, '--answer-tokens', '16', ...few]
    await evaluate(...asked)
    const taken = texts()
    await evaluate(...asked, '--no-reuse')
    expect(texts()).toEqual(taken)
  })

  it('selection alone needs no chat model', async () => {
    const text = await evaluate('--selection')
    expect(text).toMatch(/Gate: precision 100\.0/)
    expect(results().about.model).toBeNull()
  })

  it('says which method does not fit the data', async () => {
    await expect(evaluate('--methods', 'mello')).rejects.toThrow(
      '--methods: mello answers multi-hop questions, and towns.json has none',
    )
    await expect(evaluate('--methods', 'magic')).rejects.toThrow('--methods: expected some of base, ice')
  })
})
