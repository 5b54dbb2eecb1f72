// @ts-check
// What experiments and rollouts say, in words and figures.

/** @type {Record<string, {name: string, better: 'higher' | 'lower', about: string}>} */
export const METRICS = {
  target_shown: { name: 'Target shown', better: 'higher', about: 'the answer says what the edit wants' },
  negative_feedback: { name: 'Negative feedback', better: 'lower', about: 'a score below 0, or a label such as “wrong”' },
  score: { name: 'Score', better: 'higher', about: 'mean score of the feedback' },
  asked_again: { name: 'Asked again', better: 'lower', about: 'the user came back with the question' },
  refusal: { name: 'Refusal', better: 'lower', about: 'the answer declines' },
  error: { name: 'Error', better: 'lower', about: 'the request failed' },
  latency_ms: { name: 'Latency', better: 'lower', about: 'time of an answer' },
  completion_tokens: { name: 'Answer tokens', better: 'lower', about: 'length of an answer' },
}

/** @param {string} metric */
export function metricName(metric) {
  const [kind, ...rest] = metric.split(':')
  if (kind === 'label') return `Label “${rest.join(':')}”`
  if (kind === 'number') return `Number “${rest.join(':')}”`
  return METRICS[metric]?.name ?? metric
}

/** @param {number} value @param {number} [digits] */
export const short = (value, digits = 3) => Number(value.toPrecision(digits)).toLocaleString('en', { maximumFractionDigits: 6 })
/** @param {number} value */
export const percent = (value) => `${short(value * 100)} %`

/** A mean of one arm. @param {number | null} value @param {{metric: string, kind: string}} of */
export function meanText(value, { metric, kind }) {
  if (value === null) return '–'
  if (kind === 'proportion') return percent(value)
  return metric === 'latency_ms' ? `${short(value)} ms` : short(value)
}

/** Shares in points, ratios in per cent, means as they are. @param {number | null} value @param {string} kind */
export function signed(value, kind) {
  if (value === null) return '?'
  const scaled = kind === 'mean' ? value : value * 100
  const unit = kind === 'mean' ? '' : kind === 'ratio' ? ' %' : ' pt'
  const size = Math.abs(scaled)
  const text = kind === 'mean' ? short(size) : size >= 1_000 ? '> 1,000' : size.toFixed(1)
  return `${scaled > 0 ? '+' : scaled < 0 ? '−' : ''}${text}${unit}`
}

/** @param {(number | null)[] | null} interval @param {string} kind */
export function bounds(interval, kind) {
  if (interval === null) return '–'
  const [low, high] = interval.map((value) => signed(value, kind))
  // The unit once, at the end.
  return `${low?.replace(/ (pt|%)$/, '')} to ${high}`
}

/** @param {number} p */
export const pText = (p) => (p >= 0.995 ? '1' : p < 0.0001 ? '< 0.0001' : p.toPrecision(2))

/** Is the difference proven, and which way? @param {any} metric */
export function verdictOf({ metric, difference, confidence_sequence: sequence, significant, kind }) {
  if (difference === null) return { tone: '', text: 'no figure' }
  if (sequence === null) return { tone: '', text: `too few users (${kind === 'mean' ? 200 : 20} an arm)` }
  if (!significant) return { tone: '', text: 'nothing shown yet' }
  const better = METRICS[metric]?.better
  if (better === undefined) return { tone: 'accent', text: difference > 0 ? 'higher' : 'lower' }
  return difference > 0 === (better === 'higher') ? { tone: 'good', text: 'better' } : { tone: 'bad', text: 'worse' }
}

/** @param {any} one @returns {{tone: any, text: string}} */
export function stateOf({ status, stage, stages, outcome, shipped }) {
  if (outcome === 'live') return { tone: 'good', text: 'live for everyone' }
  if (outcome === 'rolled_back') return { tone: 'bad', text: 'rolled back' }
  if (outcome !== undefined && status === 'running') return { tone: 'accent', text: `stage: ${stageText(stages[stage])}` }
  if (status === 'shipped') return { tone: 'good', text: `shipped: ${shipped}` }
  return status === 'running' ? { tone: 'accent', text: 'running' } : { tone: '', text: status }
}

