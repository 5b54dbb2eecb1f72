import { countUpTo, keyOf, LogIndex } from './log-index.ts'
import type { FinalState, History, Landing, Listing, LogRow, Lookup, Operation, Question, Toggle } from './operations.ts'

/**
 * `lost`: acknowledged, and not in the log or not whole; or a gap. `twice`: written more than once. `reordered`: positions that contradict
 * the order of calls, a batch, or what a gateway showed. `stale`: a read with a token that shows less. `backwards`: a gateway that showed less
 * than it had shown before. `foreign`: written, though nobody asked for it or it was refused. `differs`: a gateway that ended in another state.
 */
export type ViolationKind = 'lost' | 'twice' | 'reordered' | 'stale' | 'backwards' | 'foreign' | 'differs'

export interface Violation {
  readonly kind: ViolationKind
  readonly what: string
}

type Report = (kind: ViolationKind, what: string) => void
/** What a client could know when it made a call. */
interface Known {
  /** A position that was acknowledged to some client. */
  readonly acknowledged: number
  /** The same for its tenant alone: a write that finds nothing to do is answered with the tenant's last change. */
  readonly tenants: number
  /** A position that the same gateway, in the same start, had shown. */
  readonly shown: number
}

/** All that contradicts the promises of docs/guide/many-gateways.md; nothing where they were kept. */
export function verify(history: History): Violation[] {
  const found: Violation[] = []
  const report: Report = (kind, what) => void found.push({ kind, what })
  const index = new LogIndex(history.log)
  verifyPositions(history, report)
  verifyWritten(history, report)
  verifyToggledOnce(history, report)
  verifyCalls(history, index, report)
  for (const state of history.finals) verifyFinal(state, index, report)
  return found
}

/** Positions of records and batches are dense, batches are contiguous, and times do not go back. */
function verifyPositions({ log, batches }: History, report: Report): void {
  const record = log.findIndex(({ seq }, i) => seq !== i + 1)
  if (record >= 0) report('lost', `the log has record ${log[record]?.seq} where record ${record + 1} should be`)
  const batch = batches.findIndex(({ n }, i) => n !== i + 1)
  if (batch >= 0) report('lost', `the log has batch ${batches[batch]?.n} where batch ${batch + 1} should be`)
  const numberOf = new Map(batches.map(({ n, tenant, id }) => [keyOf(tenant, id), n]))
  let before: LogRow | undefined
  for (const row of log) {
    const number = numberOf.get(keyOf(row.tenant, row.batch))
    if (number === undefined) report('lost', `record ${row.seq} has no batch`)
    if (before !== undefined && (number ?? 0) < (numberOf.get(keyOf(before.tenant, before.batch)) ?? 0))
      report('reordered', `record ${row.seq} is of an earlier batch than record ${before.seq}`)
    if (before !== undefined && row.at < before.at) report('reordered', `record ${row.seq} is older than record ${before.seq}`)
    before = row
  }
}

/** Each landing is there whole, once and in its order, or not at all. */
function verifyWritten({ log, operations }: History, report: Report): void {
  const rowsOf = new Map<string, LogRow[]>()
  for (const row of log) if (row.target !== null) rowsOf.set(row.target, [...(rowsOf.get(row.target) ?? []), row])
  for (const landing of operations) {
    if (landing.kind !== 'land') continue
    const rows = landing.edits.flatMap(({ target }) => rowsOf.get(target) ?? [])
    for (const { target } of landing.edits) rowsOf.delete(target)
    verifyLanding(landing, rows, report)
  }
  for (const [target, [row]] of rowsOf) report('foreign', `record ${row?.seq} says ${target}, which nobody landed`)
}

function verifyLanding({ edits, outcome, version, tenant }: Landing, rows: readonly LogRow[], report: Report): void {
  const name = `the landing of ${edits.length} edits from ${edits[0]?.target}`
  const first = rows[0]?.seq ?? 0
  const isWhole = rows.every((row, i) => row.seq === first + i && row.id === edits[i]?.id && row.tenant === tenant)
  if (rows.length > edits.length) report('twice', `${name} is there as ${rows.length} records`)
  else if (outcome === 'refused' && rows.length > 0) report('foreign', `${name} was refused, and is in the log`)
  else if (outcome === 'acknowledged' && rows.length === 0)
    report('lost', `${name} was acknowledged with version ${version} and is not in the log`)
  else if (rows.length > 0 && rows.length < edits.length) report('lost', `${name} is there with ${rows.length} of its edits`)
  else if (!isWhole || new Set(rows.map(({ batch }) => batch)).size > 1)
    report('reordered', `${name} is not in its order, or not in one batch`)
}

