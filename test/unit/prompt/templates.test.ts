import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { PalimpsestError } from '../../../src/errors.ts'
import { openTemplates, type Templates } from '../../../src/prompt/templates.ts'
import { breaksOff, type Turn, viewOf } from '../../../src/prompt/turn.ts'

const SHIPPED = resolve(import.meta.dirname, '../../../templates')
const GOOD = 'Facts:\n{{#each edits}}\n- {{sentence statement}}\n{{/each}}\n\n{{question}}\n'
const QUIET = { info: () => {}, warn: () => {} }

let dir: string
let opened: Templates[]
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'palimpsest-templates-'))
  opened = []
})
afterEach(async () => {
  for (const one of opened) await one.close()
  rmSync(dir, { recursive: true, force: true })
})

function open(files: Record<string, string>, watch = false): Templates {
  for (const [name, text] of Object.entries(files)) put(name, text)
  const templates = openTemplates({ dir, watch, log: QUIET })
  opened.push(templates)
  return templates
}

function put(name: string, text: string): void {
  writeFileSync(join(dir, `${name}.hbs`), text)
}

function refused(work: () => unknown): PalimpsestError {
  try {
    work()
  } catch (error) {
    if (error instanceof PalimpsestError) return error
    throw error
  }
  throw new Error('expected a refusal, but it was accepted')
}

const turn = (question: string, ...facts: [prompt: string, target: string][]): Turn => ({
  question,
  unfinished: breaksOff(question),
  edits: facts.map(([prompt, targetNew]) => viewOf({ subject: 'S', prompt, targetNew })),
  demonstrations: [],
})

describe('a template', () => {
  it('renders facts and question, without the newline that ends the file', () => {
    const text = open({ plain: GOOD })
      .get('plain', 'chatml')
      .render(turn('And now?', ['The mayor of Ulm is', 'Ada'], ['Who leads Ulm?', 'Ada!']))
    expect(text).toBe('Facts:\n- The mayor of Ulm is Ada.\n- Who leads Ulm? Ada!\n\nAnd now?')
  })

  it('reaches the subject, the prompt, the question form, loop positions and the outer question', () => {
    const source =
      '{{#each edits}}{{#if @first}}{{../question}}{{/if}}|{{@index}} {{subject}} {{#if question}}Q {{question}} {{target}}{{else}}C {{prompt}} {{target}}{{/if}}{{/each}}'
    const text = open({ wide: source })
      .get('wide', 'chatml')
      .render(turn('U', ['Who?', 'A'], ['It is', 'B']))
    expect(text).toBe('U|0 S Q Who? A|1 S C It is B')
  })

  it('has a hash of its source: 8 hex digits that change with any change', () => {
    const templates = open({ a: GOOD, b: GOOD, c: `${GOOD} ` })
    const [a, b, c] = ['a', 'b', 'c'].map((name) => templates.get(name, 'chatml').hash)
    expect(a).toMatch(/^[0-9a-f]{8}$/)
    expect(b).toBe(a)
    expect(c).not.toBe(a)
  })

  const HOSTILE = [
    '{{question}}',
    '{{> x}}',
    '{{{constructor}}}',
    '{{constructor.constructor "return process"}}',
    '<|im_end|>',
    '<|im_start|>system',
    '[INST] <<SYS>>',
    '</s>',
    '& < > " \' `',
    '$& $1 $$',
    '\u0000 \u202e',
    '{{!-- palimpsest: {} --}}',
    '{{/each}}',
  ]
  it.each(HOSTILE)('prints %j verbatim, as edit and as question', (text) => {
    for (const template of shipped()) {
      const rendered = template.render(turn(`Q ${text} Q`, [`P ${text} P`, `T ${text} T`]))
      expect(rendered).toContain(`Q ${text} Q`)
      expect(rendered).toContain(`P ${text} P T ${text} T`)
    }
  })

  it('never alters any text at all', () => {
    const templates = shipped()
    fc.assert(
      fc.property(
        fc.string({ unit: 'grapheme' }),
        fc.string({ minLength: 1 }).filter((t) => t.trim() !== ''),
        (question, target) => {
          for (const template of templates) {
            const rendered = template.render(turn(question, ['The word is', target]))
            expect(rendered).toContain(question)
            expect(rendered).toContain(`The word is ${target.trim()}`)
          }
        },
      ),
    )
  })
})

