import { describe, expect, it } from 'vitest'
import { query } from '../../../src/cli/client/client.ts'
import { banner, curl, sampleQuestion } from '../../../src/cli/text/banner.ts'
import { checkText } from '../../../src/cli/text/check-text.ts'
import {
  batchTable,
  editHistory,
  editTable,
  explanationText,
  landingText,
  problemText,
} from '../../../src/cli/text/edits-text.ts'
import { lines } from '../../../src/cli/text/lines.ts'
import type { WireEdit, WireExplanation, WireLanding, WireReport } from '../../../src/cli/wire.ts'
import type { HeldEdit } from '../../../src/memory/memory.ts'
import { FINDING_KINDS } from '../../../src/selection/landing-check.ts'
import { clip, count, printable, table } from '../../../src/terminal/table.ts'

const edit: WireEdit = {
  id: 'x1',
  subject: 'Eiffel Tower',
  aliases: ['Tour Eiffel'],
  prompt: 'The Eiffel Tower is in',
  target_new: 'Lyon',
  paraphrases: [],
  tags: ['a', 'b'],
  tenant: 'default',
  state: 'live',
  batch: 'b_1',
  version: 3,
  landed_at: '2026-01-02T03:04:05.678Z',
}

describe('text for a terminal', () => {
  it('lets no text move the cursor or turn the reading order', () => {
    expect(printable('a\u001b[2Jb\u009bc\u202ed\te\n')).toBe('a [2Jb c d\te\n')
  })

  it('clips by columns, on one line', () => {
    expect(clip('one  two\nthree', 8)).toBe('one two…')
    expect(clip('東京都', 5)).toBe('東京…')
    expect(clip('short', 5)).toBe('short')
    expect(
      table(
        ['a', 'b'],
        [
          ['e\u0301', 'x'],
          ['東', 'y'],
        ],
      ),
    ).toBe('a   b\ne\u0301   x\n東  y')
  })

  it('aligns columns, numbers to the right', () => {
    expect(
      table(
        ['name', 'n>'],
        [
          ['東京', '7'],
          ['a', '12'],
        ],
      ),
    ).toBe('name   n\n東京   7\na     12')
  })

  it('counts', () => {
    expect([count(1, 'edit'), count(1200, 'edit'), count(2, 'batch')]).toEqual(['1 edit', '1,200 edits', '2 batches'])
  })
})