/** Nothing is withdrawn that is withdrawn already, and nothing more often than it was asked for. */
function verifyToggledOnce({ log, operations }: History, report: Report): void {
  const asked = new Map<string, number>()
  for (const toggle of operations)
    if ((toggle.kind === 'withdraw' || toggle.kind === 'restore') && toggle.outcome !== 'refused')
      for (const id of toggle.ids) {
        const key = keyOf(toggle.tenant, `${toggle.kind} ${id}`)
        asked.set(key, (asked.get(key) ?? 0) + toggle.attempts)
      }
  const last = new Map<string, LogRow['kind']>()
  for (const { seq, tenant, id, kind } of log) {
    const edit = keyOf(tenant, id)
    const before = last.get(edit)
    last.set(edit, kind)
    if (kind === 'add') continue
    if (before === undefined) report('foreign', `record ${seq} is a ${kind} of ${id}, which had not landed`)
    else if ((before === 'withdraw') === (kind === 'withdraw')) report('twice', `record ${seq} is a ${kind} of ${id} once more`)
    const key = keyOf(tenant, `${kind} ${id}`)
    const left = asked.get(key) ?? 0
    if (left === 0) report('foreign', `record ${seq} is a ${kind} of ${id} for which nobody asked`)
    asked.set(key, Math.max(0, left - 1))
  }
}

/** Every call against what its client could know: in the order of time, what was acknowledged and shown before it began. */
function verifyCalls({ operations }: History, index: LogIndex, report: Report): void {
  const moments = operations.flatMap((operation) => [
    { at: operation.invoked, begins: true, operation },
    { at: operation.completed, begins: false, operation },
  ])
  // At the same moment, beginnings first: then nothing is demanded that was not certain.
  moments.sort((a, b) => a.at - b.at || Number(b.begins) - Number(a.begins))
  const known = new Map<Operation, Known>()
  const shown = new Map<string, number>()
  const tenants = new Map<string, number>()
  let acknowledged = 0
  for (const { begins, operation } of moments) {
    const { node, tenant } = operation
    const before = known.get(operation)
    if (begins) known.set(operation, { acknowledged, tenants: tenants.get(tenant) ?? 0, shown: shown.get(node) ?? 0 })
    if (begins || before === undefined) continue
    known.delete(operation)
    const position = verifyCall(operation, before, index, report)
    shown.set(node, Math.max(shown.get(node) ?? 0, position))
    if (!('version' in operation)) continue
    acknowledged = Math.max(acknowledged, operation.version ?? 0)
    tenants.set(tenant, Math.max(tenants.get(tenant) ?? 0, operation.version ?? 0))
  }
}

/** Returns a position that the gateway had surely applied when it answered. */
function verifyCall(operation: Operation, known: Known, index: LogIndex, report: Report): number {
  switch (operation.kind) {
    case 'land':
      return verifyLandedWhen(operation, known, index, report)
    case 'withdraw':
    case 'restore':
      return verifyToggle(operation, known, index, report)
    case 'lookup':
    case 'list':
    case 'ask':
      return verifyRead(operation, known, index, report)
  }
  operation satisfies never
}

function verifyLandedWhen(landing: Landing, { acknowledged }: Known, index: LogIndex, report: Report): number {
  const { edits, tenant, version } = landing
  if (version === null) return 0
  const [first, last] = [edits[0], edits.at(-1)].map(
    (edit) => index.ofEdit(tenant, edit?.id ?? '').find(({ target }) => target === edit?.target)?.seq,
  )
  if (first === undefined || last === undefined) return version
  const name = `the landing of ${edits[0]?.target} at ${first}`
  if (first <= acknowledged) report('reordered', `${name} began after ${acknowledged} was acknowledged`)
  if (version < last) report('stale', `${name} was answered with version ${version}, and ends at ${last}`)
  return version
}

