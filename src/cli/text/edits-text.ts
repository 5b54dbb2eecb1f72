/** What the `edits` commands print; pure. */
import type { Problem } from '../../errors.ts'
import { FINDING_KINDS } from '../../selection/landing-check.ts'
import { clip, count, printable, table } from '../../terminal/table.ts'
import type {
  WireBatch,
  WireConsidered,
  WireEdit,
  WireExplanation,
  WireHistory,
  WireLanding,
  WirePage,
  WireReport,
  WireSide,
} from '../wire.ts'

const TEXT_COLUMNS = 56
const NAME_COLUMNS = 28
const VALUE_COLUMNS = 160
/** Results of a batch listed one by one. */
const LISTED = 10
/** Kinds of evidence shown for a candidate, the weightiest first. */
const EVIDENCE = 4

export function editTable({ data, total, next_cursor: next }: WirePage<WireEdit>): string {
  if (data.length === 0) return 'No edits match.'
  const rows = data.map((edit) => [
    edit.id,
    edit.state,
    clip(edit.subject ?? '', NAME_COLUMNS),
    clip(statementOf(edit), TEXT_COLUMNS),
    clip(edit.tags.join(','), NAME_COLUMNS),
  ])
  const rest =
    total > data.length || next !== null ? `${count(data.length, 'edit')} of ${total.toLocaleString('en')}` : count(total, 'edit')
  return `${table(['id', 'state', 'subject', 'statement', 'tags'], rows)}\n\n${rest}${next === null ? '' : `; more with --cursor ${next}`}`
}

/** A fact as "PROMPT → TARGET", a rule as "WHEN: INSTRUCTION", a sentence as it is. */
function statementOf({ prompt, target_new: target, text, when, instruction }: Partial<WireEdit>): string {
  if (instruction !== undefined) return `${when ?? 'always'}: ${instruction}`
  return text ?? `${prompt} → ${target}`
}

export function batchTable({ data, total }: WirePage<WireBatch>): string {
  if (data.length === 0) return 'No batches.'
  const rows = data.map(({ id, landed_at, edits, live, source }) => [
    id,
    day(landed_at),
    String(edits),
    String(live),
    clip(source, TEXT_COLUMNS),
  ])
  return `${table(['id', 'landed', 'edits>', 'live>', 'source'], rows)}\n\n${count(total, 'batch')}`
}

/** One edit in full, and what has happened to it. */
export function editHistory(edit: WireHistory): string {
  const fields: [string, string | undefined][] = [
    ['subject', edit.subject],
    ['aliases', edit.aliases.join(', ')],
    ['relation', edit.relation],
    ['prompt', edit.prompt],
    ['target_new', edit.target_new],
    ['target_true', edit.target_true],
    ['text', edit.text],
    ['when', edit.always ? 'always' : edit.when],
    ['instruction', edit.instruction],
    ['paraphrases', edit.paraphrases.join(' | ')],
    ['examples', edit.examples?.join(' | ')],
    ['counterexamples', edit.counterexamples?.join(' | ')],
    ['tags', edit.tags.join(', ')],
    ['tenant', edit.tenant],
    ['models', edit.models?.join(', ')],
    ['valid', edit.valid_from || edit.valid_to ? `${edit.valid_from ?? ''} to ${edit.valid_to ?? ''}`.trim() : undefined],
    ['source', edit.source],
    ['batch', edit.batch],
    ['state', edit.superseded_by === undefined ? edit.state : `${edit.state} by ${edit.superseded_by}`],
  ]
  const said = fields.filter(([, value]) => value !== undefined && value !== '')
  const nameColumns = said.some(([name]) => name === 'counterexamples') ? 17 : 12
  const shown = said.map(([name, value]) => `  ${name.padEnd(nameColumns)}${clip(value ?? '', VALUE_COLUMNS)}`)
  const rows = edit.history.map(({ version, at, kind, batch, edit: content }) => [
    `  ${version}`,
    day(at),
    kind,
    batch,
    content === undefined ? '' : clip(statementOf(content), TEXT_COLUMNS),
  ])
  return `${edit.id}\n${shown.join('\n')}\n\n${table(['  version', 'at', 'what', 'batch', 'statement'], rows)}`
}

