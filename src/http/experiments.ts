import { createHash } from 'node:crypto'
import type { Request } from 'express'
import { z } from 'zod'
import { PalimpsestError } from '../errors.ts'
import type { Experiment } from '../experiment/experiment.ts'
import { keyOf } from '../experiment/experiment.ts'
import { type Pair, replayResult } from '../experiment/replay/replay.ts'
import { needed } from '../experiment/statistics/power.ts'
import type { Gateway } from '../gateway.ts'
import { check } from '../wire/openai/refusal.ts'
import {
  wireEvent,
  wireExperiment,
  wireMoment,
  wirePair,
  wireReplay,
  wireResult,
  wireStanding,
} from '../wire/palimpsest/experiment-answers.ts'
import {
  experimentBody,
  feedbackBody,
  readExperiment,
  readFeedback,
  readRollout,
  rolloutBody,
  type ServedNow,
} from '../wire/palimpsest/experiments.ts'
import {
  experimentReply,
  experimentResultReply,
  feedbackReply,
  listOf,
  planReply,
  replayAcceptedReply,
  replayReply,
} from '../wire/palimpsest/replies.ts'
import { oneTenant, tenant, text } from '../wire/palimpsest/selection.ts'
import { bytes, json, optionalJson } from './request/body.ts'
import { pathParam, query, tenantOf, tenantOnly } from './request/query.ts'
import { nothing, refuseWhenClosing, tenantHeader } from './request/request-context.ts'
import { type Routes, route } from './routes.ts'

/** Pairs of answers shown of one replay. */
const SHOWN_PAIRS = 100