describe('edits', () => {
  it('lists edits, and says how to see the rest', () => {
    const text = editTable({ data: [edit], has_more: true, next_cursor: 'abc', total: 9 })
    expect(text).toContain('x1  live   Eiffel Tower  The Eiffel Tower is in → Lyon  a,b')
    expect(text).toMatch(/1 edit of 9; more with --cursor abc$/)
    expect(editTable({ data: [], has_more: false, next_cursor: null, total: 0 })).toBe('No edits match.')
  })

  it('shows an edit with its history', () => {
    const text = editHistory({
      ...edit,
      state: 'superseded',
      superseded_by: 'x2',
      history: [{ version: 3, at: edit.landed_at, kind: 'add', batch: 'b_1', edit }],
    })
    expect(text).toMatch(/state +superseded by x2/)
    expect(text).toMatch(/3 +2026-01-02 03:04:05 +add +b_1 +The Eiffel Tower is in → Lyon/)
    expect(text).not.toMatch(/relation|target_true|valid/)
  })

  it('shows sentences and rules as what they say', () => {
    const { subject, prompt, target_new, ...rest } = edit
    const sentence: WireEdit = { ...rest, id: 'x2', text: 'We close at 6.', examples: ['Open?', 'When do you close?'] }
    const rule: WireEdit = {
      ...rest,
      id: 'x3',
      when: 'asked for a refund',
      instruction: 'give the link',
      counterexamples: ['Hi'],
    }
    const always: WireEdit = { ...rest, id: 'x4', instruction: 'be brief', always: true }
    const text = editTable({ data: [sentence, rule, always], has_more: false, next_cursor: null, total: 3 })
    expect(text).toMatch(/x2 +live +We close at 6\. +a,b/)
    expect(text).toMatch(/x3 +live +asked for a refund: give the link +a,b/)
    expect(text).toMatch(/x4 +live +always: be brief +a,b/)
    const told = (one: WireEdit) =>
      editHistory({ ...one, history: [{ version: 3, at: edit.landed_at, kind: 'add', batch: 'b_1', edit: one }] })
    expect(told(sentence)).toMatch(/text +We close at 6\.\n.*examples +Open\? \| When do you close\?/)
    expect(told(rule)).toMatch(/when +asked for a refund\n +instruction +give the link\n.*counterexamples +Hi/)
    expect(told(always)).toMatch(/when +always\n +instruction +be brief/)
    expect(told(always)).toMatch(/add +b_1 +always: be brief/)
    expect(told(rule)).not.toMatch(/subject|prompt|target/)
  })

  it('lists batches', () => {
    const batch = { id: 'b_1', landed_at: edit.landed_at, source: 'http', edits: 12, live: 3 }
    expect(batchTable({ data: [batch], has_more: false, next_cursor: null, total: 1 })).toContain(
      'b_1  2026-01-02 03:04:05     12     3  http',
    )
  })

  it('tells what a batch did and what in it may be a slip', () => {
    const landing = {
      object: 'edit.batch',
      id: 'b_1',
      dry_run: true,
      replayed: false,
      version: 1,
      counts: { edits: 2, added: 1, revised: 0, restored: 0, unchanged: 1, superseded: 1, duplicates: 1, conflicts: 0 },
      results: [
        { index: 0, id: 'x', outcome: 'added', state: 'live', supersedes: ['old'], duplicate_of: null, conflicts_with: ['z'] },
        { index: 1, id: 'y', outcome: 'unchanged', state: 'live', supersedes: [], duplicate_of: 0, conflicts_with: [] },
      ],
    } satisfies WireLanding
    expect(landingText(landing, 'f.csv').split('\n')).toEqual([
      'f.csv: 2 edits (batch b_1) would land: 1 added, 0 revised, 1 unchanged',
      '  x supersedes old',
      '  x says something else than z; the last one wins',
      '  record 2 says the same as record 1',
    ])
    expect(landingText({ ...landing, replayed: true, results: [] }, 'f')).toContain('had landed before; nothing was changed')
  })

  const report: WireReport = {
    counts: {
      ...(Object.fromEntries(FINDING_KINDS.map((kind) => [kind, 0])) as WireReport['counts']),
      supersedes: 12,
      misses_own_prompt: 1,
    },
    findings: [
      { kind: 'misses_own_prompt', message: 'it does not apply', edit: { id: 'x', index: 0, line: 1 }, other: null },
      ...Array.from({ length: 12 }, (_, n) => ({
        kind: 'supersedes' as const,
        message: 'takes its place',
        edit: { id: `e${n}`, index: n, line: n + 1 },
        other: { id: 'old', index: null, line: null },
      })),
    ],
    pairs_compared: 7,
    pairs_left: 3,
    fault: null,
  }
  const rehearsed: WireLanding = {
    object: 'edit.batch',
    id: 'b_1',
    dry_run: true,
    replayed: false,
    version: 1,
    counts: { edits: 13, added: 13, revised: 0, restored: 0, unchanged: 0, superseded: 12, duplicates: 0, conflicts: 0 },
    results: [],
    report,
  }

  it('tells what a dry run found, kind by kind, with line and id of both sides', () => {
    const text = landingText(rehearsed, 'f.csv').split('\n')
    expect(text.slice(0, 3)).toEqual([
      'f.csv: 13 edits (batch b_1) would land: 13 added, 0 revised, 0 unchanged',
      '  supersedes: 12',
      '    line 1 (record 1) e0 / old in memory: takes its place',
    ])
    expect(text.slice(12)).toEqual([
      '    … and 2 more',
      '  misses_own_prompt: 1',
      '    line 1 (record 1) x: it does not apply',
      '  3 edits not read: too many',
    ])
  })

  it('tells what a check found: figures, thresholds, and the evidence of what failed', () => {
    const stage = {
      landed: 13,
      ok: false,
      scores: [
        { measure: 'reliability' as const, asked: 10, passed: 9, threshold: 0.9, ok: true },
        { measure: 'generalization' as const, asked: 0, passed: 0, threshold: 0.8, ok: true },
        { measure: 'locality_unrelated' as const, asked: 2, passed: 1, threshold: 0.98, ok: false },
      ],
      failures: [
        {
          measure: 'reliability' as const,
          question: 'Who leads A?',
          editId: 'x1',
          expected: 'Bo',
          answered: { text: 'Nobody', edits: [] },
          base: 'Cy',
        },
        {
          measure: 'locality_unrelated' as const,
          question: 'Two and two?',
          editId: null,
          expected: 'Four',
          answered: { text: 'Bo', edits: ['x1'] },
          base: null,
        },
      ],
    }
    const outcome = { file: 'f.csv', model: 'm', edits: 13, landing: rehearsed, conflicts: 0, maxConflicts: 0 }
    const text = checkText({ ...outcome, result: { stages: [stage], ok: false } })
    expect(text).toContain('    13  reliability             10  90.0 %  59.6–98.2 %      90.0 %  ok')
    expect(text).not.toContain('generalization')
    expect(text.split('\n').slice(-10)).toEqual([
      'Missed with 13 edits landed:',
      '  reliability: 1 question',
      '    Who leads A? (x1)',
      '      target  Bo',
      '      answer  Nobody (no edit applied)',
      '      base    Cy',
      '  locality, unrelated: 1 question',
      '    Two and two?',
      '      before  Four',
      '      answer  Bo (with x1)',
    ])
    expect(checkText({ ...outcome, conflicts: 2, result: null })).toContain('conflicts within the file: 2 (at most 0): failed')
  })

  it('puts a problem on one line', () => {
    expect(problemText({ file: 'a.csv', line: 3, index: 1, field: 'prompt', message: 'is missing' })).toBe(
      'a.csv:3: prompt: is missing',
    )
    expect(problemText({ file: 'a.csv', index: 1, field: null, message: 'no' })).toBe('a.csv:record 2: no')
  })

  it('explains: candidates with the weightiest evidence, and the prompt', () => {
    const explanation = {
      object: 'edit.explanation',
      model: 'm',
      memory_version: 1,
      tokens_added: 14,
      decomposition: { calls: 0, prompt_tokens: 0, completion_tokens: 0 },
      template: { name: 'facts', hash: 'h' },
      turns: [
        {
          turn: 0,
          cached: false,
          considered: [
            {
              id: 'x1',
              subject: 's',
              statement: 'S is T',
              score: 0.9876,
              similarity: null,
              key: null,
              reason: 'selected' as const,
              hop: 2,
              via: 'x0',
              evidence: { a: 0.1, b: 0, c: -0.9 },
            },
          ],
        },
      ],
      adapter: null,
      prompt: { text: 'user: hello', tokens: [1] },
      base: { text: 'user: hello', tokens: [1] },
    } satisfies WireExplanation
    expect(explanationText(explanation, true)).toMatch(
      /x1 +0\.988 +selected \(hop 2\) +S is T +c -0\.9, a 0\.1\n\nPrompt \(template facts, 14 tokens added\):\nuser: hello$/,
    )
    expect(explanationText({ ...explanation, turns: [], template: null }, false)).toMatch(
      /^No edit .*\n\nPrompt \(no edit is rendered; no model is loaded/s,
    )
  })
})

describe('the banner', () => {
  const held = (prompt: string, paraphrases: string[] = []) => ({ edit: { prompt, paraphrases } }) as unknown as HeldEdit

  it('asks about the edit that landed first and has a question', () => {
    expect(sampleQuestion([held('Late is it?'), held('A is', ['Is A so? ']), held('B is')])).toBe('Is A so?')
    expect(sampleQuestion([held('B is')])).toBe('B is')
    expect(sampleQuestion([])).toBeNull()
    const rule = { ...held('someone asks for a refund?'), edit: { ...held('').edit, kind: 'rule' as const } }
    expect(sampleQuestion([rule])).toBeNull()
    expect(sampleQuestion([{ ...rule, edit: { ...rule.edit, examples: ['Can I get my money back?'] } }])).toBe(
      'Can I get my money back?',
    )
  })

  it('quotes for a shell', () => {
    expect(curl('http://h:1', 'm', "What's up?")).toContain("What'\\''s up?")
  })

  const served = {
    version: '1.2.3',
    url: 'http://127.0.0.1:8080',
    model: { name: 'm', family: 'chatml', contextTokens: 4096, device: 'cpu', threads: 2, sha256: null },
    slots: 4,
    faster: 'no',
    buildLog: '/h/build.log',
    dataDir: '/d',
    editsDir: '/e',
    liveEdits: 3,
    files: [{ file: 'edits/a.yaml', edits: 3 }],
    problems: 1,
    sample: 'Who?',
  } as const

  it('says what is served, and how to try both arms', () => {
    const text = banner(served)
    expect(text).toContain('m on cpu, 2 threads; 4 slots of 4,096 tokens')
    expect(text).not.toContain('engine build')
    expect(banner({ ...served, faster: 'by hand' })).toContain('palimpsest engine build --server')
    expect(banner({ ...served, faster: 'being built' })).toContain('about 5 minutes, at low priority; --no-build leaves it out')
    expect(banner({ ...served, faster: 'failed lately' })).toMatch(/\/h\/build\.log.*palimpsest engine build --server --force/)
    expect(text).toContain('3 edits live; 3 from edits/a.yaml, 1 problem in /e, see above')
    expect(text.match(/^ {2}curl .*$/gm)).toHaveLength(2)
    expect(text).toContain('"model":"m@base"')
  })

  it('does without edits', () => {
    const text = banner({ ...served, liveEdits: 0, files: [], problems: 0, sample: null })
    expect(text).toContain('none in /e')
    expect(text.match(/^ {2}curl .*$/gm)).toHaveLength(1)
  })
})

it('query leaves out what is not given, and escapes', () => {
  expect(query({ a: undefined })).toBe('')
  expect(query({ a: 'x y', b: undefined, c: '&' })).toBe('?a=x+y&c=%26')
})

it('lines come whole, however the bytes are cut', async () => {
  const bytes = new TextEncoder().encode('{"a":"é"}\n\n{"b":1}\nend')
  for (const size of [1, 2, 5, 100]) {
    const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.slice(i * size, (i + 1) * size))
    const found: string[] = []
    for await (const line of lines(chunks)) found.push(line)
    expect(found).toEqual(['{"a":"é"}', '{"b":1}', 'end'])
  }
})
