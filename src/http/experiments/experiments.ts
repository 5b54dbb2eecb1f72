import type { Request } from 'express'
import { z } from 'zod'
import { PalimpsestError } from '../../errors.ts'
import type { Experiment } from '../../experiment/experiment.ts'
import type { Gateway } from '../../gateway.ts'
import { check } from '../../wire/openai/refusal.ts'
import { experimentBody, rolloutBody } from '../../wire/palimpsest/experiments.ts'
import { planReply } from '../../wire/palimpsest/replies.ts'
import { type Routes, route } from '../routes.ts'
import { ExperimentContext } from './context.ts'
import { feedbackRoute } from './feedback.ts'
import { plan, planBody } from './plan.ts'
import { replayedRoute, replayRoute } from './replay.ts'

/** `/v1/experiments`, `/v1/rollouts` and `/v1/feedback`. None where this gateway keeps no ledger. */
export function experimentRoutes(gateway: Gateway): Routes {
  if (gateway.experiments === undefined) return {}
  const context = new ExperimentContext(gateway, gateway.experiments)
  const { registry } = context.parts
  const { limits } = gateway
  const ship = async (req: Request) => {
    const experiment = context.found(req, false)
    const { arm } = check(shipBody, context.body(req))
    return context.shown(await registry.ship(experiment, armIndex(experiment, arm)))
  }
  const reweigh = async (req: Request) => {
    const experiment = context.found(req, false)
    const { weights } = check(weightsBody, context.body(req))
    const next: (number | undefined)[] = experiment.arms.map(() => undefined)
    for (const [name, weight] of Object.entries(weights)) next[armIndex(experiment, name)] = weight
    return context.shown(await registry.reweigh(experiment, next))
  }
  const planned = route(
    { summary: 'How many units an effect takes to be seen.', body: planBody, reply: planReply },
    ...context.change,
    (req, res) => void res.json(plan(context.body(req))),
  )
  return {
    '/v1/experiments': {
      get: context.listRoute(false),
      post: context.declareRoute('Declare an experiment.', experimentBody(limits), false),
    },
    '/v1/experiments/plan': { post: planned },
    '/v1/experiments/:id': { get: context.readRoute() },
    '/v1/experiments/:id/weights': { post: context.changeRoute('Change the weights of arms.', reweigh, weightsBody) },
    '/v1/experiments/:id/stop': { post: context.changeRoute('Stop an experiment.', (req) => context.stop(req, false)) },
    '/v1/experiments/:id/ship': {
      post: context.changeRoute('Stop an experiment, and serve one arm to everybody.', ship, shipBody),
    },
    '/v1/experiments/:id/replay': { get: replayedRoute(context), post: replayRoute(context) },
    '/v1/rollouts': {
      get: context.listRoute(true),
      post: context.declareRoute('Roll a batch out in stages.', rolloutBody(limits), true),
    },
    '/v1/rollouts/:id': { get: context.readRoute() },
    '/v1/rollouts/:id/replay': { get: replayedRoute(context) },
    '/v1/rollouts/:id/rollback': { post: context.changeRoute('Take a rollout back.', (req) => context.stop(req, true)) },
    '/v1/feedback': { post: feedbackRoute(context) },
  }
}

function armIndex({ id, arms }: Experiment, name: string): number {
  const at = arms.findIndex((arm) => arm.name === name)
  if (at !== -1) return at
  const names = arms.map((arm) => arm.name).join(', ')
  throw new PalimpsestError('invalid_value', `Experiment '${id}' has no arm '${name.slice(0, 64)}': it has ${names}.`, {
    param: 'arm',
  })
}

const shipBody = z.strictObject({ arm: z.string().describe('Name of the arm that serves everybody from now on.') })
const weightsBody = z.strictObject({
  weights: z.record(z.string(), z.number().gt(0).max(1e6)).describe('By names of arms.'),
})
