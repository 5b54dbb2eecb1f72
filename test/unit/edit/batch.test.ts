import { readdirSync, readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { batchHash, type ParseOptions, PROBLEMS_LISTED, parseBatch } from '../../../src/edit/batch.ts'
import { statement } from '../../../src/edit/edit.ts'
import { PalimpsestError, type Problem } from '../../../src/errors.ts'

const a = { subject: 'Veldt', prompt: '{} lies in', target_new: 'Orrin' }
const b = { subject: 'Ada Quill', prompt: '{} plays the', target_new: 'oboe' }
const read = (text: string | Uint8Array, options: Partial<ParseOptions> = {}) =>
  parseBatch(text, { tenant: 'default', ...options })

function refused(text: string | Uint8Array, options: Partial<ParseOptions> = {}): PalimpsestError {
  try {
    read(text, options)
  } catch (error) {
    expect(error).toBeInstanceOf(PalimpsestError)
    return error as PalimpsestError
  }
  throw new Error('was taken')
}

const places = (problems: readonly Problem[]) => problems.map(({ line, index, field }) => [line, index, field])

describe('JSON', () => {
  test.each([
    ['one object', JSON.stringify(a), 1, [1]],
    ['a list', JSON.stringify([a, b]), 2, [1, 1]],
    ['a pretty list', JSON.stringify([a, b], null, 2), 2, [2, 7]],
    ['a pretty envelope', `\n${JSON.stringify({ tags: ['x'], edits: [a, b] }, null, 1)}`, 2, [7, 12]],
    ['NDJSON', `${JSON.stringify(a)}\n\n${JSON.stringify(b)}\n`, 2, [1, 3]],
    ['NDJSON with CRLF', `${JSON.stringify(a)}\r\n${JSON.stringify(b)}\r\n`, 2, [1, 2]],
    ['a byte order mark', `\uFEFF${JSON.stringify([a])}`, 1, [1]],
  ])('%s', (_, text, count, lines) => {
    for (const input of [text, Buffer.from(text)]) {
      const batch = read(input)
      expect(batch.edits).toHaveLength(count)
      expect(batch.lines).toEqual(lines)
      expect(batch.format).toBe('palimpsest')
    }
  })

  test('every problem of a pretty list, at the line of its record', () => {
    const flawed = [a, { ...a, target: 'x' }, b, { requested_rewrite: { ...a, target_new: { str: 5.5 } } }, { what: '] { "' }]
    const error = refused(JSON.stringify(flawed, null, 2), { file: 'new.json' })
    expect(error.code).toBe('invalid_batch')
    expect(places(error.problems)).toEqual([
      [7, 1, 'target'],
      [18, 3, 'requested_rewrite.target_new.str'],
      [27, 4, null],
    ])
    expect(error.problems.every(({ file }) => file === 'new.json')).toBe(true)
    expect(error.message).toBe(
      'new.json has 3 problems in 5 records, and nothing of it was taken. line 7, target: unknown field `target`; did you mean `target_new`?',
    )
  })

  test.each([
    ['[\n {"subject": "a",\n  "prompt": }\n]', 3, 'at column 13 expected a value, but there is "}"'],
    ['[{"a": 1},\n]', 2, 'expected a value, but there is "]"'],
    ['[1,\n2', 2, 'expected "," or the end of the list or object, but the text ends'],
    ['{"a" 1}', 1, 'expected ":"'],
    ["{'a': 1}", 1, 'expected a field name in double quotes'],
    ['[{"a": "x\ny"}]', 1, 'expected a text that ends and escapes that exist'],
    ['[{"a": "\\x"}]', 1, 'expected a text that ends and escapes that exist'],
    ['[] []', 1, 'expected nothing more'],
    ['[01]', 1, 'but there is "1"'],
  ])('%j is not JSON at line %i', (text, line, message) => {
    const [problem, ...others] = refused(text).problems
    expect(others).toEqual([])
    expect(problem).toMatchObject({ line, field: null, message: expect.stringContaining(message) })
  })

  test('our eye for broken JSON agrees with JSON.parse', { timeout: 60_000 }, () => {
    const cut = fc.tuple(
      fc.json(),
      fc.nat(),
      fc.constantFrom('', ',', '}', ']', '"', '\\', '0', ':', ' ', '\n', '\u0007', '\u007f'),
    )
    fc.assert(
      fc.property(cut, ([json, nat, insert]) => {
        const at = nat % (json.length + 1)
        const text = `[${json.slice(0, at)}${insert}${json.slice(at)}]`
        if (isSentences(text)) return
        const problems = refused(text, { kind: 'json' }).problems
        let valid = true
        try {
          JSON.parse(text)
        } catch {
          valid = false
        }
        expect(problems[0]?.message.startsWith('not JSON: at')).toBe(!valid)
      }),
      { numRuns: 200 },
    )
  })

  test('depth costs no stack', () => {
    expect(refused('['.repeat(200_000)).problems[0]?.message).toContain('the text ends')
    expect(refused(`${'['.repeat(100_000)}${']'.repeat(100_000)}`).problems[0]?.message).toContain('got a list of 1')
  })
})

/** A list of nothing but texts is a batch. */
function isSentences(text: string): boolean {
  try {
    return (JSON.parse(text) as unknown[]).every((one) => typeof one === 'string' && one.trim() !== '')
  } catch {
    return false
  }
}

describe('NDJSON', () => {
  test('broken lines and bad records are told apart, counted and all reported', () => {
    const text = [JSON.stringify(a), '{"subject": "x",', '', JSON.stringify({ ...b, prompt: '' }), '[]', JSON.stringify(b)].join(
      '\n',
    )
    const error = refused(text)
    expect(places(error.problems)).toEqual([
      [2, 1, null],
      [4, 2, 'prompt'],
      [5, 3, null],
    ])
  })

  test('a broken first line does not hide the notation', () => {
    expect(places(refused(`{"subject": \n${JSON.stringify(a)}\n${JSON.stringify(b)}`).problems)).toEqual([[1, 0, null]])
  })
})

describe('YAML', () => {
  test('a list; plain scalars stay texts', () => {
    const batch = read('# facts\n- subject: Veldt 2\n  prompt: "{} has version"\n  target_new: 3.10\n  aliases: [yes, 1e3]\n', {
      file: 'x.yaml',
    })
    expect(batch.edits[0]).toMatchObject({ prompt: 'Veldt 2 has version', targetNew: '3.10', aliases: ['yes', '1e3'] })
    expect(batch.lines).toEqual([2])
  })

  test('a map with tenant and tags', () => {
    const text =
      'tenant: acme\ntags: [geo]\nedits:\n\n  - {subject: Veldt, prompt: Veldt lies in, target_new: Orrin}\n  - subject: Ada\n    prompt: Ada is\n    target_new: in\n'
    const batch = read(text, { kind: 'yaml', tenants: 'any', tags: ['file'] })
    expect(batch.edits.map(({ tenant, tags }) => [tenant, tags])).toEqual(Array(2).fill(['acme', ['geo', 'file']]))
    expect(batch.lines).toEqual([5, 6])
    expect(refused(text, { kind: 'yaml' }).problems[0]).toMatchObject({
      field: 'tenant',
      message: expect.stringContaining('"acme"'),
    })
  })

  test.each([
    ['- subject: Veldt\n  prompt: {} lies in\n', 2, /^not YAML/],
    ['- subject: a\n  subject: b\n', 2, /^not YAML: the key "subject" is named twice/],
    ['edits:\n- subject: a\n  prompt: b\n  target_new:\n', 2, /^must not be empty/],
    ['edit:\n- subject: a\n', 1, /^record has fields edit; expected/],
    ['edits: 3\n', 1, /^expected a list of edits/],
    ['edits: []\nowner: me\n', undefined, /^beside `edits`, unknown field `owner`/],
    ['hello', 1, /^expected an object with the fields of an edit, got "hello"/],
    ['# nothing yet\n', undefined, /^the batch is empty/],
    [
      `a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c]`,
      1,
      /^not YAML that can be read/,
    ],
    ['- a: 1\n---\n- b: 2\n', 2, /^not YAML that can be read: a second document/],
    ['---\n', undefined, /^the batch is empty/],
  ])('%j', (text, line, message) => {
    const [problem] = refused(text, { kind: 'yaml' }).problems
    expect(problem?.line).toBe(line)
    expect(problem?.message).toMatch(message)
  })
})

// Nesting that would end the composer's call stack ends the process, not just the parse.
test.each(['[', '- ', '{a: ', '? '])('YAML nested without end is refused: %j', (opening) => {
  expect(refused(opening.repeat(5_000), { kind: 'yaml' }).problems[0]?.message).toContain('nested more than 100 levels deep')
})

describe('CSV', () => {
  test('a header of our names, lists at bars, quotes, BOM, CRLF, lines counted through quoted newlines', () => {
    const text =
      '\uFEFFsubject,prompt,target_new,aliases,valid_from\r\nVeldt,"{} lies, as\r\nmaps say, in",Orrin,Old Veldt| V ,\r\n\r\nAda Quill,{} plays the,"the ""oboe""",,2025-05-08\r\n'
    const batch = read(text, { file: 'facts.csv' })
    expect(batch.edits).toMatchObject([
      { prompt: 'Veldt lies, as\nmaps say, in', targetNew: 'Orrin', aliases: ['Old Veldt', 'V'] },
      { targetNew: 'the "oboe"', aliases: [], validFrom: Date.UTC(2025, 4, 8) },
    ])
    expect(batch.lines).toEqual([2, 5])
    expect(read(text)).toEqual(batch)
  })

  test.each([
    [
      'subject,prompt,target\nx,y,z\n',
      1,
      undefined,
      'target',
      /the header row names an unknown field `target`; did you mean `target_new`/,
    ],
    ['subject,prompt,prompt\nx,y,z\n', 1, undefined, 'prompt', /twice/],
    ['subject,prompt,target_new\nx,y,z\na,b\n', 3, undefined, null, /has 2 cells, but the header row names 3/],
    ['subject,prompt,target_new\nx,"y\n1",z\na,,c\n', 4, 1, 'prompt', /is missing/],
    ['subject,prompt,target_new\nx,"y"1,z\n', 2, undefined, null, /^not CSV/],
    ['subject,prompt,target_new\n', undefined, undefined, null, /^the batch is empty/],
  ])('%j', (text, line, index, field, message) => {
    const problem = refused(text, { kind: 'csv' }).problems.find((found) => message.test(found.message))
    expect(problem).toMatchObject({ field })
    expect([problem?.line, problem?.index]).toEqual([line, index])
  })
})

describe('which notation', () => {
  test.each<[Partial<ParseOptions>, string]>([
    [{ contentType: 'application/json; charset=utf-8' }, JSON.stringify([a])],
    [{ contentType: 'application/json' }, `${JSON.stringify(a)}\n${JSON.stringify(b)}`],
    [{ contentType: 'application/x-ndjson' }, JSON.stringify(a)],
    [{ contentType: 'text/csv' }, 'subject,prompt,target_new\na,b,c'],
    [{ contentType: 'application/yaml' }, '- {subject: a, prompt: b, target_new: c}'],
    [{ file: 'x.jsonl' }, JSON.stringify(a)],
    [{ file: 'x.YML' }, '- {subject: a, prompt: b, target_new: c}'],
    [{}, 'subject,prompt,target_new\na,b,c'],
    [{}, '- subject: a\n  prompt: b\n  target_new: c'],
    [{ contentType: 'text/plain' }, JSON.stringify(a)],
    [{ contentType: 'text/plain' }, 'subject,prompt,target_new\na,b,c'],
    [{ file: 'x.txt' }, '# ours\n\n- subject: a\n  prompt: b\n  target_new: c'],
  ])('%j', (options, text) => {
    expect(read(text, options).edits.length).toBeGreaterThan(0)
  })

  test('JSON is not read as YAML where JSON was said', () => {
    expect(refused('hello', { contentType: 'application/json' }).problems[0]?.message).toContain('not JSON')
    expect(refused('', { file: 'x.json' }).problems[0]?.message).toContain('not JSON')
  })

  test('an unknown media type', () => {
    expect(refused('x', { contentType: 'image/png' })).toMatchObject({ code: 'unsupported_media_type', status: 415 })
  })

  test('bytes that are no UTF-8, with their line', () => {
    const text = Buffer.concat([Buffer.from('[\n'), Buffer.from([0x22, 0xe9, 0x22, 0x0a]), Buffer.from(']')])
    expect(refused(text).problems[0]).toMatchObject({ line: 2, message: expect.stringContaining('not UTF-8') })
  })
})

describe('sentences and rules', () => {
  const sentence = (prompt: string) => ({ kind: 'sentence', prompt, targetNew: '', subject: '' })

  test.each<Partial<ParseOptions>>([{ contentType: 'text/plain; charset=utf-8' }, { file: 'notes.TXT' }, { kind: 'text' }])(
    'plain text is one sentence a line: %j',
    (options) => {
      const batch = read('\uFEFF# Ours\r\nWe close at 6: no later.\r\n\r\n  Refunds take 30 days, "no" more. \r\n# end', options)
      expect(batch.edits).toMatchObject([sentence('We close at 6: no later.'), sentence('Refunds take 30 days, "no" more.')])
      expect(batch).toMatchObject({ lines: [2, 4], format: 'palimpsest' })
    },
  )

  test.each([
    [
      'json',
      '["Refunds take 30 days.",\n {"when": "asked for a refund", "instruction": "give the link"},\n {"prompt": "Our CEO is", "target_new": "Ada"}]',
    ],
    [
      'yaml',
      '- Refunds take 30 days.\n- {when: asked for a refund, instruction: give the link}\n- {prompt: Our CEO is, target_new: Ada}',
    ],
    [
      'ndjson',
      '"Refunds take 30 days."\n{"when": "asked for a refund", "instruction": "give the link"}\n{"prompt": "Our CEO is", "target_new": "Ada"}',
    ],
  ] as const)('a list mixes texts and objects: %s', (kind, text) => {
    expect(read(text, { kind }).edits).toMatchObject([
      sentence('Refunds take 30 days.'),
      { kind: 'rule', prompt: 'asked for a refund', targetNew: 'give the link' },
      { prompt: 'Our CEO is', targetNew: 'Ada' },
    ])
  })

  test('a table has columns for all kinds', () => {
    const text =
      'prompt,target_new,text,when,instruction,always,examples\nOur CEO is,Ada,,,,false,\n,,We close at 6.,,,,Are you open?|When do you close?\n,,,,answer in French,true,\n'
    expect(read(text, { kind: 'csv' }).edits).toMatchObject([
      { prompt: 'Our CEO is', targetNew: 'Ada' },
      { ...sentence('We close at 6.'), examples: ['Are you open?', 'When do you close?'] },
      { kind: 'rule', prompt: '', targetNew: 'answer in French', always: true },
    ])
  })

  test('a bad line of any kind refuses the batch, by line and field', () => {
    const bad = '["fine",\n " ",\n {"when": "x", "instruction": "y", "target_new": "z"},\n {"instruction": "y"}]'
    expect(places(refused(bad).problems)).toEqual([
      [2, 1, 'text'],
      [3, 2, 'target_new'],
      [4, 3, 'when'],
    ])
    expect(places(refused(`fine\n\nbroken \u0007 here`, { kind: 'text' }).problems)).toEqual([[3, 1, 'text']])
  })

  test('a text that stands alone is no batch, and says how it would be one', () => {
    expect(refused('"We close at 6."', { kind: 'json' }).message).toContain('one a line as plain text')
  })
})

describe('the batch as a whole', () => {
  test('several formats in one batch', () => {
    const zs = { subject: 'MV Quill', src: 'When did MV Quill sail?', alt: '1991', answers: ['1988'] }
    expect(read(JSON.stringify([a, zs]))).toMatchObject({
      format: 'mixed',
      edits: [{ subject: 'Veldt' }, { subject: 'MV Quill' }],
    })
    expect(read(JSON.stringify([zs])).format).toBe('zsre')
  })

  test('one ConflictEdit record is not taken for an envelope', () => {
    const change = {
      relation: { id: 'P1', prompt: '{} is' },
      subject: { label: 'a' },
      object: { label: 'b' },
      new_object: { label: 'c' },
    }
    expect(read(JSON.stringify({ triples: [], edits: [change, change] }))).toMatchObject({
      format: 'conflictedit',
      lines: [1, 1],
    })
  })

  test('exact duplicates stay, for the landing to report', () => {
    const { edits } = read(JSON.stringify([a, a]))
    expect(edits[0]?.id).toBe(edits[1]?.id)
  })

  test.each(['[]', '{"edits": []}', '\n\n'])('%j is empty', (text) => {
    expect(refused(text).message).toBe(
      'The batch has one problem, and nothing of it was taken. the batch is empty; expected at least one edit.',
    )
  })

  test('at most a hundred problems are listed, all are counted', () => {
    const error = refused(JSON.stringify(Array(250).fill({ subject: 'x', prompt: 'y' })))
    expect(error.problems).toHaveLength(PROBLEMS_LISTED)
    expect(error.message).toContain('250 problems in 250 records; the first 100 are listed')
  })

  test('too many edits', () => {
    expect(refused(`[${'0,'.repeat(200_000)}0]`)).toMatchObject({ code: 'request_too_large', status: 413 })
  })

  test('the batch hash: same content same hash, in order, and any field counts', () => {
    const hash = (records: object[]) => batchHash(read(JSON.stringify(records)).edits)
    expect(hash([a, b])).toMatch(/^b_[0-9a-f]{16}$/)
    expect(hash([a, b])).toBe(batchHash(read(`${JSON.stringify(a)}\n${JSON.stringify(b)}`).edits))
    expect(new Set([hash([a, b]), hash([b, a]), hash([a]), hash([a, { ...b, tags: ['x'] }])]).size).toBe(4)
  })
})

describe('whatever comes in, an answer or a PalimpsestError comes out', { timeout: 60_000 }, () => {
  const settle = (text: string | Uint8Array, options: Partial<ParseOptions>) => {
    try {
      expect(read(text, options).edits.length).toBeGreaterThan(0)
    } catch (error) {
      if (!(error instanceof PalimpsestError)) throw error
      expect(error.code).toBe('invalid_batch')
      expect(error.problems.length).toBeGreaterThan(0)
      expect(
        error.problems.every(
          ({ field, message }) => typeof message === 'string' && (field === null || typeof field === 'string'),
        ),
      ).toBe(true)
    }
  }
  const KEYS = [
    ...[
      'subject',
      'prompt',
      'target_new',
      'target_true',
      'aliases',
      'tags',
      'id',
      'valid_from',
      'requested_rewrite',
      'edits',
      'new_object',
      'relation',
      'label',
    ],
    ...[
      'src',
      'alt',
      'old',
      'answers',
      'prompts',
      'ground_truth',
      'portability',
      'locality',
      'concept',
      'text',
      'labels',
      'str',
      '__proto__',
      'constructor',
      '0',
    ],
  ]
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: 'small' },
      fc.jsonValue(),
      fc.constantFrom('{} is', 'x', '2025-01-01'),
      tie('record'),
      fc.array(tie('value'), { maxLength: 3 }),
    ),
    record: fc.dictionary(fc.constantFrom(...KEYS), tie('value'), { maxKeys: 8 }),
  }))
  const format = fc.constantFrom(
    'auto' as const,
    'palimpsest',
    'easyedit',
    'counterfact',
    'zsre',
    'knowedit',
    'mquake',
    'wikifactdiff',
    'conflictedit',
    'personalityedit',
    'convsent',
  )

  test('any JSON value, under any format', () => {
    fc.assert(
      fc.property(value, format, (json, as) => settle(JSON.stringify(json), { format: as as 'auto' })),
      { numRuns: 400 },
    )
  })

  test('any text or bytes, in any notation', () => {
    const kind = fc.constantFrom('auto' as const, 'json', 'ndjson', 'yaml', 'csv', 'text')
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.string().map((s) => `subject,prompt\n${s}`),
      fc.uint8Array(),
      fc.string().map((s) => `- ${s}\n- a: ${s}`),
    )
    fc.assert(
      fc.property(text, kind, (input, as) => settle(input, { kind: as as 'auto' })),
      { numRuns: 400 },
    )
  })
})

