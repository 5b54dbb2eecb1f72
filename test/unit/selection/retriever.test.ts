import { describe, expect, it } from 'vitest'
import type { Edit } from '../../../src/edit/edit.ts'
import type { PairReader, TextPair } from '../../../src/engine/engine.ts'
import type { Message, SelectionQuery } from '../../../src/request.ts'
import { cachedReader } from '../../../src/selection/reader-cache.ts'
import { Retriever } from '../../../src/selection/retriever.ts'
import { BAG_DIMENSIONS, bagOfWords, clock, edit, fakeEmbedder, memory, POST } from '../../support/memory-fixture.ts'

const lumora = (id: string, prompt: string, over: Partial<Edit> = {}) =>
  edit(id, { subject: 'Lumora', prompt, targetNew: `T${id}`, ...over })

/** A memory of these edits and what is offered for a message; the reader tells what it was asked. */
async function start(edits: readonly Edit[], now = clock()) {
  const embedder = fakeEmbedder({ dimensions: BAG_DIMENSIONS, vector: bagOfWords })
  const store = await memory({ embedder, now })
  await store.land(edits, POST)
  await store.indexed()
  const asked: TextPair[] = []
  const reader: PairReader = {
    name: 'counts',
    read: async (pairs) => {
      asked.push(...pairs)
      return new Float32Array(pairs.length)
    },
    close: async () => {},
  }
  const retriever = new Retriever(store, embedder, reader, { now, cacheBytes: 1 << 20 })
  const offered = async (text: string | Message[], over: Partial<SelectionQuery> = {}) => {
    const messages: readonly Message[] = typeof text === 'string' ? [{ role: 'user', content: text }] : text
    const query: SelectionQuery = { model: 'm', messages, tenant: 'default', edits: { kind: 'on' }, tags: [], ...over }
    return retriever.candidates(query, messages.length - 1)
  }
  const read = async (...of: Parameters<typeof offered>) =>
    (await offered(...of)).candidates.flatMap(({ logit, edit }) => (logit === null ? [] : [edit.id])).toSorted()
  return { store, retriever, offered, read, asked, embedder }
}