/** @param {{share: number}} stage */
export const stageText = ({ share }) => (share === 0 ? 'shadow' : percent(share))

/** What an arm answers with. @param {any} arm */
export function servesText({ edits, model, template, tags, threshold, without_batches: without }) {
  if (model !== undefined) return `model ${model}, edits ${edits}`
  if (edits === 'off') return 'without edits'
  const parts = [
    ...(template === undefined ? [] : [`template ${template}`]),
    ...(threshold === undefined ? [] : [`threshold ${threshold}`]),
    ...(tags === undefined ? [] : [`tags ${tags.join(', ')}`]),
    ...(without === undefined ? [] : [`without batch ${without.join(', ')}`]),
  ]
  return parts.length === 0 ? 'with the edits' : `with the edits: ${parts.join('; ')}`
}

const UNITS = /** @type {Record<string, string>} */ ({ user: 'user', key: 'API key', conversation: 'conversation' })
/** @param {string} unit */
export const unitText = (unit) => UNITS[unit] ?? `value of the header ${unit.slice('header:'.length)}`

const GUARDS = /** @type {Record<string, string>} */ ({
  locality: 'Prompts that the edits are not about, answered the same',
  collateral: 'Answers changed without the target showing',
  error: 'Errors, more than the first arm',
  negative_feedback: 'Negative feedback, more than the first arm',
  refusal: 'Refusals, more than the first arm',
  latency: 'Latency, times that of the first arm',
})

/** A guardrail, and its limit. @param {any} guardrail @returns {{name: string, limit: string, figure: (value: number) => string}} */
export function guardrailText({ kind, least, most, mostMore, mostTimes }) {
  const name = GUARDS[kind] ?? kind
  if (kind === 'latency') return { name, limit: `at most ${short(mostTimes)} ×`, figure: (value) => `${short(value)} ×` }
  if (kind === 'locality') return { name, limit: `at least ${percent(least)}`, figure: percent }
  if (kind === 'collateral') return { name, limit: `at most ${percent(most)}`, figure: percent }
  return { name, limit: `at most ${short(mostMore * 100)} pt more`, figure: (value) => signed(value, 'proportion') }
}

const EVENTS = /** @type {Record<string, string>} */ ({
  declared: 'Started',
  reweighed: 'Weights changed',
  stopped: 'Stopped',
  shipped: 'Shipped',
  stage: 'Next stage',
  live: 'Live for everyone',
  rolled_back: 'Rolled back',
})

/** One event in a sentence. @param {any} event */
export function eventText({ kind, stage, share, requests_affected: affected, seconds, broken, why, arm, weights }) {
  const parts = [
    ...(kind === 'stage' ? [`stage ${stage + 1}, ${stageText({ share })} of the users`] : []),
    ...(kind !== 'stage' && share !== undefined ? [`at ${stageText({ share })}`] : []),
    ...(arm === undefined || arm === null ? [] : [`arm ${arm}`]),
    ...(Array.isArray(weights) ? [weights.map((one) => short(one)).join(' : ')] : []),
    ...(Array.isArray(broken) ? broken.map(brokenText) : []),
    ...(why === undefined ? [] : [String(why)]),
    ...(affected === undefined ? [] : [`${affected} ${affected === 1 ? 'answer' : 'answers'} affected by then`]),
    ...(seconds === undefined ? [] : [`${Number(seconds).toFixed(1)} s after its start`]),
  ]
  return { name: EVENTS[kind] ?? kind, told: parts.join('; ') }
}

/** @param {any} checked */
function brokenText({ guardrail, observed }) {
  const { name, limit, figure } = guardrailText(guardrail)
  return `guardrail broken: ${name}, ${observed === null ? '?' : figure(observed)} (${limit})`
}

/** @param {string} iso */
export const when = (iso) => new Date(iso).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'short' })