/** What a batch did, or would do; then what its author may not have meant. */
export function landingText({ id, dry_run: dryRun, replayed, counts, results, report }: WireLanding, file: string): string {
  const outcome = [
    `${counts.added.toLocaleString('en')} added`,
    `${counts.revised.toLocaleString('en')} revised`,
    ...(counts.restored > 0 ? [`${counts.restored.toLocaleString('en')} restored`] : []),
    `${counts.unchanged.toLocaleString('en')} unchanged`,
  ].join(', ')
  const did = replayed ? 'had landed before; nothing was changed' : `${dryRun ? 'would land: ' : ''}${outcome}`
  const head = `${file}: ${count(counts.edits, 'edit')} (batch ${id}) ${did}`
  if (report !== undefined) return [printable(head), reportText(report)].filter((part) => part !== '').join('\n')
  const notes = results.flatMap((result) => [
    ...result.supersedes.map((other) => `  ${result.id} supersedes ${other}`),
    ...(result.duplicate_of === null ? [] : [`  record ${result.index + 1} says the same as record ${result.duplicate_of + 1}`]),
    ...(result.conflicts_with.length === 0
      ? []
      : [`  ${result.id} says something else than ${result.conflicts_with.join(', ')}; the last one wins`]),
  ])
  const more = notes.length > LISTED ? [`  … and ${notes.length - LISTED} more`] : []
  return [head, ...notes.slice(0, LISTED), ...more].map(printable).join('\n')
}

/** What a dry run found, kind by kind, each with line and id of both sides. */
export function reportText({ findings, counts, pairs_left: left, fault }: WireReport): string {
  const place = ({ id, line, index }: WireSide) =>
    index === null ? `${id} in memory` : `line ${line} (record ${index + 1}) ${id}`
  const kinds = FINDING_KINDS.filter((kind) => counts[kind] > 0).flatMap((kind) => {
    const shown = findings.filter((finding) => finding.kind === kind).slice(0, LISTED)
    const more = counts[kind] > shown.length ? [`    … and ${(counts[kind] - shown.length).toLocaleString('en')} more`] : []
    const rows = shown.map(
      ({ edit, other, message }) => `    ${place(edit)}${other === null ? '' : ` / ${place(other)}`}: ${message}`,
    )
    return [`  ${kind}: ${counts[kind].toLocaleString('en')}`, ...rows, ...more]
  })
  const unsure = left === 0 ? [] : [`  ${count(left, 'edit')} not read${fault === null ? ': too many' : `: ${fault}`}`]
  return [...kinds, ...unsure].map(printable).join('\n')
}

/** `file:line: field: message`. */
export function problemText({ file, line, index, field, message }: Problem): string {
  const place = [file, line ?? (index === undefined ? undefined : `record ${index + 1}`)]
    .filter((part) => part !== undefined)
    .join(':')
  return printable([place, field, message].filter((part) => part !== null && part !== '').join(': '))
}

export function explanationText(explanation: WireExplanation, hasModel: boolean): string {
  const turns = explanation.turns.flatMap(({ considered }) => considered)
  const shown = turns.length === 0 ? 'No edit of the memory comes near this question.' : candidateTable(turns)
  const template =
    explanation.template === null
      ? 'no edit is rendered'
      : `template ${explanation.template.name}, ${count(explanation.tokens_added, 'token')} added`
  const note = hasModel ? '' : '; no model is loaded, so its chat format is left out'
  return `${shown}\n\nPrompt (${template}${note}):\n${printable(explanation.prompt.text)}`
}

export function candidateTable(considered: readonly WireConsidered[]): string {
  const rows = considered.map(({ id, statement, score, similarity, reason, hop, evidence }) => [
    id,
    score.toFixed(3),
    similarity === null ? '' : similarity.toFixed(2),
    hop > 1 ? `${reason} (hop ${hop})` : reason,
    clip(statement, TEXT_COLUMNS),
    evidenceText(evidence),
  ])
  return table(['id', 'score>', 'cosine>', 'reason', 'statement', 'evidence'], rows)
}

function evidenceText(evidence: Readonly<Record<string, number>>): string {
  const weighty = Object.entries(evidence).filter(([, value]) => value !== 0)
  weighty.sort(([, a], [, b]) => Math.abs(b) - Math.abs(a))
  return weighty
    .slice(0, EVIDENCE)
    .map(([name, value]) => `${name} ${Number(value.toFixed(2))}`)
    .join(', ')
}

/** `2026-03-01 12:30:05` in UTC. */
function day(iso: string): string {
  return iso.slice(0, 19).replace('T', ' ')
}
