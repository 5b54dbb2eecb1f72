import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Edit, LIMITS } from '../../../src/edit/edit.ts'
import { type ReadContext, readFields, toWire } from '../../../src/edit/own.ts'

const context: ReadContext = { tenant: 'default', tags: [], tenants: 'any' }
const least = { subject: 'Veldt', prompt: '{} is the capital of', target_new: 'Orrin' }

function edit(fields: object, over: Partial<ReadContext> = {}): Edit {
  const { edits, problems } = readFields({ ...least, ...fields }, { ...context, ...over })
  expect(problems).toEqual([])
  return edits[0] as Edit
}

function problems(fields: object, over: Partial<ReadContext> = {}): [string | null, string][] {
  const read = readFields({ ...least, ...fields }, { ...context, ...over })
  expect(read.edits).toEqual([])
  return read.problems.map(({ field, message }) => [field, message])
}

describe('fields of our own shape', () => {
  test('the least that makes an edit: subject filled in, nothing invented', () => {
    expect(edit({})).toEqual({
      id: expect.stringMatching(/^e_[0-9a-f]{16}$/),
      subject: 'Veldt',
      aliases: [],
      prompt: 'Veldt is the capital of',
      targetNew: 'Orrin',
      paraphrases: [],
      tags: [],
      tenant: 'default',
    })
  })

  test('all of them', () => {
    const read = edit({
      id: 'ticket:7',
      aliases: ['Old Veldt', 'Veldt City', 'Old Veldt'],
      target_true: 'Harrow',
      relation: 'capital of',
      paraphrases: ['Of which land is {} the capital?'],
      tags: ['geo'],
      tenant: 'acme',
      models: ['qwen*'],
      valid_from: '2025-05-08',
      valid_to: '2026-01-01T00:00:00+02:00',
      source: 'atlas, p. 3',
    })
    expect(read).toMatchObject({
      id: 'ticket:7',
      aliases: ['Old Veldt', 'Veldt City'],
      targetTrue: 'Harrow',
      relation: 'capital of',
      paraphrases: ['Of which land is Veldt the capital?'],
      tags: ['geo'],
      tenant: 'acme',
      models: ['qwen*'],
      validFrom: Date.UTC(2025, 4, 8),
      validTo: Date.UTC(2025, 11, 31, 22),
      source: 'atlas, p. 3',
    })
  })

  test('the content id is the same for the same statement, another for another tenant or target', () => {
    const { id } = edit({})
    expect(edit({ prompt: 'Veldt is the capital of', aliases: ['V'], tags: ['x'] }).id).toBe(id)
    expect(edit({}, { tenant: 'acme' }).id).not.toBe(id)
    expect(edit({ target_new: 'Harrow' }).id).not.toBe(id)
  })

  test('text is trimmed, line ends made plain, null and blank mean absent', () => {
    const read = edit({
      subject: ' Veldt ',
      target_new: '\tOrrin\r\nand more ',
      target_true: null,
      relation: '  ',
      aliases: null,
    })
    expect(read).toMatchObject({ subject: 'Veldt', targetNew: 'Orrin\nand more', aliases: [] })
    expect(Object.keys(read)).not.toContain('relation')
    expect(Object.keys(read)).not.toContain('targetTrue')
  })

  test('the batch tags join the record tags once', () => {
    expect(edit({ tags: ['a', 'b'] }, { tags: ['b', 'c'] }).tags).toEqual(['a', 'b', 'c'])
  })

  test('a subject full of replacement patterns is filled in as it is', () => {
    expect(edit({ subject: "$& $' {{x}}" }).prompt).toBe("$& $' {{x}} is the capital of")
  })

  test('text that would be markup elsewhere is data here', () => {
    const nasty = '</s>[INST] <<SYS>> <|im_start|>system {{constructor}} {{> x}}'
    expect(edit({ target_new: nasty }).targetNew).toBe(nasty)
  })
})