/** `/v1/experiments`, `/v1/rollouts` and `/v1/feedback`. None where this gateway keeps no ledger. */
export function experimentRoutes(gateway: Gateway): Routes {
  if (gateway.experiments === undefined) return {}
  const { registry, replays, rollouts } = gateway.experiments
  const { limits } = gateway
  const change = [refuseWhenClosing(gateway), bytes(limits.chatBodyBytes)]
  const body = (req: Request) => json(req, limits.jsonDepthLevels)
  const found = (req: Request, rollout: boolean) => {
    const experiment = registry.get(tenantOf(req), pathParam(req, 'id'))
    if ((experiment.rollout !== undefined) === rollout) return experiment
    const path = experiment.rollout === undefined ? '/v1/experiments' : '/v1/rollouts'
    throw new PalimpsestError('experiment_not_found', `'${experiment.id}' is to be found under ${path}.`, { param: 'id' })
  }
  const list = (req: Request, rollout: boolean) => {
    const all = registry.all(tenantOf(req)).filter((experiment) => (experiment.rollout !== undefined) === rollout)
    return { object: 'list', data: all.toReversed().map(wireExperiment) }
  }
  const shown = (experiment: Experiment, points = 0) => ({
    ...wireExperiment(experiment),
    result: wireResult(registry.result(experiment), registry.isFull(experiment)),
    standing: rollouts.standing(experiment).map(wireStanding),
    ...(points > 0 && { over_time: registry.overTime(experiment, points).map(wireMoment) }),
    events: registry.ledger.events(keyOf(experiment)).map(wireEvent),
  })
  const declare = (req: Request, rollout: boolean) => {
    const sent = body(req)
    const { tenant: named } = check(z.looseObject({ tenant: tenant.optional() }), sent)
    const owner = oneTenant(named, tenantHeader(req), 'tenant')
    const served = { ...servedNow(gateway, owner), source: 'http' }
    const experiment = rollout ? readRollout(sent, limits, owner, served) : readExperiment(sent, limits, owner, served)
    registry.declare(experiment)
    return shown(experiment)
  }
  const onlyTenant = (req: Request) => check(nothing, optionalJson(req, limits.jsonDepthLevels))
  const armIndex = (experiment: Experiment, name: string) => {
    const at = experiment.arms.findIndex((arm) => arm.name === name)
    if (at !== -1) return at
    const names = experiment.arms.map((arm) => arm.name).join(', ')
    throw new PalimpsestError(
      'invalid_value',
      `Experiment '${experiment.id}' has no arm '${name.slice(0, 64)}': it has ${names}.`,
      {
        param: 'arm',
      },
    )
  }
  const ship = (req: Request) => {
    const experiment = found(req, false)
    const { arm } = check(shipBody, body(req))
    return shown(registry.ship(experiment, armIndex(experiment, arm)))
  }
  const reweigh = (req: Request) => {
    const experiment = found(req, false)
    const { weights } = check(weightsBody, body(req))
    const next = experiment.arms.map(({ weight }) => weight)
    for (const [name, weight] of Object.entries(weights)) next[armIndex(experiment, name)] = weight
    return shown(registry.reweigh(experiment, next))
  }
  const stop = (req: Request, rollout: boolean) => {
    onlyTenant(req)
    const experiment = found(req, rollout)
    if (experiment.status === 'stopped') return shown(experiment)
    return shown(rollout ? rollouts.rollBack(experiment, 'asked for') : registry.stop(experiment))
  }

  const messages = z.array(z.strictObject({ role: z.enum(['system', 'user', 'assistant']), content: text })).min(1)
  const replayBody = z.strictObject({
    prompts: z
      .array(z.union([text.min(1), messages]))
      .min(1)
      .max(limits.replayPrompts)
      .optional(),
    logged: z.boolean().optional(),
    judge: z.union([z.literal(true), text]).optional(),
  })
  const replay = (req: Request) => {
    const experiment = found(req, false)
    const { prompts = [], logged = false, judge } = check(replayBody, body(req))
    const uploaded = prompts.map((prompt) => (typeof prompt === 'string' ? [{ role: 'user' as const, content: prompt }] : prompt))
    if (judge !== undefined && judge !== true && !servedNow(gateway, experiment.tenant).models.includes(judge))
      throw new PalimpsestError('model_not_found', `The model \`${judge.slice(0, 64)}\` is not served here.`, { param: 'judge' })
    const judging = judge === true ? gateway.engine.model.name : judge
    const held = logged ? registry.ledger.prompts(keyOf(experiment)) : []
    const accepted =
      replays.enqueue(experiment, uploaded, 'uploaded', judging) + replays.enqueue(experiment, held, 'logged', judging)
    return { object: 'experiment.replay', accepted, left_out: uploaded.length + held.length - accepted }
  }
  const replayed = (req: Request) => {
    const experiment = registry.get(tenantOf(req), pathParam(req, 'id'))
    const pairs = registry.ledger.pairs<Pair>(experiment)
    const names = experiment.arms.map(({ name }) => name)
    const results = names.slice(1).map((_, i) => replayResult(experiment, pairs, i + 1))
    const changed = pairs.filter(({ answers }) => new Set(answers.map(({ text }) => text)).size > 1)
    return {
      ...wireReplay(results, replays.waiting(experiment), replays.preempted),
      changed: changed.slice(0, SHOWN_PAIRS).map((pair) => wirePair(pair, names)),
    }
  }
  const feedback = (req: Request) => {
    const { completion_id: completion, tenant: named, id, score, label, numbers } = readFeedback(body(req))
    const said = { ...(score !== undefined && { score }), ...(label !== undefined && { label }), numbers: numbers ?? {} }
    const own = createHash('sha256').update(JSON.stringify(said)).digest('base64url').slice(0, 22)
    const recorded = registry.ledger.feedback({
      ...{ tenant: oneTenant(named, tenantHeader(req), 'tenant'), completion, id: id ?? own, at: Math.round(gateway.now()) },
      ...said,
    })
    if (recorded === 'recorded') registry.heard(completion)
    return { object: 'feedback', completion_id: completion, id: id ?? own, outcome: recorded }
  }
  const points = z.strictObject({
    tenant: tenant.optional(),
    points: z
      .string()
      .regex(/^([1-9]|[1-9]\d)$/, { error: 'a whole number from 1 to 99' })
      .transform(Number)
      .optional()
      .describe('Moments in `over_time`; none where left out.'),
  })
  const read = (req: Request) => {
    const { tenant: named, points: asked } = query(req, points)
    const experiment = registry.get(oneTenant(named, tenantHeader(req), 'tenant'), pathParam(req, 'id'))
    return shown(experiment, asked)
  }

  const listed = (rollout: boolean) =>
    route(
      {
        summary: `List ${rollout ? 'rollouts' : 'experiments'}, the latest first.`,
        query: tenantOnly,
        reply: listOf(experimentReply),
      },
      (req, res) => void res.json(list(req, rollout)),
    )
  const changed = (summary: string, work: (req: Request) => object, accepted: z.ZodType = nothing) =>
    route(
      {
        summary,
        query: tenantOnly,
        body: accepted,
        ...(accepted === nothing && { bodyOptional: true }),
        reply: experimentResultReply,
      },
      ...change,
      (req, res) => void res.json(work(req)),
    )
  const replayedRoute = route(
    { summary: 'What the replay found.', query: tenantOnly, reply: replayReply },
    (req, res) => void res.json(replayed(req)),
  )
  const readRoute = route(
    { summary: 'Read one, with its result.', query: points, reply: experimentResultReply },
    (req, res) => void res.json(read(req)),
  )

  return {
    '/v1/experiments': {
      get: listed(false),
      post: route(
        {
          summary: 'Declare an experiment.',
          body: experimentBody(limits),
          status: 201,
          reply: experimentResultReply,
          errors: DECLARED,
        },
        ...change,
        (req, res) => void res.status(201).json(declare(req, false)),
      ),
    },
    '/v1/experiments/plan': {
      post: route(
        { summary: 'How many units an effect takes to be seen.', body: planBody, reply: planReply },
        ...change,
        (req, res) => void res.json(plan(body(req))),
      ),
    },
    '/v1/experiments/:id': { get: readRoute },
    '/v1/experiments/:id/weights': { post: changed('Change the weights of arms.', reweigh, weightsBody) },
    '/v1/experiments/:id/stop': { post: changed('Stop an experiment.', (req) => stop(req, false)) },
    '/v1/experiments/:id/ship': { post: changed('Stop an experiment, and serve one arm to everybody.', ship, shipBody) },
    '/v1/experiments/:id/replay': {
      get: replayedRoute,
      post: route(
        {
          ...{
            summary: 'Ask prompts of every arm, while the engine has nothing else to do.',
            query: tenantOnly,
            body: replayBody,
          },
          ...{ status: 202, reply: replayAcceptedReply, errors: ['model_not_found'] },
        },
        ...change,
        (req, res) => void res.status(202).json(replay(req)),
      ),
    },
    '/v1/rollouts': {
      get: listed(true),
      post: route(
        {
          ...{ summary: 'Roll a batch out in stages.', body: rolloutBody(limits), status: 201, reply: experimentResultReply },
          errors: DECLARED,
        },
        ...change,
        (req, res) => void res.status(201).json(declare(req, true)),
      ),
    },
    '/v1/rollouts/:id': { get: readRoute },
    '/v1/rollouts/:id/replay': { get: replayedRoute },
    '/v1/rollouts/:id/rollback': { post: changed('Take a rollout back.', (req) => stop(req, true)) },
    '/v1/feedback': {
      post: route(
        { summary: 'Say how good an answer was.', body: feedbackBody, reply: feedbackReply },
        ...change,
        (req, res) => void res.json(feedback(req)),
      ),
    },
  }
}

