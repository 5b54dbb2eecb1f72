import { words } from '../../edit/words.ts'
import type { Kind } from '../../evaluate/data/probe.ts'
import type { Method } from '../../evaluate/methods/methods.ts'
import { fluency } from '../../evaluate/metrics/entropy.ts'
import { type Figure, mean, studentMean, wilson } from '../../evaluate/metrics/intervals.ts'
import { isIdentical, isRight, type Outcome, succeeds } from '../../evaluate/metrics/outcomes.ts'
import type { Failure, HandoffThresholds, Measure } from '../job.ts'

/** Of probes, or of edits whose texts are compared: of fewer, an interval does not hold what it says. */
const LEAST_ASKED = 4
/** Of failures, as many are kept as a person reads. */
const KEPT_FAILURES = 40
const KEPT_CHARS = 300

type Test = (outcome: Outcome, method: Method) => boolean | null

/** Teacher-forced success; without an old target to compare with, every token of the new one is the likeliest. */
const forced: Test = (outcome, method) => {
  const success = succeeds(outcome, method)
  const answer = outcome.forced[method]?.answer
  return success ?? (answer === undefined ? null : answer.hits === answer.best.length)
}

/** Subs of probes that are measures of their own. */
const NAMED = ['counterexample', 'yes', 'no', 'which'] as const
type Named = (typeof NAMED)[number]

interface JudgedPrompt {
  readonly name: string
  readonly protocol: Measure['protocol']
  readonly kinds: readonly Kind[]
  /** The probes' own name; absent: whichever no other measure names. */
  readonly sub?: Named
  readonly test: Test
  /** Least value, by the base's. */
  readonly least: (base: number | null) => number | null
}

/** Whether the answer begins with the accepted word ("yes"). */
const opens: Test = ({ probe, generated }, method) => {
  const answer = generated[method]
  return answer === undefined ? null : words(answer.text)[0] === probe.answers[0]
}

/** For an edit without a target: whether an answer is like that of the model which is told the edit, more than the base's is. null: these two answer alike. */
function taughtBy(told: ReadonlyMap<string, string>): Test {
  return ({ probe, generated }, method) => {
    const [teacher, base, own] = [told.get(probe.id), generated.base?.text, generated[method]?.text]
    if (teacher === undefined || base === undefined || own === undefined) return null
    const before = likeness(base, teacher)
    return before === 1 ? null : likeness(own, teacher) > before
  }
}

/** Words in common (Dice). */
function likeness(one: string, other: string): number {
  const [a, b] = [new Set(words(one)), new Set(words(other))]
  const common = [...a].filter((word) => b.has(word)).length
  return a.size + b.size === 0 ? 1 : (2 * common) / (a.size + b.size)
}

function sharesOf(t: HandoffThresholds, told: ReadonlyMap<string, string>): readonly JudgedPrompt[] {
  const atLeast = (share: number) => () => share || null
  const below = (drop: number) => (base: number | null) => (base === null ? null : Math.max(0, base - drop))
  return [
    { name: 'efficacy', protocol: 'forced', kinds: ['reliability'], test: forced, least: atLeast(t.efficacy) },
    { name: 'paraphrase', protocol: 'forced', kinds: ['generalization'], test: forced, least: atLeast(t.paraphrase) },
    { name: 'neighbourhood', protocol: 'forced', kinds: ['locality'], test: succeeds, least: below(t.neighbourhood_drop) },
    { name: 'reliability', protocol: 'generated', kinds: ['reliability'], test: isRight, least: atLeast(t.reliability) },
    { name: 'taught', protocol: 'generated', kinds: ['reliability'], test: taughtBy(told), least: atLeast(t.reliability) },
    {
      name: 'taught_unseen',
      protocol: 'generated',
      kinds: ['generalization'],
      test: taughtBy(told),
      least: atLeast(t.generalization),
    },
    { name: 'generalization', protocol: 'generated', kinds: ['generalization'], test: isRight, least: atLeast(t.generalization) },
    {
      name: 'portability',
      protocol: 'generated',
      kinds: ['portability', 'multi_hop'],
      test: isRight,
      least: atLeast(t.portability),
    },
    { name: 'unchanged', protocol: 'generated', kinds: ['traffic', 'locality'], test: isIdentical, least: atLeast(t.unchanged) },
    {
      name: 'near_misses',
      protocol: 'generated',
      kinds: ['traffic'],
      sub: 'counterexample',
      test: isIdentical,
      least: atLeast(t.unchanged),
    },
    // HalluEditBench's closed questions: reported only.
    { name: 'yes', protocol: 'generated', kinds: ['choice'], sub: 'yes', test: opens, least: () => null },
    { name: 'no', protocol: 'generated', kinds: ['choice'], sub: 'no', test: opens, least: () => null },
    { name: 'which', protocol: 'generated', kinds: ['choice'], sub: 'which', test: isRight, least: () => null },
    { name: 'ability', protocol: 'generated', kinds: ['choice'], test: isRight, least: below(t.ability_drop) },
  ]
}

