import { describe, expect, it } from 'vitest'
import { isForModel } from '../../../src/edit/edit.ts'
import { canonicalRelation, relationKey, relationWords, supersessionKey } from '../../../src/edit/relation.ts'
import { edit } from '../../support/memory-data.ts'

const X = { subject: 'X', aliases: [] }

describe('the relation of an edit', () => {
  it.each([
    [
      'The capital of X is',
      'What is the capital of X?',
      "X's capital is",
      "What's X’s capital?",
      'The name of the current capital city of X is',
    ],
    ['The president of X is', 'Who is the president of X?', 'Who is currently the president of X?', 'The president of X is now'],
    ['X was written by', 'Who wrote X?', 'By whom was X written?'],
    ['X is owned by', 'Who owns X?'],
    ['X was founded by', 'who founded X'],
  ])('is the same words for "%s" and its other forms', (first, ...others) => {
    for (const other of others) expect(canonicalRelation(other, X)).toBe(canonicalRelation(first, X))
  })

  it.each([
    ['The father of X is', 'X is the father of'],
    ['The capital of X is', 'The capital of X was'],
    ['X was born in', 'When was X born?'],
    ['Who founded X?', 'X founded'],
    ['X follows', 'X is followed by'],
    ['The president of X is', 'The vice president of X is'],
    ['X is allowed to', 'X is not allowed to'],
    ['The name of X is', 'X is'],
  ])('is not the same words for "%s" and "%s"', (one, other) => {
    expect(canonicalRelation(one, X)).not.toBe(canonicalRelation(other, X))
  })

  it('knows the subject without accents, and by an alias where it is not written out', () => {
    expect(relationWords('The home of Sao Tome is', { subject: 'São Tomé', aliases: [] })).toEqual([
      'the',
      'home',
      'of',
      '_',
      'is',
    ])
    const pope = { subject: 'the Pope', aliases: ['Pope', 'Roman Pope'] }
    expect(relationWords('The current Roman Pope is', pope)).toEqual(['the', 'current', '_', 'is'])
  })

  it('is the label where one is given', () => {
    const a = edit('a', { relation: 'P36' })
    expect(relationKey(a)).toBe(relationKey(edit('b', { relation: ' p36', prompt: 'France is governed from' })))
    expect(relationKey(a)).not.toBe(relationKey(edit('c')))
  })

  it('tells languages of one letter apart, and finds one name however it is written', () => {
    const key = (subject: string) => supersessionKey(edit('a', { subject, prompt: `${subject} was designed by` }))
    expect(new Set(['C', 'C++', 'C#'].map(key)).size).toBe(3)
    expect(key('Node.js')).toBe(key('nodejs'))
  })

  it('is the prompt, where a fact names no subject', () => {
    const key = (prompt: string, over: object = {}) => supersessionKey(edit('a', { subject: '', prompt, ...over }))
    expect(key('our refund window is ', { targetNew: 'z' })).toBe(key('Our refund window is'))
    expect(key('Our return window is')).not.toBe(key('Our refund window is'))
    expect(key('Our return window is', { relation: 'days' })).not.toBe(key('Our refund window is', { relation: 'days' }))
  })

  it('is the occasion of a rule; of a sentence and of a rule for every message, all it says', () => {
    const rule = (prompt: string, targetNew: string, over: object = {}) =>
      supersessionKey(edit('a', { kind: 'rule', subject: '', prompt, targetNew, ...over }))
    expect(rule('someone asks for a refund', 'x')).toBe(rule('Someone asks for a refund.', 'y'))
    expect(rule('someone asks for a refund', 'x')).not.toBe(rule('someone asks for help', 'x'))
    expect(rule('someone asks for a refund', 'x')).not.toBe(rule('someone asks for a refund', 'x', { subject: 'Acme' }))
    const always = (targetNew: string) => rule('', targetNew, { always: true })
    expect(always('Answer in French.')).toBe(always('answer in French'))
    expect(always('Answer in French.')).not.toBe(always('Be brief.'))
    const sentence = (prompt: string, over: object = {}) =>
      supersessionKey(edit('a', { kind: 'sentence', subject: '', prompt, targetNew: '', ...over }))
    expect(sentence('We close at 6.')).toBe(sentence('we close at 6', { subject: 'Acme' }))
    expect(sentence('We close at 6.')).not.toBe(sentence('We close at 7.'))
    const same = { subject: '', prompt: 'a', targetNew: 'a' }
    const keys = [{}, { kind: 'rule' }, { kind: 'sentence' }, { kind: 'rule', always: true }] as const
    expect(new Set(keys.map((kind) => supersessionKey(edit('a', { ...same, ...kind })))).size).toBe(4)
    expect(rule('???', 'x')).not.toBe(rule('!!!', 'x'))
  })

  it('is kept apart by tenant and by model', () => {
    const key = supersessionKey(edit('a'))
    expect(supersessionKey(edit('b', { prompt: 'What is the capital of France?' }))).toBe(key)
    expect(supersessionKey(edit('b', { tenant: 'other' }))).not.toBe(key)
    const scoped = supersessionKey(edit('b', { models: ['Qwen*', 'llama-2'] }))
    expect(scoped).not.toBe(key)
    expect(supersessionKey(edit('c', { models: ['llama-2', 'qwen*'] }))).toBe(scoped)
  })
})

describe('models that an edit is for', () => {
  it.each([
    [undefined, 'anything', true],
    [['llama-2-7b'], 'Llama-2-7B', true],
    [['llama-2-7b'], 'llama-2-7b-chat', false],
    [['qwen*'], 'qwen2.5-coder-0.5b-instruct', true],
    [['*-0.5b-*'], 'qwen2.5-coder-0.5b-instruct', true],
    [['*instruct'], 'qwen2.5-coder-0.5b-instruct', true],
    [['a*a'], 'a', false],
    [['a*b*a'], 'abba', true],
    [['*'], '', true],
    [['qwen.*'], 'qwen2', false],
    [['gpt', 'qwen*'], 'qwen2', true],
  ])('%j and %s: %s', (models, name, expected) => {
    expect(isForModel(models === undefined ? {} : { models }, name)).toBe(expected)
  })
})