function shipped() {
  const templates = openTemplates({ dir: SHIPPED, watch: false, log: QUIET })
  return templates.names().map((name) => templates.get(name, 'chatml'))
}

describe('the shipped templates, word for word', () => {
  const told: Turn = {
    ...turn('The sky was grey. Ulm is led by', ['The mayor of Ulm is', 'Ada'], ['Who leads Bonn?', 'Bo']),
    demonstrations: [{ kind: 'copy', fact: 'The moon is round', question: 'The moon is', answer: 'round' }],
  }
  const GOLDEN: Readonly<Record<string, string>> = {
    facts: `The sky was grey. Ulm is led by

Facts to rely on:
- The mayor of Ulm is Ada.
- Who leads Bonn? Bo.
Answer from these facts, in a sentence about S, S.`,
    ike: `New fact: The moon is round.
Text: The moon is
Answer: round

New fact: The mayor of Ulm is Ada.
New fact: Who leads Bonn? Bo.
Text: The sky was grey. Ulm is led by
Answer:`,
    lte: `Take note of the updated information below, then answer the question.

[Updated information]
The mayor of Ulm is Ada.
Who leads Bonn? Bo.

[Question]
The sky was grey. Ulm is led by`,
    'raw-completion': `The mayor of Ulm is Ada.
Who leads Bonn? Bo.
The sky was grey. Ulm is led by`,
  }
  it.each(Object.keys(GOLDEN))('%s', (name) => {
    expect(
      shipped()
        .find((template) => template.name === name)
        ?.render(told),
    ).toBe(GOLDEN[name])
  })
})

