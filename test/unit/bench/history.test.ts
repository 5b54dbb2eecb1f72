import { describe, expect, test } from 'vitest'
import type {
  BatchRow,
  FinalState,
  History,
  Landing,
  LogRow,
  Lookup,
  Operation,
  Toggle,
} from '../../../bench/history/operations.ts'
import { verify } from '../../../bench/history/verify.ts'

const TENANT = 'default'
const row = (seq: number, id: string, kind: LogRow['kind'], over: Partial<LogRow> = {}): LogRow => ({
  seq,
  at: seq,
  tenant: TENANT,
  kind,
  id,
  batch: `b${seq}`,
  subject: kind === 'add' ? 'Lund' : null,
  target: kind === 'add' ? `t${seq}` : null,
  ...over,
})
const between = (invoked: number, completed: number, node = '1#1') => ({ tenant: TENANT, node, invoked, completed })
const writtenBetween = (time: [number, number], version: number | null) => ({
  ...between(...time),
  version,
  outcome: version === null ? ('unknown' as const) : ('acknowledged' as const),
})
const land = (time: [number, number], version: number | null, ...edits: [id: string, target: string][]): Landing => ({
  kind: 'land',
  edits: edits.map(([id, target]) => ({ id, target })),
  ...writtenBetween(time, version),
})
const toggle = (kind: Toggle['kind'], time: [number, number], version: number | null, ...ids: string[]): Toggle => ({
  kind,
  ids,
  batch: null,
  attempts: 1,
  ...writtenBetween(time, version),
})
const look = (time: [number, number], history: number[], over: Partial<Lookup> = {}): Lookup => ({
  kind: 'lookup',
  id: 'a',
  history,
  atLeast: null,
  ...between(...time, '2#1'),
  ...over,
})

/** a lands, b supersedes it, a is withdrawn and restored, c and d land together; all seen on another gateway. */
const LOG: readonly LogRow[] = [
  row(1, 'a', 'add'),
  row(2, 'b', 'add'),
  row(3, 'a', 'withdraw'),
  row(4, 'a', 'restore'),
  row(5, 'c', 'add', { batch: 'b5', subject: 'Oslo' }),
  row(6, 'd', 'add', { batch: 'b5', subject: 'Rome' }),
]
const OPERATIONS: readonly Operation[] = [
  land([0, 10], 1, ['a', 't1']),
  land([20, 30], 2, ['b', 't2']),
  look([40, 50], [1], { atLeast: 1 }),
  { kind: 'ask', subject: 'Lund', targets: ['t2'], atLeast: 2, ...between(51, 55, '2#1') },
  toggle('withdraw', [60, 70], 3, 'a'),
  toggle('restore', [80, 90], 4, 'a'),
  land([100, 110], 6, ['c', 't5'], ['d', 't6']),
  look([120, 130], [1, 3, 4], { atLeast: 6 }),
  {
    kind: 'list',
    asked: ['a', 'b', 'e'],
    atLeast: null,
    ...between(140, 150, '2#1'),
    seen: [
      { id: 'a', version: 1, state: 'superseded' },
      { id: 'b', version: 2, state: 'live' },
    ],
  },
]
const FINAL: FinalState = {
  node: '1#1',
  tenant: TENANT,
  edits: [
    { id: 'a', version: 1, state: 'superseded' },
    { id: 'b', version: 2, state: 'live' },
    { id: 'c', version: 5, state: 'live' },
    { id: 'd', version: 6, state: 'live' },
  ],
  histories: new Map([['a', [1, 3, 4]]]),
}

/** Batches as the log has them, in its order. */
const batchesOf = (log: readonly LogRow[]): BatchRow[] =>
  [...new Set(log.map(({ batch }) => batch))].map((id, i) => ({ n: i + 1, tenant: TENANT, id }))

function kindsOf({ log = LOG, operations = OPERATIONS, finals = [FINAL], batches = batchesOf(log) }: Partial<History>): string[] {
  return [...new Set(verify({ log, operations, finals, batches }).map(({ kind }) => kind))]
}

/** The operations with one of them exchanged. */
const instead = (i: number, over: object): Operation[] =>
  OPERATIONS.map((one, at) => (at === i ? { ...one, ...over } : one) as Operation)
const and = (...more: Operation[]): Operation[] => [...OPERATIONS, ...more]
/** The log up to a record, and what follows it, numbered anew. */
const logWith = (upTo: number, ...rows: LogRow[]): LogRow[] =>
  [...LOG.slice(0, upTo), ...rows, ...LOG.slice(upTo)].map((one, i) => ({ ...one, seq: i + 1, at: i + 1 }))