describe('what the reader is asked about', () => {
  it('is what the message names, in full, by an alias, or misspelt in like words; all that is said of it', async () => {
    const edits = [lumora('fee', 'The fee of Lumora is', { aliases: ['LMR Bank'] }), lumora('seat', 'Lumora sits in')]
    const { read, offered } = await start([...edits, edit('other', { subject: 'Velt', prompt: 'The fee of Velt is' })])
    expect(await read('How is Lumora doing?')).toEqual(['fee', 'seat'])
    expect(await read('How is LMR Bank doing?')).toEqual(['fee'])
    expect(await read('The fee of Lumorra is')).toContain('fee')
    expect(await read('How is the weather?')).toEqual([])
    const { candidates } = await offered('How is Lumora doing?')
    expect(candidates.find((c) => c.edit.id === 'fee')?.name).toMatchObject({ kind: 'exact', start: 7, end: 13 })
  })

  it('is what the message means, with no name in it, by any key of the edit', async () => {
    const refund = edit('refund', {
      subject: 'Lumora',
      prompt: 'Lumora refunds within',
      paraphrases: ['until when can money be claimed back'],
    })
    const { read, offered } = await start([refund, edit('other', { subject: 'Velt', prompt: 'Velt opens early' })])
    expect(await read('Until when can money be claimed back?')).toEqual(['refund'])
    const { candidates } = await offered('Until when can money be claimed back?')
    expect(candidates[0]).toMatchObject({ name: null, key: 'until when can money be claimed back' })
    expect(candidates[0]?.similarity).toBeCloseTo(1)
  })

  it('is what an earlier turn names, and the reader sees both', async () => {
    const { read, asked, offered } = await start([lumora('fee', 'The fee of Lumora is')])
    const talk: Message[] = [
      { role: 'user', content: 'Tell me about Lumora.' },
      { role: 'assistant', content: 'It is a bank.' },
      { role: 'user', content: 'Und was kostet das?' },
    ]
    expect(await read(talk)).toEqual(['fee'])
    expect(asked[0]).toEqual(['Tell me about Lumora. | It is a bank. || Und was kostet das?', 'The fee of Lumora is Tfee'])
    expect((await offered(talk)).candidates[0]).toMatchObject({ earlier: true, name: null })
  })

  it('is read without what was said before, where that is about something else', async () => {
    const { asked, read } = await start([lumora('fee', 'The fee of Lumora is')])
    const talk: Message[] = [
      { role: 'user', content: 'Write two lines about rain.' },
      { role: 'assistant', content: 'Rain falls softly.' },
      { role: 'user', content: 'What fee has Lumora?' },
    ]
    expect(await read(talk)).toEqual(['fee'])
    expect(asked).toEqual([['What fee has Lumora?', 'The fee of Lumora is Tfee']])
  })

  it('stands somewhere in a long message, and that part is read', async () => {
    const { asked, read } = await start([lumora('fee', 'The fee of Lumora is')])
    const filler = Array.from(
      { length: 12 },
      (_, i) => `On day ${i} we walked along the shore and had a meal that nobody of us liked.`,
    )
    const text = [...filler.slice(0, 6), 'Somebody mentioned Lumora there.', ...filler.slice(6), 'So what would it cost?'].join(
      ' ',
    )
    expect(text.length).toBeGreaterThan(900)
    expect(await read(text)).toEqual(['fee'])
    expect(asked[0]?.[0]).toContain('mentioned Lumora')
    expect(asked[0]?.[0]).toMatch(/So what would it cost\?$/)
  })

  it('is bounded, whatever the memory holds', async () => {
    const many = Array.from({ length: 40 }, (_, i) => lumora(`e${i}`, `The thing number ${i} of Lumora is`))
    const { read, offered } = await start(many)
    expect((await read('What about Lumora?')).length).toBe(8)
    expect((await offered('What about Lumora?')).candidates.length).toBeLessThanOrEqual(24)
  })

  it('is nothing for an empty message or an unknown tenant', async () => {
    const { offered } = await start([lumora('fee', 'The fee of Lumora is')])
    expect((await offered(' \n')).candidates).toEqual([])
    expect((await offered('Lumora?', { tenant: 'nobody' })).candidates).toEqual([])
  })
})

