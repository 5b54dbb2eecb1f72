import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { TokenLogprob } from '../../../../src/engine/engine.ts'
import { AnswerStream } from '../../../../src/engine/output/answer-stream.ts'
import { Gathering } from '../../../../src/wire/openai/completion.ts'

const FINISH = { reason: 'stop', promptTokens: 0, completionTokens: 0, cachedTokens: 0 } as const
const NAMES = ['get_weather', 'find']

/** The answer that these bytes add up to, cut where `cuts` says. */
function gathered(bytes: Uint8Array, cuts: readonly number[], stops: readonly string[], tools: readonly string[] | undefined) {
  const stream = new AnswerStream({ stops, tools })
  const parts = new Gathering('a')
  const ends = [...new Set([...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length])].sort((a, b) => a - b)
  let start = 0
  for (const end of ends) {
    const piece = stream.push(bytes.subarray(start, end))
    start = end
    if (piece !== null) parts.add(piece)
    if (stream.stopped) break
  }
  const last = stream.end()
  if (last !== null) parts.add(last)
  const { text, calls } = parts.answer(FINISH, false)
  return { text, calls, stopped: stream.stopped }
}

const whole = (text: string, stops: readonly string[] = []) => gathered(Buffer.from(text), [], stops, NAMES)

const call = (name: string, given: string) => `<tool_call>\n{"name": "${name}", "arguments": ${given}}\n</tool_call>`

describe('calls in an answer', () => {
  it('are told from the text before them', () => {
    const { text, calls } = whole(`I will look.\n${call('get_weather', '{"city": "Paris"}')}\n${call('find', '{"a": [1, "}"]}')}`)
    expect(text).toBe('I will look.')
    expect(calls.map(({ name, arguments: given }) => [name, given])).toEqual([
      ['get_weather', '{"city": "Paris"}'],
      ['find', '{"a": [1, "}"]}'],
    ])
    expect(new Set(calls.map(({ id }) => id)).size).toBe(2)
  })

  it.each([
    ['bare', '{"name": "find", "arguments": {"q": "x"}}'],
    ['in a code fence', '```json\n{\n  "name": "find",\n  "arguments": {"q": "x"}\n}\n```'],
  ])('are told from text %s, at the beginning of an answer', (_, answer) => {
    expect(whole(answer)).toMatchObject({ text: '', calls: [{ name: 'find', arguments: '{"q": "x"}' }] })
  })

  it.each([
    ['a call of a function that was not offered', '{"name": "other", "arguments": {}}'],
    ['JSON that is no call', '{"name": "find", "age": 3}'],
    ['a call in mid-text', 'Such as {"name": "find", "arguments": {}}'],
    ['code', '```python\nprint(1)\n```'],
    ['a tag that is never filled', 'The tag <tool_call> begins a call'],
    ['half a tag', 'a <tool_cal'],
    ['a tag with nonsense in it', '<tool_call>nonsense</tool_call> and so on'],
    ['line breaks at the end', 'One.\n\n'],
  ])('are not made of %s', (_, answer) => {
    expect(whole(answer)).toMatchObject({ text: answer, calls: [] })
  })

  it('are not looked for where there are no tools', () => {
    const text = call('find', '{}')
    expect(gathered(Buffer.from(text), [], [], undefined)).toMatchObject({ text, calls: [] })
  })

  it('may hold a stop string, which counts in text only', () => {
    expect(whole(`Yes.\n${call('find', '{"q": "STOP"}')}`, ['STOP', '"q"'])).toMatchObject({
      text: 'Yes.',
      calls: [{ arguments: '{"q": "STOP"}' }],
      stopped: false,
    })
    expect(whole(`A STOP ${call('find', '{}')}`, ['STOP'])).toMatchObject({ text: 'A ', calls: [], stopped: true })
  })

  it('that break off keep what came of them', () => {
    expect(whole('<tool_call>\n{"name": "find", "arguments": {"q": "x').calls).toMatchObject([
      { name: 'find', arguments: '{"q": "x' },
    ])
    expect(whole('<tool_call>\n{"name": "fi').text).toBe('<tool_call>\n{"name": "fi')
  })
})

/** Text that is nearly calls, stop strings and half characters. */
const fragment = fc.constantFrom(
  ...[
    '<tool_call>',
    '\n{"name": "find", "arguments": {"q": "é\\"}"}}\n</tool_call>',
    '\n',
    '<tool',
    ' STOP',
    'ST',
    '😀',
    'ü',
    'word ',
    '{"name": ',
  ],
  ...['"find"', ', "arguments":', ' {}', '}', '```json\n', '`', '"', '</tool_call>', '日本', '\\'],
)
const answers = fc.array(fragment, { maxLength: 12 }).map((parts) => parts.join(''))

describe('an answer cut up anyhow', { timeout: 60_000 }, () => {
  it('adds up to the same text and calls', () => {
    const cuts = fc.array(fc.nat(400), { maxLength: 30 })
    const stops = fc.constantFrom<string[]>([], ['STOP'], ['STOP', 'word', '😀'])
    fc.assert(
      fc.property(answers, cuts, stops, fc.boolean(), (text, where, ends, withTools) => {
        const tools = withTools ? NAMES : undefined
        expect(gathered(Buffer.from(text), where, ends, tools)).toEqual(gathered(Buffer.from(text), [], ends, tools))
      }),
      { numRuns: 500 },
    )
  })

  it('loses nothing where there is no call', () => {
    fc.assert(
      fc.property(
        answers.filter((text) => !text.includes('arguments')),
        fc.array(fc.nat(400)),
        (text, where) => {
          expect(gathered(Buffer.from(text), where, [], NAMES)).toMatchObject({ text, calls: [] })
        },
      ),
      { numRuns: 500 },
    )
  })
})

describe('log probabilities', () => {
  const token = (text: string): TokenLogprob => ({ text, bytes: [...Buffer.from(text)], logprob: -1, top: [] })
  const run = (words: readonly string[], stops: readonly string[], leadingSpace = false) => {
    const stream = new AnswerStream({ stops, leadingSpace })
    const pieces = [...words.map((word) => stream.push(Buffer.from(word), token(word))), stream.end()].filter(
      (one) => one !== null,
    )
    return pieces.map(({ text, tokens = [] }) => [text, tokens.map((one) => one.text)])
  }

  it('come with the text of their tokens, and not before it', () => {
    expect(run(['One', ' ST', 'ATE'], ['STOP'])).toEqual([
      ['One', ['One']],
      [' ', []],
      ['STATE', [' ST', 'ATE']],
    ])
  })

  it('are not given of what a stop string cut off', () => {
    expect(run(['One', ' two', ' STOP', ' three'], [' STOP'])).toEqual([
      ['One', ['One']],
      [' two', [' two']],
    ])
  })

  it('cover the first token of a vocabulary that begins with a space', () => {
    expect(run([' One', ' two'], [], true)).toEqual([
      ['One', [' One']],
      [' two', [' two']],
    ])
  })

  it('add up to the text, whatever the cuts', () => {
    fc.assert(
      fc.property(fc.array(fragment, { maxLength: 10 }), (words) => {
        const pieces = run(words, [])
        expect(pieces.flatMap(([, tokens]) => tokens)).toEqual(words)
        expect(pieces.map(([text]) => text).join('')).toBe(words.join(''))
      }),
    )
  })
})
