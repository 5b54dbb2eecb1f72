import type { Request, RequestHandler } from 'express'
import { z } from 'zod'
import { PalimpsestError } from '../../errors.ts'
import { type Experiment, keyOf } from '../../experiment/experiment.ts'
import type { Gateway } from '../../gateway.ts'
import { check } from '../../wire/openai/refusal.ts'
import { wireEvent, wireExperiment, wireMoment, wireResult, wireStanding } from '../../wire/palimpsest/experiment-answers.ts'
import { readExperiment, readRollout, type ServedNow } from '../../wire/palimpsest/experiments.ts'
import { experimentReply, experimentResultReply, listOf } from '../../wire/palimpsest/replies.ts'
import { oneTenant, tenant } from '../../wire/palimpsest/selection.ts'
import { bytes, json, optionalJson } from '../request/body.ts'
import { changeAbout, pathParam, query, tenantOf, tenantOnly } from '../request/query.ts'
import { nothing, refuseWhenClosing, tenantHeader } from '../request/request-context.ts'
import { type Route, route } from '../routes.ts'

/** What the routes of experiments and rollouts share: they differ in which of the two they speak of. */
export class ExperimentContext {
  readonly gateway: Gateway
  readonly parts: NonNullable<Gateway['experiments']>
  /** What stands before a handler that changes something. */
  readonly change: readonly RequestHandler[]

  constructor(gateway: Gateway, parts: NonNullable<Gateway['experiments']>) {
    this.gateway = gateway
    this.parts = parts
    this.change = [refuseWhenClosing(gateway), bytes(gateway.limits.chatBodyBytes)]
  }

  body(req: Request): unknown {
    return json(req, this.gateway.limits.jsonDepthLevels)
  }

  /** Throws `experiment_not_found`, also where it is the other of the two. */
  found(req: Request, rollout: boolean): Experiment {
    const experiment = this.parts.registry.get(tenantOf(req), pathParam(req, 'id'))
    if ((experiment.rollout !== undefined) === rollout) return experiment
    const path = experiment.rollout === undefined ? '/v1/experiments' : '/v1/rollouts'
    throw new PalimpsestError('experiment_not_found', `'${experiment.id}' is to be found under ${path}.`, { param: 'id' })
  }

  async shown(experiment: Experiment, points = 0): Promise<object> {
    const { registry, rollouts } = this.parts
    const moments = points > 0 ? await registry.overTime(experiment, points) : undefined
    return {
      ...wireExperiment(experiment),
      result: wireResult(await registry.result(experiment), registry.isFull(experiment)),
      standing: (await rollouts.standing(experiment)).map(wireStanding),
      ...(moments && { over_time: moments.map(wireMoment) }),
      events: (await registry.ledger.events(keyOf(experiment))).map(wireEvent),
    }
  }

  async declare(req: Request, rollout: boolean): Promise<object> {
    const sent = this.body(req)
    const { tenant: named } = check(z.looseObject({ tenant: tenant.optional() }), sent)
    const owner = oneTenant(named, tenantHeader(req), 'tenant')
    const served = { ...servedNow(this.gateway, owner), source: 'http' }
    const { limits } = this.gateway
    const experiment = rollout ? readRollout(sent, limits, owner, served) : readExperiment(sent, limits, owner, served)
    return this.shown(await this.parts.registry.declare(experiment))
  }

  async stop(req: Request, rollout: boolean): Promise<object> {
    check(nothing, optionalJson(req, this.gateway.limits.jsonDepthLevels))
    const experiment = this.found(req, rollout)
    if (experiment.status === 'stopped') return this.shown(experiment)
    const { registry, rollouts } = this.parts
    return this.shown(await (rollout ? rollouts.rollBack(experiment, 'asked for') : registry.stop(experiment)))
  }

  listRoute(rollout: boolean): Route {
    const summary = `List ${rollout ? 'rollouts' : 'experiments'}, the latest first.`
    return route({ summary, query: tenantOnly, reply: listOf(experimentReply) }, (req, res) => {
      const all = this.parts.registry.all(tenantOf(req)).filter((experiment) => (experiment.rollout !== undefined) === rollout)
      res.json({ object: 'list', data: all.toReversed().map(wireExperiment) })
    })
  }

  readRoute(): Route {
    return route({ summary: 'Read one, with its result.', query: points, reply: experimentResultReply }, async (req, res) => {
      const { tenant: named, points: asked } = query(req, points)
      const owner = oneTenant(named, tenantHeader(req), 'tenant')
      res.json(await this.shown(this.parts.registry.get(owner, pathParam(req, 'id')), asked))
    })
  }

  declareRoute(summary: string, body: z.ZodType, rollout: boolean): Route {
    return route(
      { summary, body, status: 201, reply: experimentResultReply, errors: ['model_not_found', 'storage_full'] },
      ...this.change,
      async (req, res) => void res.status(201).json(await this.declare(req, rollout)),
    )
  }

  changeRoute(summary: string, work: (req: Request) => Promise<object>, body?: z.ZodType): Route {
    return route(
      changeAbout(summary, experimentResultReply, [], body),
      ...this.change,
      async (req, res) => void res.json(await work(req)),
    )
  }
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