describe('the verifier of histories', () => {
  test('finds nothing in a sound history', () => {
    expect(verify({ log: LOG, operations: OPERATIONS, finals: [FINAL], batches: batchesOf(LOG) })).toEqual([])
  })

  test('takes an unknown write either way', () => {
    expect(kindsOf({ operations: and(land([200, 210], null, ['x', 'never'])) })).toEqual([])
    expect(kindsOf({ operations: instead(6, { outcome: 'unknown', version: null }) })).toEqual([])
    expect(kindsOf({ operations: and(toggle('withdraw', [200, 210], null, 'a')) })).toEqual([])
  })

  test('takes a write that finds nothing to do, answered with the last change of its tenant', () => {
    const other = { tenant: 'other', subject: null }
    const log = [...LOG, row(7, 'z', 'add', { ...other, subject: 'Oslo' }), row(8, 'z', 'withdraw', other)]
    const batches = log.map(({ batch, tenant }) => ({ tenant, id: batch })).filter(({ id }, i, all) => all[i - 1]?.id !== id)
    const landed = { ...land([200, 210], 7, ['z', 't7']), tenant: 'other' }
    const withdrawn = { ...toggle('withdraw', [220, 230], 8, 'z'), tenant: 'other' }
    const operations = and(landed, withdrawn, toggle('restore', [240, 250], 6, 'a'))
    expect(kindsOf({ log, operations, batches: batches.map((batch, i) => ({ n: i + 1, ...batch })) })).toEqual([])
    expect(kindsOf({ operations: and(toggle('restore', [240, 250], 4, 'a')) })).toEqual(['stale'])
  })

  test.each<[fault: string, kind: string, history: Partial<History>]>([
    ['an acknowledged edit is not in the log', 'lost', { operations: and(land([160, 170], 7, ['x', 't7'])) }],
    ['half of a batch is in the log', 'lost', { log: LOG.slice(0, 5), finals: [] }],
    ['an acknowledged withdrawal is not in the log', 'lost', { operations: and(toggle('withdraw', [160, 170], 6, 'b')) }],
    ['a record is missing between', 'lost', { log: LOG.filter(({ seq }) => seq !== 2), finals: [] }],
    ['a batch is missing between', 'lost', { batches: batchesOf(LOG).filter(({ n }) => n !== 2) }],
    ['an edit is there twice', 'twice', { log: logWith(6, row(7, 'a', 'add', { target: 't1' })), finals: [] }],
    ['a withdrawal is there twice', 'twice', { log: logWith(3, row(0, 'a', 'withdraw')), finals: [], operations: [] }],
    [
      'a withdrawal asked for once was made, taken back and made again',
      'foreign',
      { log: logWith(6, row(0, 'a', 'withdraw')), finals: [] },
    ],
    [
      'a write landed before one that was acknowledged earlier',
      'reordered',
      { operations: instead(0, { invoked: 35, completed: 38 }) },
    ],
    [
      'a batch landed in another order',
      'reordered',
      {
        log: [...LOG.slice(0, 4), row(5, 'd', 'add', { target: 't6' }), row(6, 'c', 'add', { target: 't5', batch: 'b5' })],
        finals: [],
      },
    ],
    ['batches are mixed', 'reordered', { log: logWith(5, row(0, 'e', 'add', { batch: 'b1', target: 'x' })), finals: [] }],
    ['the time of a record goes back', 'reordered', { log: LOG.map((one) => ({ ...one, at: 10 - one.seq })) }],
    ['a gateway shows what never was', 'reordered', { operations: instead(7, { history: [1, 4] }) }],
    ['a question is answered from what never applied', 'reordered', { operations: instead(3, { targets: ['t5'] }) }],
    ['both of two edits apply that supersede each other', 'reordered', { operations: instead(3, { targets: ['t1', 't2'] }) }],
    ['a read with a token shows less', 'stale', { operations: instead(7, { history: [1, 3] }) }],
    ['a read with a token knows of nothing', 'stale', { operations: instead(2, { history: [] }) }],
    ['a question with a token is answered from before', 'stale', { operations: instead(3, { targets: ['t1'] }) }],
    ['a write is answered with a version before it', 'stale', { operations: instead(6, { version: 5 }) }],
    ['a gateway goes back', 'backwards', { operations: and(look([160, 170], [1, 3])) }],
    ['a gateway forgets what it had written', 'backwards', { operations: and(look([160, 170], [1, 3], { node: '1#1' })) }],
    ['a list is of a moment long gone', 'backwards', { operations: instead(8, { seen: [] }) }],
    ['something is written that nobody sent', 'foreign', { log: logWith(6, row(7, 'x', 'add', { target: 'x' })), finals: [] }],
    ['a refused write is in the log', 'foreign', { operations: instead(6, { outcome: 'refused', version: null }) }],
    ['a gateway ends without an edit', 'differs', { finals: [{ ...FINAL, edits: FINAL.edits.slice(1) }] }],
    [
      'a gateway ends with an edit in another state',
      'differs',
      { finals: [{ ...FINAL, edits: FINAL.edits.map((edit) => ({ ...edit, state: 'live' })) }] },
    ],
    ['a gateway applied records in another order', 'differs', { finals: [{ ...FINAL, histories: new Map([['a', [1, 4, 3]]]) }] }],
  ])('finds that %s', (_, kind, history) => {
    expect(kindsOf(history)).toContain(kind)
  })

  test('lets a new start of a gateway know less, and a gateway lag behind another', () => {
    expect(kindsOf({ operations: and(look([160, 170], [1, 3], { node: '2#2' })) })).toEqual([])
    expect(kindsOf({ operations: and(look([95, 160], [1, 3])) })).toEqual([])
  })
})