describe('what is refused, and under which name', () => {
  test.each([
    [{ target: 'x' }, 'target', 'unknown field `target`; did you mean `target_new`?'],
    [{ targetNew: 'x' }, 'targetNew', 'unknown field `targetNew`; did you mean `target_new`?'],
    [{ alias: ['x'] }, 'alias', 'unknown field `alias`; did you mean `aliases`?'],
    [{ ground_truth: 'x' }, 'ground_truth', 'unknown field `ground_truth`; did you mean `target_true`?'],
    [{ paraphrase: 'x' }, 'paraphrase', 'unknown field `paraphrase`; did you mean `paraphrases`?'],
    [
      { zzzzqq: 1 },
      'zzzzqq',
      `unknown field \`zzzzqq\`; the fields are id, subject, ${['aliases', 'prompt', 'target_new'].join(', ')}`,
    ],
    [{ subject: '' }, 'prompt', '`{}` stands for the subject, and there is none'],
    [{ subject: 3 }, 'subject', 'expected a text, got 3'],
    [{ examples: Array.from({ length: 33 }, (_, i) => `m${i}`) }, 'examples', 'has 33 entries; at most 32'],
    [{ counterexamples: ['ok', ''] }, 'counterexamples.1', 'must not be empty'],
    [{ prompt: null }, 'prompt', 'got null'],
    [{ target_new: 2006 }, 'target_new', 'got 2006; put it in quotes'],
    [{ target_new: ' \n ' }, 'target_new', 'must not be empty'],
    [{ subject: 'Vel\u0000dt' }, 'subject', 'holds U+0000'],
    [{ target_new: 'a\u0085b' }, 'target_new', 'holds U+0085'],
    [{ prompt: 'half \ud83d a pair' }, 'prompt', 'holds U+D83D'],
    [
      { subject: 'x'.repeat(LIMITS.subjectChars + 1) },
      'subject',
      `has ${LIMITS.subjectChars + 1} characters; at most ${LIMITS.subjectChars}`,
    ],
    [{ prompt: '{} and {} are' }, 'prompt', '`{}` stands for the subject and may occur once'],
    [{ paraphrases: ['fine', '{}{}'] }, 'paraphrases.1', '`{}` stands for the subject'],
    [{ subject: 'a{}b' }, 'prompt', '`{}` stands for the subject'],
    [{ prompt: `{}${'x'.repeat(LIMITS.promptChars - 2)}` }, 'prompt', 'with the subject filled in'],
    [{ aliases: 'Old Veldt' }, 'aliases', 'expected a list of texts, got "Old Veldt"'],
    [{ aliases: ['ok', 3] }, 'aliases.1', 'expected a text, got 3'],
    [{ tags: Array.from({ length: 33 }, (_, i) => `t${i}`) }, 'tags', 'has 33 entries; at most 32'],
    [{ id: 'two words' }, 'id', 'must begin with a letter or digit'],
    [{ id: '../x' }, 'id', 'must begin with a letter or digit'],
    [{ tenant: 'a\nb' }, 'tenant', 'must begin with a letter or digit'],
    [{ valid_from: '2025-02-30' }, 'valid_from', 'is not a day and time that exists'],
    [{ valid_from: '2025-02-28T24:00Z' }, 'valid_from', 'is not a day and time that exists'],
    [{ valid_from: '2025-05-08T10:00:00' }, 'valid_from', 'has no zone'],
    [{ valid_from: '8 May 2025' }, 'valid_from', 'expected an ISO 8601 date'],
    [{ valid_from: 1746662400 }, 'valid_from', 'got 1746662400'],
    [{ valid_to: '9999-12-31T23:59:59-01:00' }, 'valid_to', 'outside the years 0000 to 9999'],
    [{ valid_from: '2025-05-08', valid_to: '2025-05-08' }, 'valid_to', 'must be later than valid_from'],
  ])('%j', (fields, field, message) => {
    const found = problems(fields)
    expect(found.map(([at]) => at)).toEqual([field])
    expect(found[0]?.[1]).toContain(message)
  })

  test('every fault of a record at once, a misspelt name first', () => {
    const fields = { subject: 'Veldt', promt: 'x', target_new: '', valid_to: 'soon' }
    expect(readFields(fields, context).problems.map(({ field }) => field)).toEqual(['promt', 'prompt', 'target_new', 'valid_to'])
  })

  test("another tenant's name, where a batch is one tenant's", () => {
    expect(problems({ tenant: 'acme' }, { tenants: 'one' })[0]).toEqual([
      'tenant',
      expect.stringContaining('this batch is for tenant "default"'),
    ])
    expect(edit({ tenant: 'default' }, { tenants: 'one' }).tenant).toBe('default')
  })

  test('a key named __proto__ is unknown like any other', () => {
    const read = readFields(
      JSON.parse('{"__proto__": {"subject": "x"}, "subject": "a", "prompt": "b", "target_new": "c"}'),
      context,
    )
    expect(read.problems.map(({ field }) => field)).toEqual(['__proto__'])
  })
})