/** The stage's figures, adapter beside base and prompt edits, and what went wrong. `told`: answers of the model that is told the edit, by id of the probe. Pure. */
export function judge(
  outcomes: readonly Outcome[],
  limits: HandoffThresholds,
  told: ReadonlyMap<string, string> = new Map(),
): { measures: Measure[]; failures: Failure[] } {
  const measures: Measure[] = []
  const failures: Failure[] = []
  for (const asked of sharesOf(limits, told)) {
    const some = outcomes.filter(
      ({ probe: { kind, sub } }) => asked.kinds.includes(kind) && NAMED.find((one) => one === sub) === asked.sub,
    )
    const own = share(some, asked.test, 'adapter')
    if (own === null) continue
    const [base = null, prompt = null] = [share(some, asked.test, 'base')?.value, share(some, asked.test, 'palimpsest')?.value]
    const least = asked.least(base)
    const { value, low, high, n } = own
    measures.push({
      name: asked.name,
      protocol: asked.protocol,
      asked: n,
      value,
      low,
      high,
      base,
      prompt,
      least,
      ...verdict(own, least),
    })
    failures.push(...some.filter((outcome) => asked.test(outcome, 'adapter') === false).map((o) => failureOf(o, asked, told)))
  }
  const flow = fluencyOf(outcomes, limits)
  return { measures: flow === null ? measures : [...measures, flow], failures: failures.slice(0, KEPT_FAILURES) }
}

/** A threshold is broken, or held, where the whole interval says so. */
function verdict({ low, high, n }: Figure, least: number | null): Pick<Measure, 'ok' | 'decided'> {
  if (least === null) return { ok: true, decided: true }
  if (n < LEAST_ASKED) return { ok: true, decided: false }
  return { ok: high >= least, decided: low >= least || high < least }
}

function share(some: readonly Outcome[], test: Test, method: Method) {
  const verdicts = some.map((outcome) => test(outcome, method)).filter((verdict) => verdict !== null)
  return wilson(verdicts.filter(Boolean).length, verdicts.length)
}

function failureOf(
  { probe, generated, forced: scored }: Outcome,
  { name, protocol }: JudgedPrompt,
  told: ReadonlyMap<string, string>,
): Failure {
  const cut = (text: string) => text.slice(0, KEPT_CHARS)
  const likelihood = (method: Method) => {
    const own = scored[method]?.answer.logProbabilities
    return own === undefined ? '' : `mean log-probability ${(own.reduce((sum, x) => sum + x, 0) / own.length).toFixed(2)}`
  }
  const said = (method: Method) => (protocol === 'forced' ? likelihood(method) : cut(generated[method]?.text ?? ''))
  const expected =
    name === 'unchanged' || name === 'near_misses' ? said('base') : cut(probe.answers[0] ?? told.get(probe.id) ?? '')
  return { measure: name, question: cut(probe.turns.at(-1) ?? ''), expected, base: said('base'), answer: said('adapter') }
}

/**
 * Generation entropy, adapter and base: what falls when a text repeats itself. Each text is compared with the base's of the same opening;
 * texts about one edit are alike, so the interval is that of the edits' mean differences.
 */
function fluencyOf(outcomes: readonly Outcome[], { fluency_drop: drop }: HandoffThresholds): Measure | null {
  const texts = outcomes.flatMap(({ probe, generated: { base, adapter } }) =>
    probe.kind !== 'fluency' || base === undefined || adapter === undefined
      ? []
      : [{ edit: probe.wants[0] ?? probe.id, base: fluency(base.text), adapter: fluency(adapter.text) }],
  )
  const base = mean(texts.map((one) => one.base))
  const value = mean(texts.map((one) => one.adapter))
  const difference = studentMean(
    [...new Set(texts.map(({ edit }) => edit))].flatMap(
      (edit) => mean(texts.filter((one) => one.edit === edit).map((one) => one.adapter - one.base)) ?? [],
    ),
  )
  if (base === null || value === null || difference === null) return null
  const prompted = outcomes.flatMap(({ probe, generated: { palimpsest } }) =>
    probe.kind !== 'fluency' || palimpsest === undefined ? [] : [fluency(palimpsest.text)],
  )
  const least = base * (1 - drop)
  const reach = (difference.high - difference.low) / 2
  const own: Figure = { value, low: Math.max(0, value - reach), high: value + reach, n: difference.n }
  const known = Number.isFinite(reach)
  return {
    name: 'fluency',
    protocol: 'generated',
    asked: texts.length,
    value,
    low: known ? own.low : null,
    high: known ? own.high : null,
    base,
    prompt: mean(prompted),
    least,
    ...verdict(own, least),
  }
}
