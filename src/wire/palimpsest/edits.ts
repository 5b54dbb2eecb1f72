import { type Batch, toWire } from '../../edit/batch.ts'
import type { BatchSummary, HeldEdit, Landing, LandingResult, LogRecord, Page } from '../../memory/memory.ts'
import type { Finding, LandingReport, Side } from '../../selection/landing-check.ts'

/** The wire form of what the memory holds. Objects carry `object` as OpenAI's do; times are ISO 8601. */
export function wireHeld({ edit, state, batchId, seq, landedAt, supersededBy }: HeldEdit) {
  return {
    object: 'edit',
    ...toWire(edit),
    state,
    ...(supersededBy !== undefined && { superseded_by: supersededBy }),
    batch: batchId,
    version: seq,
    landed_at: iso(landedAt),
  }
}

/** One edit, and every record of the log about it, oldest first. */
export function wireWithHistory(held: HeldEdit, history: readonly LogRecord[]) {
  return { ...wireHeld(held), history: history.map(wireRecord) }
}

function wireRecord({ seq, at, kind, batchId, edit }: LogRecord) {
  return { version: seq, at: iso(at), kind, batch: batchId, ...(edit && { edit: toWire(edit) }) }
}

export function wirePage({ edits, nextCursor, total }: Page) {
  return { object: 'list', data: edits.map(wireHeld), has_more: nextCursor !== null, next_cursor: nextCursor, total }
}

/** What a dry run adds. */
export interface Preview {
  readonly report: LandingReport
  readonly batch: Batch
}

/** Edits of a batch that a dry run shows. */
const SHOWN_EDITS = 10

/** What a batch did, or would do: counts first, for readers of long ones. */
export function wireLanding({ batchId, dryRun, replayed, version, results }: Landing, preview?: Preview) {
  return {
    object: 'edit.batch',
    id: batchId,
    dry_run: dryRun,
    replayed,
    version,
    counts: counts(results),
    ...(preview && {
      format: preview.batch.format,
      first_edits: preview.batch.edits.slice(0, SHOWN_EDITS).map(toWire),
      report: wireReport(preview),
    }),
    results: results.map(wireResult),
  }
}

function wireReport({ report: { findings, counts, pairs, fault }, batch: { lines } }: Preview) {
  const side = ({ index, id }: Side) => ({ id, index, line: index === null ? null : (lines[index] ?? null) })
  return {
    counts,
    findings: findings.map(({ kind, edit, other, message }: Finding) => ({
      kind,
      message,
      edit: side(edit),
      other: other && side(other),
    })),
    pairs_compared: pairs.compared,
    pairs_left: pairs.left,
    fault,
  }
}

function counts(results: readonly LandingResult[]) {
  const having = (test: (result: LandingResult) => boolean) => results.filter(test).length
  return {
    edits: results.length,
    added: having(({ outcome }) => outcome === 'added'),
    revised: having(({ outcome }) => outcome === 'revised'),
    restored: having(({ outcome }) => outcome === 'restored'),
    unchanged: having(({ outcome }) => outcome === 'unchanged'),
    superseded: new Set(results.flatMap(({ supersedes }) => supersedes)).size,
    duplicates: having(({ duplicateOf }) => duplicateOf !== undefined),
    conflicts: having(({ conflictsWith }) => conflictsWith.length > 0),
  }
}

function wireResult({ index, id, outcome, state, supersedes, duplicateOf, conflictsWith }: LandingResult) {
  return { index, id, outcome, state, supersedes, duplicate_of: duplicateOf ?? null, conflicts_with: conflictsWith }
}

export function wireBatch({ id, at, source, edits, live }: BatchSummary) {
  return { object: 'edit.batch', id, landed_at: iso(at), source, edits, live }
}

function iso(ms: number): string {
  return new Date(ms).toISOString()
}