/** The edits were as asked at some position between what was acknowledged before and the version of the answer. */
function verifyToggle(toggle: Toggle, { tenants: acknowledged }: Known, index: LogIndex, report: Report): number {
  const { tenant, ids, batch, kind, version } = toggle
  if (version === null) return 0
  const isDone = (position: number) =>
    ids.every((id) => {
      const edit = index.at(tenant, id, position)
      return edit !== undefined && (edit.withdrawn === (kind === 'withdraw') || (batch !== null && edit.batch !== batch))
    })
  const positions = ids.flatMap((id) => index.ofEdit(tenant, id).map(({ seq }) => seq))
  const within = positions.filter((position) => position > acknowledged && position <= version)
  if (version < acknowledged)
    report('stale', `a ${kind} of ${ids[0]} began after ${acknowledged} was acknowledged, and was answered with ${version}`)
  else if (![acknowledged, ...within].some(isDone))
    report('lost', `a ${kind} of ${ids} was acknowledged with ${version} and is not in the log after ${acknowledged}`)
  return version
}

type Reading = Lookup | Listing | Question

function verifyRead(read: Reading, { shown }: Known, index: LogIndex, report: Report): number {
  const { atLeast, node, kind } = read
  const name = `a ${kind} of ${'id' in read ? read.id : 'subject' in read ? read.subject : `${read.asked.length} edits`} on ${node}`
  const least = Math.max(atLeast ?? 0, shown)
  const position = firstPosition(read, least, index)
  if (position !== undefined) return position
  const seen = JSON.stringify(kind === 'lookup' ? read.history.slice(-3) : kind === 'list' ? read.seen : read.targets)
  if (firstPosition(read, 0, index) === undefined) report('reordered', `${name} showed what never was: ${seen}`)
  else if (atLeast !== null && firstPosition(read, atLeast, index) === undefined)
    report('stale', `${name} with the token ${atLeast} showed less: ${seen}`)
  else report('backwards', `${name} showed less than ${shown}, which it had shown before: ${seen}`)
  return atLeast ?? 0
}

/** The first position from `least` on at which the log amounts to what was read. */
function firstPosition(read: Reading, least: number, index: LogIndex): number | undefined {
  const { tenant } = read
  const rows =
    read.kind === 'ask'
      ? index.ofSubject(tenant, read.subject)
      : index.ofEdits(tenant, read.kind === 'list' ? read.asked : [read.id])
  if (isAsRead(read, least, index)) return least
  for (let i = countUpTo(rows, least); i < rows.length; i++) {
    const seq = rows[i]?.seq ?? 0
    if (isAsRead(read, seq, index)) return seq
  }
  return undefined
}

function isAsRead(read: Reading, position: number, index: LogIndex): boolean {
  const { tenant } = read
  switch (read.kind) {
    case 'ask': {
      const target = index.applying(tenant, read.subject, position)?.target
      return read.targets.length === (target === undefined ? 0 : 1) && read.targets[0] === target
    }
    case 'lookup': {
      const rows = index.ofEdit(tenant, read.id)
      const count = countUpTo(rows, position)
      return count === read.history.length && read.history.every((version, i) => version === rows[i]?.seq)
    }
    case 'list': {
      const seen = new Map(read.seen.map((edit) => [edit.id, edit]))
      return read.asked.every((id) => {
        const [edit, is] = [index.at(tenant, id, position), seen.get(id)]
        if (edit === undefined || is === undefined) return edit === undefined && is === undefined
        return edit.version === is.version && index.state(tenant, id, position) === is.state
      })
    }
  }
  read satisfies never
}

/** The gateway holds what the log says, all of it. */
function verifyFinal({ node, tenant, edits, histories }: FinalState, index: LogIndex, report: Report): void {
  const known = new Set(index.edits(tenant))
  for (const { id, version, state } of edits) {
    const edit = index.at(tenant, id, index.head)
    const expected = index.state(tenant, id, index.head)
    if (edit?.version !== version || expected !== state)
      report('differs', `${node} ends with ${id} ${state} of ${version}; the log has it ${expected} of ${edit?.version}`)
    known.delete(id)
  }
  for (const id of [...known].slice(0, 3)) report('differs', `${node} ends without ${id}`)
  for (const [id, versions] of histories)
    if (
      versions.join() !==
      index
        .ofEdit(tenant, id)
        .map((row) => row.seq)
        .join()
    )
      report('differs', `${node} ends with other records of ${id} than the log's, or in another order`)
}