describe('what is offered', () => {
  it('is live, for the model, and of the tags that are asked for', async () => {
    const { store, read } = await start([
      lumora('all', 'The fee of Lumora is'),
      lumora('mine', 'The seat of Lumora is', { models: ['m*'], tags: ['a'] }),
      lumora('theirs', 'The boss of Lumora is', { models: ['x*'] }),
    ])
    expect(await read('Lumora?')).toEqual(['all', 'mine'])
    expect(await read('Lumora?', { model: 'x1' })).toEqual(['all', 'theirs'])
    expect(await read('Lumora?', { tags: ['a', 'b'] })).toEqual(['mine'])
    await store.withdraw('default', ['all'], 'test')
    expect(await read('Lumora?')).toEqual(['mine'])
  })

  it('holds at the time, also where that time begins or ends between two requests', async () => {
    const now = clock(1_000)
    const { read } = await start(
      [lumora('past', 'The fee of Lumora is', { validTo: 2_000 }), lumora('next', 'The seat of Lumora is', { validFrom: 3_000 })],
      now,
    )
    expect(await read('Lumora?')).toEqual(['past'])
    now.at = 2_500
    expect(await read('Lumora?')).toEqual([])
    now.at = 3_500
    expect(await read('Lumora?')).toEqual(['next'])
  })

  it('is remembered by conversation and memory', async () => {
    const { store, offered } = await start([lumora('fee', 'The fee of Lumora is')])
    expect((await offered('Lumora?')).cached).toBe(false)
    expect((await offered('Lumora?')).cached).toBe(true)
    expect((await offered('Lumora?', { tags: ['a'] })).cached).toBe(false)
    await store.land([lumora('seat', 'The seat of Lumora is')], POST)
    const again = await offered('Lumora?')
    expect([again.cached, again.candidates.length]).toEqual([false, 2])
  })

  it('is remembered by the tenant’s own memory, and by each turn’s own conversation', async () => {
    const { offered, store } = await start([lumora('fee', 'The fee of Lumora is')])
    const talk = (...said: string[]): Message[] => said.map((content) => ({ role: 'user', content }))
    await offered(talk('How is Lumora?', 'And its fee?'))
    await store.land([{ ...lumora('theirs', 'The fee of Lumora is'), tenant: 'other' }], { ...POST, tenant: 'other' })
    expect((await offered(talk('How is Lumora?', 'And its fee?'))).cached).toBe(true)
    expect((await offered(talk('How is Velt?', 'And its fee?'))).cached).toBe(false)
    expect((await offered([{ role: 'user', content: 'How is Lumora?', name: 'Ada' }, ...talk('And its fee?')])).cached).toBe(
      false,
    )
    await store.land([lumora('seat', 'Lumora sits in')], POST)
    expect((await offered(talk('How is Lumora?', 'And its fee?'))).cached).toBe(false)
  })

  it('says where the message is nearer to a counterexample than to the edit', async () => {
    const { offered } = await start([
      lumora('fee', 'What does a card of Lumora cost', { counterexamples: ['Who prints the card of Lumora'] }),
    ])
    const counter = async (text: string) => (await offered(text)).candidates[0]?.counter
    expect(await counter('What does a card of Lumora cost?')).toBe(false)
    expect(await counter('Who prints the card of Lumora?')).toBe(true)
  })

  it('has every rule for all messages, unread, but for its counterexamples', async () => {
    const rule: Partial<Edit> = { kind: 'rule', always: true, subject: '', prompt: '', targetNew: 'Be brief.' }
    const { offered, store, asked } = await start([edit('r', { ...rule, counterexamples: ['Write a long essay'] })])
    expect((await offered('What is up?')).candidates).toMatchObject([{ edit: { id: 'r' }, logit: null, counter: false }])
    expect((await offered('Write a long essay')).candidates).toMatchObject([{ counter: true }])
    expect(asked).toEqual([])
    await store.withdraw('default', ['r'], 'test')
    expect((await offered('What is up?')).candidates).toEqual([])
  })

  it('about a name is what names it in full, and nothing else', async () => {
    const { retriever } = await start([
      lumora('fee', 'The fee of Lumora is'),
      edit('b', { subject: 'Lumora North', prompt: 'p' }),
    ])
    const query: SelectionQuery = { model: 'm', messages: [], tenant: 'default', edits: { kind: 'on' }, tags: [] }
    expect(retriever.about(query, 'Lumora').map((e) => e.id)).toEqual(['fee'])
    expect(retriever.about(query, 'Lumora North').map((e) => e.id)).toEqual(['b'])
    expect(retriever.about(query, 'North')).toEqual([])
    expect(retriever.about({ ...query, model: 'm', tags: ['none'] }, 'Lumora')).toEqual([])
  })
})

describe('a reader that remembers', () => {
  it('is asked for each pair once, and answers in the order of the pairs', async () => {
    const asked: TextPair[] = []
    const plain: PairReader = {
      name: 'plain',
      read: async (pairs) => {
        asked.push(...pairs)
        return Float32Array.from(pairs, ([text]) => text.length)
      },
      close: async () => {},
    }
    const reader = cachedReader(plain, 1 << 16)
    expect([
      ...(await reader.read(
        [
          ['a', 'x'],
          ['bbb', 'x'],
          ['a', 'x'],
        ],
        'query',
      )),
    ]).toEqual([1, 3, 1])
    expect([
      ...(await reader.read(
        [
          ['bbb', 'x'],
          ['cc', 'x'],
        ],
        'query',
      )),
    ]).toEqual([3, 2])
    expect(asked).toEqual([
      ['a', 'x'],
      ['bbb', 'x'],
      ['cc', 'x'],
    ])
  })
})