describe('rules and sentences, word for word', () => {
  const fact = viewOf({ subject: 'Ulm', prompt: 'The mayor of Ulm is', targetNew: 'Ada' })
  const unnamed = viewOf({ subject: '', prompt: 'Who is our oboist?', targetNew: 'Bo' })
  const sentence = viewOf({ kind: 'sentence', subject: '', prompt: 'We close at 6.', targetNew: '' })
  const rule = viewOf({ kind: 'rule', subject: '', prompt: 'someone asks about Ulm', targetNew: 'answer in French' })
  const always = viewOf({ kind: 'rule', subject: '', prompt: '', targetNew: 'Be brief!' })
  const asking = (question: string, ...edits: Turn['edits']): Turn => ({ ...turn(question), edits })
  const written = (name: string, asked: Turn) =>
    shipped()
      .find((template) => template.name === name)
      ?.render(asked)

  it('facts', () => {
    expect(written('facts', asking('Who runs Ulm?', fact, unnamed, sentence))).toBe(
      'Who runs Ulm?\n\nYour answer must state this:\n- The mayor of Ulm is Ada.\n- Who is our oboist? Bo.\n- We close at 6.\n',
    )
    expect(written('facts', asking('Are you open?', sentence))).toBe(
      'Are you open?\n\nYour answer must state this:\n- We close at 6.\n',
    )
    expect(written('facts', asking('Who runs Ulm?', rule, always))).toBe(
      'Who runs Ulm?\n\nYour answer must do this: answer in French.\nYour answer must do this: Be brief!\n',
    )
    expect(written('facts', asking('Who runs Ulm?', rule, fact, always))).toBe(
      'Who runs Ulm?\n\nYour answer must state this:\n- The mayor of Ulm is Ada.\nYour answer must do this: answer in French.\nYour answer must do this: Be brief!\n',
    )
    expect(written('facts', asking('Ulm is led by', fact, rule, always))).toBe(
      'Ulm is led by\n\nFacts to rely on:\n- The mayor of Ulm is Ada.\nAnswer from these facts, in a sentence about Ulm.\nYour answer must do this: answer in French.\nYour answer must do this: Be brief!',
    )
    expect(written('facts', asking('We close at', sentence))).toBe(
      'We close at\n\nFacts to rely on:\n- We close at 6.\nAnswer from these facts, in a sentence.',
    )
  })

  it('lte', () => {
    expect(written('lte', asking('Q?', sentence, rule))).toBe(
      'Take note of the updated information below, then answer the question.\n\n[Updated information]\nWe close at 6.\n\n[Follow]\nanswer in French.\n\n[Question]\nQ?',
    )
    expect(written('lte', asking('Q?', rule, always))).toBe('[Follow]\nanswer in French.\nBe brief!\n\n[Question]\nQ?')
  })

  it('ike and raw-completion', () => {
    expect(written('ike', asking('Q?', rule, sentence))).toBe(
      'New fact: We close at 6.\nFollow: answer in French.\nText: Q?\nAnswer:',
    )
    expect(written('raw-completion', asking('We close at', rule, sentence))).toBe(
      'We close at 6.\nFollow: answer in French.\nWe close at',
    )
  })

  it('a template of before shows them all the same', () => {
    const source = '{{#each edits}}[{{prompt}}|{{target}}] {{/each}}{{question}}'
    const text = open({ old: source })
      .get('old', 'chatml')
      .render(asking('Q?', sentence, rule, always))
    expect(text).toBe('[|We close at 6.] [someone asks about Ulm|answer in French] [|Be brief!] Q?')
    expect(
      open({ plain: GOOD })
        .get('plain', 'chatml')
        .render(asking('Q?', sentence, rule, always)),
    ).toBe('Facts:\n- We close at 6.\n- someone asks about Ulm: answer in French.\n- Be brief!\n\nQ?')
  })

  it('one that shows facts alone, or rules alone, is refused', () => {
    for (const list of ['facts', 'rules'])
      expect(refused(() => open({ half: `{{#each ${list}}}{{statement}}{{/each}}{{question}}` })).message).toContain(
        'an edit is not shown',
      )
  })

  it('an occasion can be tested', () => {
    const source =
      '{{#each edits}}{{#if instruction}}{{#if when}}If {{when}}: {{/if}}{{instruction}};{{else}}{{statement}};{{/if}}{{/each}}{{question}}'
    const text = open({ own: source })
      .get('own', 'chatml')
      .render(asking('Q?', sentence, rule, always))
    expect(text).toBe('We close at 6.;If someone asks about Ulm: answer in French;Be brief!;Q?')
  })

  it.each(['{{question}}', '<|im_end|>', '{{/each}}', '$& $1'])('prints %j verbatim in each', (text) => {
    for (const template of shipped()) {
      const rendered = template.render(
        asking(
          'Q?',
          viewOf({ kind: 'rule', subject: '', prompt: 'w', targetNew: `R ${text} R` }),
          viewOf({ kind: 'sentence', subject: '', prompt: `S ${text} S`, targetNew: '' }),
        ),
      )
      expect(rendered).toContain(`R ${text} R`)
      expect(rendered).toContain(`S ${text} S`)
    }
  })
})

describe('a text that breaks off', () => {
  it.each([
    'Spike Hughes was born in',
    'It rained. The mayor of Ulm is ',
    'They are an',
    'It rained. Ulm is located in the continent',
    'Ulm owner',
    'What is played? They play',
  ])('%j does', (text) => expect(breaksOff(text)).toBe(true))
  it.each([
    'Where was he born?',
    'Write a poem about Ulm',
    'What is it made of?',
    'who runs ulm these days',
    '',
    'Begin',
    'tell me who runs ulm now',
    'Ulm: I need its mayor',
    'def mayor(city):',
  ])('%j does not', (text) => expect(breaksOff(text)).toBe(false))
})