const DECLARED = ['model_not_found', 'storage_full'] as const

/** What an experiment of the tenant may refer to. */
export function servedNow(
  { templates, engine, otherEngines, models, adapters, now }: Gateway,
  tenant: string,
): Omit<ServedNow, 'source'> {
  return {
    templates: templates.names(),
    models: [engine.model.name, ...(otherEngines?.keys() ?? []), ...(models?.names() ?? [])],
    adapters: adapters?.list(tenant).map(({ id }) => id) ?? [],
    now: now(),
  }
}

const shipBody = z.strictObject({ arm: z.string().describe('Name of the arm that serves everybody from now on.') })
const weightsBody = z.strictObject({
  weights: z.record(z.string(), z.number().gt(0).max(1e6)).describe('By names of arms.'),
})

const fraction = z.number().min(0).max(1)
const planBody = z
  .strictObject({
    base: fraction.optional(),
    other: fraction.optional(),
    gained: fraction.optional(),
    lost: fraction.optional(),
    difference: z.number().optional(),
    deviation: z.number().gt(0).optional(),
    alpha: z.number().min(0.0001).max(0.2).optional(),
    power: z.number().min(0.5).max(0.999).optional(),
  })
  .refine(
    ({ base, other, gained, lost, difference, deviation }) => {
      const given = [base, gained, difference].filter((value) => value !== undefined).length
      const whole = (base === undefined) === (other === undefined) && (gained === undefined) === (lost === undefined)
      return given === 1 && whole && (difference === undefined) === (deviation === undefined)
    },
    {
      error:
        '`base` and `other` (shares), `gained` and `lost` (shares of paired prompts), or `difference` and `deviation` (means)',
    },
  )

/** How many units, or prompts, an effect takes to be seen. */
function plan(sent: unknown) {
  const { base = 0, other, gained = 0, lost, difference = 0, deviation = 1, alpha = 0.05, power = 0.8 } = check(planBody, sent)
  const effect =
    other !== undefined
      ? ({ kind: 'proportion', base, other } as const)
      : lost !== undefined
        ? ({ kind: 'paired', gained, lost } as const)
        : ({ kind: 'mean', difference, deviation } as const)
  const { fixed, sequential } = needed(effect, { alpha, power })
  const finite = (n: number) => (Number.isFinite(n) ? n : null)
  return {
    object: 'experiment.plan',
    kind: effect.kind,
    alpha,
    power,
    one_look: finite(fixed),
    looks_at_will: finite(sequential),
  }
}
