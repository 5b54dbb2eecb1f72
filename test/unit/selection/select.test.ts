import { expect, it } from 'vitest'
import type { TextPair } from '../../../src/engine/engine.ts'
import type { ChatRequest } from '../../../src/request.ts'
import { unread } from '../../../src/selection/candidate.ts'
import type { Retriever } from '../../../src/selection/retriever.ts'
import { select } from '../../../src/selection/select.ts'
import { edit } from '../../support/memory-data.ts'
import { memory, POST, READ_CALIBRATION } from '../../support/memory-fixture.ts'

const BORN = edit('born', { subject: 'Ann Lee', prompt: 'Ann Lee was born in the country of', targetNew: 'Arden' })
const OLD = edit('capital', { subject: 'Arden', prompt: 'The capital of Arden is', targetNew: 'Brill' })
const NEW = edit('seat', { subject: 'Arden', prompt: 'The capital of Arden is', targetNew: 'Corve' })

it('follows a chain through what a batch that is held back had replaced', async () => {
  const store = await memory()
  await store.land([BORN, OLD], { ...POST, batchId: 'first' })
  await store.land([NEW], { ...POST, batchId: 'second' })
  const messages = [{ role: 'user', content: 'What is the capital of the country where Ann Lee was born?' }] as const
  const retriever = {
    candidates: async () => ({
      candidates: [{ ...unread(BORN, messages[0].content), logit: 6 }],
      cached: false,
    }),
    about: (_: unknown, text: string) => (text.includes('Arden') ? [NEW] : []),
    landed: () => 1,
    read: async (pairs: readonly TextPair[]) => Float32Array.from(pairs, ([, stated]) => (stated.includes('capital') ? 6 : -6)),
  } as unknown as Retriever
  const gateway = { memory: store, retriever, calibration: READ_CALIBRATION, now: () => 1 }
  const meter = { time: async <T>(_: unknown, work: () => T | Promise<T>) => work(), asked: () => {} }
  const asked: ChatRequest = {
    model: 'm',
    messages,
    tenant: 'default',
    arm: 'edited',
    edits: { kind: 'on' },
    tags: [],
    explain: false,
    sampling: { temperature: 0, topP: 1, stop: [] },
  }
  const chain = async (withoutBatches: readonly string[]) => {
    const { turns } = await select({ ...asked, withoutBatches }, gateway, meter, new AbortController().signal)
    return [turns[0]?.edits.map((one) => one.edit.id), turns[0]?.considered.map(({ id }) => id)]
  }
  expect(await chain([])).toEqual([
    ['born', 'seat'],
    ['born', 'seat'],
  ])
  expect(await chain(['second'])).toEqual([
    ['born', 'capital'],
    ['born', 'capital'],
  ])
})