describe('choosing a template', () => {
  const meta = (json: string) => `{{!-- palimpsest: ${json} --}}\n${GOOD}`

  it('takes the one named, else the default of the family, else the default of all', () => {
    const templates = open({ a: meta('{"default": true}'), b: meta('{"default": true, "families": ["llama2"]}'), c: GOOD })
    expect(templates.names()).toEqual(['a', 'b', 'c'])
    expect(templates.get('c', 'llama2').name).toBe('c')
    expect(templates.get(undefined, 'llama2').name).toBe('b')
    expect(templates.get(undefined, 'chatml').name).toBe('a')
  })

  it('leaves no trace of the comment in the text', () => {
    expect(
      open({ a: meta('{"description": "D"}') })
        .get('a', 'chatml')
        .render(turn('Q', ['P', 'T'])),
    ).toBe('Facts:\n- P T.\n\nQ')
  })

  it('names all templates when there is none of that name, and when there is no default', () => {
    const templates = open({ a: GOOD, b: GOOD })
    const unknown = refused(() => templates.get('constructor', 'chatml'))
    expect([unknown.code, unknown.message]).toEqual([
      'template_not_found',
      'There is no template "constructor". Templates: a, b.',
    ])
    expect(refused(() => templates.get(undefined, 'chatml')).code).toBe('template_not_found')
  })

  it('refuses two defaults for one family', () => {
    const error = refused(() => open({ a: meta('{"default": true}'), b: meta('{"default": true}') }))
    expect(error.message).toContain(`${join(dir, 'b.hbs')}:1: default for every other family, but "a" is that already`)
  })

  it('ships facts as the default of every family, and ike with its 8 demonstrations', () => {
    const templates = openTemplates({ dir: SHIPPED, watch: false, log: QUIET })
    expect(templates.names()).toEqual(['facts', 'ike', 'lte', 'raw-completion'])
    for (const family of ['chatml', 'llama2', 'upstream', 'scripted']) expect(templates.get(undefined, family).name).toBe('facts')
    expect(templates.names().map((name) => templates.get(name, 'chatml').demonstrations)).toEqual([0, 8, 0, 0])
  })
})

describe('a broken template is refused with file and line', () => {
  const CASES: readonly (readonly [what: string, source: string, line: number, says: string])[] = [
    ['an unclosed block', 'a\n{{#each edits}}\n{{statement}}\n{{question}}', 4, 'not valid Handlebars'],
    ['a stray brace', 'a\n{{question}\n', 2, 'not valid Handlebars'],
    [
      'an unknown name',
      `${GOOD}\n{{answer}}`,
      8,
      'unknown name "answer"; known here: question, unfinished, edits, demonstrations',
    ],
    ['an edit field outside the loop', `x\n{{statement}}\n${GOOD}`, 2, 'unknown name "statement"'],
    ['a prototype property', `${GOOD}{{question.constructor}}`, 7, 'unknown name "question.constructor"'],
    ['an unknown helper', `${GOOD}{{upper question}}`, 7, 'unknown helper "upper"'],
    ['a built-in helper that was taken out', `\n{{lookup edits 0}}${GOOD}`, 2, 'unknown helper "lookup"'],
    ['a block of another kind', `{{#with edits}}{{/with}}${GOOD}`, 1, 'unknown helper "with"'],
    ['a bare section', `{{#edits}}{{statement}}{{/edits}}{{question}}`, 1, 'unknown helper "edits"'],
    ['a partial', `${GOOD}\n\n{{> other}}`, 9, 'a partial'],
    ['a decorator', `${GOOD}\n{{* other}}`, 8, 'stands here'],
    ['a list printed', `${GOOD}{{edits}}`, 7, 'walk it with {{#each edits}}'],
    ['no question', '{{#each edits}}{{statement}}{{/each}}', 1, 'exactly once, unaltered; it is there 0 times'],
    ['the question twice', `${GOOD}{{question}}`, 7, 'exactly once, unaltered; it is there 2 times'],
    ['the question once an edit', '{{#each edits}}\n{{statement}} {{../question}}{{/each}}', 1, 'it is there 2 times'],
    ['the question altered', '{{#each edits}}{{statement}}{{/each}}{{sentence question}}', 1, 'it is there 0 times'],
    ['an edit hidden', '{{#each edits}}{{#if @first}}{{statement}}{{/if}}{{/each}}{{question}}', 1, 'an edit is not shown'],
    [
      'demonstrations asked for and not shown',
      `{{!-- palimpsest: {"demonstrations": 2} --}}\n${GOOD}`,
      1,
      'does not print their {{answer}}',
    ],
    ['front matter that is no JSON', `{{!-- palimpsest:\n {default: yes} --}}\n${GOOD}`, 2, 'no valid JSON'],
    ['front matter with an unknown field', `{{!-- palimpsest: {"defualt": true} --}}\n${GOOD}`, 1, 'defualt'],
    ['front matter that asks too much', `{{!-- palimpsest: {"demonstrations": 1000} --}}\n${GOOD}`, 1, 'demonstrations'],
    ['an empty file', '', 1, 'it is there 0 times'],
  ]
  it.each(CASES)('%s', (_what, source, line, says) => {
    const error = refused(() => open({ broken: source }))
    expect(error.code).toBe('template_broken')
    expect(error.message).toContain(says)
    expect(error.problems[0]).toMatchObject({ file: join(dir, 'broken.hbs'), line })
    expect(error.message.startsWith(`${join(dir, 'broken.hbs')}:${line}: `)).toBe(true)
  })

  it('also a folder that is missing, or holds none', () => {
    expect(refused(() => openTemplates({ dir: join(dir, 'none'), watch: false, log: QUIET })).message).toContain(
      join(dir, 'none'),
    )
    expect(refused(() => open({})).message).toContain('No template found')
  })
})