const EDITS = new URL('../../../edits/', import.meta.url)

describe('the edits that come with the gateway', () => {
  test.each(readdirSync(EDITS).filter((file) => /\.(ya?ml|csv|jsonl)$/.test(file)))('%s is sound', (file) => {
    const { edits } = read(readFileSync(new URL(file, EDITS)), { file })
    expect(edits.length).toBeGreaterThan(0)
    expect(new Set(edits.map(({ id }) => id)).size).toBe(edits.length)
    for (const edit of edits) {
      expect(edit.source, statement(edit)).toBeDefined()
      expect(edit.prompt).toContain(edit.subject)
    }
  })
})

describe('CSV as programs write it', () => {
  const LUND = ['Lund', 'The mayor of Lund is', 'Ada']
  const ROME = ['Rome', 'The mayor of Rome is', 'Bo']
  const HEAD = ['subject', 'prompt', 'target_new']
  const read = (text: string) =>
    parseBatch(Buffer.from(text), { tenant: 'default' }).edits.map(({ subject, prompt, targetNew }) => [
      subject,
      prompt,
      targetNew,
    ])

  test.each([
    ['with empty lines', ',', '', '\n\n'],
    ['with rows of empty cells', ',', '', '\n,,\n'],
    ['with a comma at the end of each line', ',', ',', '\n'],
    ['with semicolons', ';', '', '\n'],
    ['with semicolons, one at the end of each line, and Windows’ line ends', ';', ';', '\r\n'],
    ['with tabs', '\t', '', '\n'],
    ['with tabs and rows of empty cells', '\t', '\t', '\n\t\t\n'],
  ])('%s', (_, delimiter, end, between) => {
    const text = [HEAD, LUND, ROME].map((row) => row.join(delimiter) + end).join(between)
    expect(read(text)).toEqual([LUND, ROME])
  })

  test('a cell too many that holds something is told by its line', () => {
    const text = `${HEAD.join(',')}\n${LUND.join(',')}\n\n${ROME.join(',')},surplus\n`
    expect(() => read(text)).toThrow(/line 4: has 4 cells, but the header row names 3/)
  })

  test('a header of a hundred thousand columns is one problem', () => {
    const text = `${HEAD.join(',')},${Array.from({ length: 100_000 }, (_, i) => `c${i}`).join(',')}\n`
    expect(() => read(text)).toThrow(/the header row has 100003 columns/)
  })
})
