/** Experiments for a terminal: pure. */
import { clip, count, printable, table } from '../../terminal/table.ts'
import type { WireComparison, WireExperiment, WireExperimentResult, WireReplayResult } from '../wire.ts'

export function experimentTable(experiments: readonly WireExperiment[]): string {
  if (experiments.length === 0) return 'None.'
  const rows = experiments.map((one) => [
    one.id,
    stateOf(one),
    one.arms.map(({ name, weight }) => `${name} ${weight}`).join(', '),
    one.created_at.slice(0, 16),
  ])
  return table(['id', 'state', 'arms', 'since'], rows)
}

function stateOf({ status, stage, stages, outcome, shipped }: WireExperiment): string {
  if (outcome === 'live' || outcome === 'rolled_back') return outcome.replace('_', ' ')
  if (stage !== undefined) return `stage ${stage}: ${(stages?.[stage]?.share ?? 0) * 100} %`
  return shipped == null ? status : `shipped ${shipped}`
}

export function experimentText(experiment: WireExperimentResult): string {
  const { id, result, events } = experiment
  const arms = table(
    ['arm', 'weight>', 'exposures>', 'answers>', 'unfinished>'],
    result.arms.map(({ arm, exposures, answers, unfinished }, at) => [
      ...[arm, String(experiment.arms[at]?.weight ?? ''), String(exposures), String(answers), String(unfinished)],
    ]),
  )
  const ratio = result.sample_ratio
  const blocked = result.blocked
    ? `BLOCKED: the arms are not as full as their weights say (p = ${ratio.p_value.toPrecision(2)}); find out why before believing any figure.`
    : `The arms are as full as their weights say (p = ${ratio.p_value.toPrecision(2)}).`
  const rows = result.metrics.map((metric) => [
    metric.metric,
    metric.arm,
    ...metric.means.map((mean) => (mean === null ? '-' : Number(mean.toPrecision(3)).toLocaleString('en'))),
    metric.difference === null ? '-' : signed(metric.difference, metric.kind),
    bounds(metric.confidence_sequence, metric.kind),
    bounds(metric.fixed_interval, metric.kind),
    `${metric.adjusted_p.toPrecision(2)}${metric.significant ? ' *' : ''}`,
  ])
  const first = experiment.arms[0]?.name ?? 'first'
  const metrics = table(['metric', 'arm', `${first}>`, 'arm>', 'difference>', 'at any look', 'at one look', 'p, any look>'], rows)
  const log = events.map(({ at, kind, ...body }) => `${at.slice(0, 19)}  ${kind}${told(body)}`)
  return [`${id}: ${stateOf(experiment)}`, '', arms, '', blocked, '', metrics, '', ...log].join('\n')
}

/** What an event says beside its kind; evidence in full is for --json. */
function told(body: Readonly<Record<string, unknown>>): string {
  const { stage, share, requests_affected: affected, seconds, broken, why, arm } = body
  const parts = [
    ...(share === undefined ? [] : [`stage ${stage}, ${Number(share) * 100} %`]),
    ...(arm === undefined ? [] : [String(arm)]),
    ...(Array.isArray(broken) ? broken.map(guardrailText) : []),
    ...(why === undefined ? [] : [String(why)]),
    ...(affected === undefined ? [] : [`${affected} answers by then`]),
    ...(seconds === undefined ? [] : [`${Number(seconds).toFixed(1)} s after its start`]),
  ]
  return parts.length === 0 ? '' : `: ${parts.join('; ')}`
}

function guardrailText({ guardrail, observed }: { guardrail: Record<string, unknown>; observed: number | null }): string {
  const { kind, ...limit } = guardrail
  return `${kind} ${observed === null ? '' : Number(observed).toPrecision(3)} (${JSON.stringify(limit).replace(/[{}"]/g, '')})`
}

/** Shares in points, ratios in per cent, means as they are. */
function signed(value: number, kind: string): string {
  const sign = value > 0 ? '+' : ''
  return kind === 'mean'
    ? `${sign}${value.toPrecision(3)}`
    : `${sign}${(value * 100).toFixed(1)}${kind === 'ratio' ? ' %' : ' pt'}`
}

function bounds(interval: readonly (number | null)[] | null, kind: string): string {
  if (interval === null) return '-'
  return interval.map((value) => (value === null ? '?' : signed(value, kind))).join(' … ')
}

export function replayText({ arms, waiting }: WireReplayResult): string {
  return arms.map((arm) => armReplayed(arm, waiting)).join('\n\n')
}

function armReplayed(of: WireReplayResult['arms'][number], waiting: number): string {
  const { arm, pairs, failed, changed, target_shown: shown, judged, locality, edits } = of
  const more = [...(failed > 0 ? [`${failed} failed`] : []), ...(waiting > 0 ? [`${waiting} waiting`] : [])]
  const sequence = bounds(shown.confidence_sequence, 'proportion')
  const lines = [
    [`${arm}: ${count(pairs, 'prompt')} answered by both arms, ${changed} differently`, ...more].join(', '),
    `target shown: ${shown.gained} gained, ${shown.lost} lost of ${shown.pairs} with a target at work; ${sequence} at any look`,
    `McNemar's exact p at one look: ${shown.mcnemar_p.toPrecision(2)}`,
    ...(shown.prompts_needed === null ? [] : [`about ${shown.prompts_needed} prompts show such a difference with 80 % power`]),
    ...(judged.pairs === 0 ? [] : [`judged: better ${judged.gained}, worse ${judged.lost} of ${judged.pairs}`]),
    ...(locality.n === 0 ? [] : [`not about it: ${locality.identical} of ${locality.n} answered the same`]),
  ]
  const rows = edits.map((edit) => [edit.id, ...[edit.pairs, edit.changed, edit.gained, edit.lost].map(String)])
  const perEdit = table(['edit', 'prompts>', 'changed>', 'gained>', 'lost>'], rows)
  return [...lines, ...(rows.length === 0 ? [] : ['', perEdit])].join('\n')
}

const WHY_EDITS = 3

export function comparisonText({ arms, identical }: WireComparison): string {
  const one = ({ arm, text, latency_ms: ms, tokens_added: added, turns }: WireComparison['arms'][number]) => {
    const considered = turns.at(-1)?.considered ?? []
    const rows = considered
      .slice(0, WHY_EDITS)
      .map(({ id, statement, score, reason }) => [`  ${id}`, reason, score.toFixed(2), clip(statement, 60)])
    return [
      `${arm} (${ms} ms, ${added} tokens added)`,
      `  ${printable(text).replaceAll('\n', '\n  ')}`,
      ...(rows.length > 0 ? [table(['  edit', 'reason', 'score', 'statement'], rows)] : []),
    ].join('\n')
  }
  return [...arms.map(one), identical ? 'All answers are the same, byte for byte.' : 'The answers differ.'].join('\n\n')
}