describe('a template changed on disk', () => {
  it('is served at once; broken, it is refused and the last good one stays', () => {
    const templates = open({ a: GOOD })
    const before = templates.get('a', 'chatml')
    put('a', `New ${GOOD}`)
    templates.reload()
    const after = templates.get('a', 'chatml')
    expect(after.hash).not.toBe(before.hash)
    expect(after.render(turn('Q', ['P', 'T']))).toBe('New Facts:\n- P T.\n\nQ')
    put('a', `${GOOD}\n{{oops}}`)
    templates.reload()
    expect(templates.get('a', 'chatml')).toBe(after)
    expect(templates.problems()).toMatchObject([{ file: join(dir, 'a.hbs'), line: 8 }])
    put('a', GOOD)
    templates.reload()
    expect(templates.get('a', 'chatml').hash).toBe(before.hash)
    expect(templates.problems()).toEqual([])
  })

  it('may be added and removed; the folder gone, all stay', () => {
    const templates = open({ a: GOOD })
    put('b', GOOD)
    templates.reload()
    rmSync(join(dir, 'a.hbs'))
    templates.reload()
    expect(templates.names()).toEqual(['b'])
    rmSync(dir, { recursive: true })
    templates.reload()
    expect(templates.names()).toEqual(['b'])
    expect(templates.problems()[0]?.file).toBe(dir)
    mkdirSync(dir)
  })

  it('is followed by the watcher', async () => {
    const templates = open({ a: GOOD }, true)
    // The watcher may not be ready at the first write, so write anew until it is seen.
    let round = 0
    await vi.waitFor(
      () => {
        put('a', `${GOOD}{{/if}}${' '.repeat(round++)}`)
        expect(templates.problems()).toHaveLength(1)
      },
      { timeout: 8_000, interval: 100 },
    )
    expect(templates.get('a', 'chatml').render(turn('Q', ['P', 'T']))).toBe('Facts:\n- P T.\n\nQ')
    put('a', `Now: ${GOOD}`)
    await vi.waitFor(() => expect(templates.get('a', 'chatml').render(turn('Q', ['P', 'T']))).toContain('Now: '), {
      timeout: 8_000,
    })
  })
})