describe('sentences, rules and facts without a subject', () => {
  const read = (fields: object) => readFields(fields, context)
  const one = (fields: object) => {
    const { edits, problems } = read(fields)
    expect(problems).toEqual([])
    return edits[0] as Edit
  }
  const rest = { aliases: [], paraphrases: [], tags: [], tenant: 'default', subject: '' }

  test('the least that makes each', () => {
    const id = expect.stringMatching(/^e_[0-9a-f]{16}$/)
    expect(one({ prompt: 'Our refund window is', target_new: '30 days' })).toEqual({
      ...{ id, prompt: 'Our refund window is', targetNew: '30 days' },
      ...rest,
    })
    expect(one({ text: 'A dict is written {}.' })).toEqual({
      ...{ kind: 'sentence', id, prompt: 'A dict is written {}.', targetNew: '' },
      ...rest,
    })
    expect(one({ when: 'someone asks for legal advice', instruction: 'refer them to a lawyer' })).toEqual({
      ...{ kind: 'rule', id, prompt: 'someone asks for legal advice', targetNew: 'refer them to a lawyer' },
      ...rest,
    })
    expect(one({ always: true, instruction: 'answer in French' })).toEqual({
      ...{ kind: 'rule', id, prompt: '', targetNew: 'answer in French', always: true },
      ...rest,
    })
  })

  test('each takes a subject, examples and what else an edit takes', () => {
    const fields = { subject: 'Veldt', aliases: ['V'], paraphrases: ['p'], examples: ['a'], counterexamples: ['b'], tags: ['t'] }
    for (const said of [{ text: 's' }, { when: 'w', instruction: 'i' }, { prompt: 'p', target_new: 't' }])
      expect(one({ ...said, ...fields, source: 'x', models: ['*'] })).toMatchObject({ ...fields, source: 'x', models: ['*'] })
  })

  test('the same words make another edit as another kind', () => {
    const ids = [
      { text: 'a' },
      { when: 'a', instruction: 'a' },
      { prompt: 'a', target_new: 'a' },
      { instruction: 'a', always: true },
    ]
    expect(new Set(ids.map((fields) => one(fields).id)).size).toBe(4)
  })

  test('null, blank and false say nothing of another kind', () => {
    const fields = { text: ' ', when: null, instruction: '', always: false }
    expect(one({ prompt: 'p', target_new: 't', ...fields })).not.toHaveProperty('kind')
    expect(one({ when: 'w', instruction: 'i', always: false, prompt: '', target_new: null })).not.toHaveProperty('always')
  })

  test.each<[object, [string, string][]]>([
    [
      { when: 'w', instruction: 'i', target_new: 't' },
      [['target_new', 'a rule has no target_new; say what to do in instruction']],
    ],
    [{ when: 'w', instruction: 'i', text: 't' }, [['text', 'a rule has no text; say what to do in instruction']]],
    [{ instruction: 'i', prompt: 'p', always: true }, [['prompt', 'a rule has no prompt; say which messages it is for in when']]],
    [
      { text: 't', prompt: 'p', relation: 'r' },
      [
        ['prompt', 'a sentence has no prompt; say it whole in text'],
        ['relation', 'a sentence has no relation; leave it out'],
      ],
    ],
    [{ when: 'w' }, [['instruction', 'is missing; expected a text, what is to be done']]],
    [
      { instruction: 'i' },
      [['when', 'is missing; expected a text, which messages it is for; for every message write `always: true`']],
    ],
    [
      { when: 'w', instruction: 'i', always: true },
      [['when', 'a rule with `always` is for every message; leave out one of the two']],
    ],
    [{ instruction: 'i', always: 'yes' }, [['always', 'expected true or false, got "yes"']]],
    [{ text: ' ' }, [['text', 'must not be empty']]],
    [{ text: 7 }, [['text', 'expected a text, a sentence that is true from now on, got 7; put it in quotes']]],
    [
      { when: 'w', instrction: 'i' },
      [
        ['instrction', 'unknown field `instrction`; did you mean `instruction`?'],
        ['instruction', 'is missing; expected a text, what is to be done'],
      ],
    ],
    [
      { prompt: '{} is', target_new: 't' },
      [['prompt', '`{}` stands for the subject, and there is none; give subject, or write the name out']],
    ],
  ])('%j is refused by field', (fields, expected) => {
    expect(read(fields).problems.map(({ field, message }) => [field, message])).toEqual(expected)
  })
})

const clean = (max: number) =>
  fc
    .string({ unit: 'grapheme', minLength: 1, maxLength: 40 })
    .map((s) => s.replace(/\p{Cc}|\p{Cs}/gu, '').trim())
    .filter((s) => s !== '' && s.length <= max)
const plainName = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._:@+-]{0,20}$/)
const moment = fc.integer({ min: Date.parse('0000-01-01T00:00:00Z'), max: Date.parse('9999-12-31T00:00:00Z') })
const several = (max: number) => fc.uniqueArray(clean(max), { maxLength: 5 })

const anyEdit: fc.Arbitrary<Edit> = fc
  .record(
    {
      id: plainName,
      subject: clean(LIMITS.subjectChars),
      aliases: several(LIMITS.subjectChars),
      prompt: clean(LIMITS.promptChars),
      targetNew: clean(LIMITS.targetChars),
      targetTrue: clean(LIMITS.targetChars),
      relation: clean(LIMITS.subjectChars),
      paraphrases: several(LIMITS.promptChars),
      tags: several(LIMITS.tagChars),
      tenant: plainName,
      models: fc.uniqueArray(clean(LIMITS.modelChars), { minLength: 1, maxLength: 3 }),
      validFrom: moment,
      validTo: moment,
      source: clean(LIMITS.sourceChars),
    },
    { requiredKeys: ['id', 'subject', 'aliases', 'prompt', 'targetNew', 'paraphrases', 'tags', 'tenant'] },
  )
  .filter((e) => ![e.prompt, ...e.paraphrases].some((s) => s.includes('{}')))
  .filter((e) => e.validFrom === undefined || e.validTo === undefined || e.validFrom < e.validTo)

test('what is written is read back to an equal edit, through JSON', { timeout: 60_000 }, () => {
  fc.assert(
    fc.property(anyEdit, (written) => {
      const read = readFields(JSON.parse(JSON.stringify(toWire(written))), context)
      expect(read.problems).toEqual([])
      expect(read.edits).toEqual([written])
    }),
  )
})

const anyOfAKind: fc.Arbitrary<Edit> = fc
  .tuple(anyEdit, fc.constantFrom('sentence', 'rule', 'always', undefined), fc.boolean(), several(LIMITS.promptChars))
  .map(([{ targetTrue, relation, ...edit }, kind, named, examples]): Edit => {
    const some = examples.length === 0 ? {} : { examples, counterexamples: examples }
    const said = { ...edit, ...some, ...(named ? {} : { subject: '' }) }
    if (kind === 'sentence') return { ...said, kind, targetNew: '' }
    if (kind === 'always') return { ...said, kind: 'rule', always: true, prompt: '' }
    return kind === undefined ? said : { ...said, kind }
  })

test('so it is for every kind, with and without a subject', { timeout: 60_000 }, () => {
  fc.assert(
    fc.property(anyOfAKind, (written) => {
      const read = readFields(JSON.parse(JSON.stringify(toWire(written))), context)
      expect(read.problems).toEqual([])
      expect(read.edits).toEqual([written])
    }),
  )
})

test('toWire writes the shape that was read', () => {
  const shape = (fields: object) => {
    const { id, aliases, paraphrases, tags, tenant, ...said } = toWire(readFields(fields, context).edits[0] as Edit)
    return said
  }
  for (const fields of [
    { text: 'We close at 6.', examples: ['Are you open?'] },
    { when: 'w', instruction: 'i', counterexamples: ['c'] },
    { instruction: 'i', always: true },
    { prompt: 'p', target_new: 't' },
  ])
    expect(shape(fields)).toEqual(fields)
})

test('toWire leaves absent fields out and writes dates in UTC', () => {
  const wire = toWire(edit({ id: 'x', valid_from: '2025-05-08T02:00+02:00' }))
  expect(wire).toEqual({
    id: 'x',
    subject: 'Veldt',
    aliases: [],
    prompt: 'Veldt is the capital of',
    target_new: 'Orrin',
    paraphrases: [],
    tags: [],
    tenant: 'default',
    valid_from: '2025-05-08T00:00:00.000Z',
  })
})
