import type { Request } from 'express'
import { z } from 'zod'
import { PalimpsestError } from '../../errors.ts'
import { keyOf } from '../../experiment/experiment.ts'
import type { Pair } from '../../experiment/replay/replay.ts'
import { replayResult } from '../../experiment/replay/replay-result.ts'
import type { Limits } from '../../gateway.ts'
import { check } from '../../wire/openai/refusal.ts'
import { wirePair, wireReplay } from '../../wire/palimpsest/experiment-answers.ts'
import { replayAcceptedReply, replayReply } from '../../wire/palimpsest/replies.ts'
import { text } from '../../wire/palimpsest/selection.ts'
import { pathParam, tenantOf, tenantOnly } from '../request/query.ts'
import { type Route, route } from '../routes.ts'
import { type ExperimentContext, servedNow } from './context.ts'

/** Pairs of answers shown of one replay. */
const SHOWN_PAIRS = 100

const messages = z.array(z.strictObject({ role: z.enum(['system', 'user', 'assistant']), content: text })).min(1)

function replayBody({ replayPrompts }: Limits) {
  return z.strictObject({
    prompts: z
      .array(z.union([text.min(1), messages]))
      .min(1)
      .max(replayPrompts)
      .optional(),
    logged: z.boolean().optional(),
    judge: z.union([z.literal(true), text]).optional(),
  })
}

export function replayRoute(context: ExperimentContext): Route {
  return route(
    {
      summary: 'Ask prompts of every arm, while the engine has nothing else to do.',
      query: tenantOnly,
      body: replayBody(context.gateway.limits),
      status: 202,
      reply: replayAcceptedReply,
      errors: ['model_not_found'],
    },
    ...context.change,
    async (req, res) => void res.status(202).json(await replay(context, req)),
  )
}

async function replay(context: ExperimentContext, req: Request): Promise<object> {
  const { gateway, parts } = context
  const { registry, replays } = parts
  const experiment = context.found(req, false)
  const { prompts = [], logged = false, judge } = check(replayBody(gateway.limits), context.body(req))
  const uploaded = prompts.map((prompt) => (typeof prompt === 'string' ? [{ role: 'user' as const, content: prompt }] : prompt))
  if (judge !== undefined && judge !== true && !servedNow(gateway, experiment.tenant).models.includes(judge))
    throw new PalimpsestError('model_not_found', `The model \`${judge.slice(0, 64)}\` is not served here.`, { param: 'judge' })
  const judging = judge === true ? gateway.engine.model.name : (judge ?? null)
  const held = logged ? await registry.ledger.prompts(keyOf(experiment)) : []
  const accepted =
    (await replays.enqueue(experiment, uploaded, 'uploaded', judging)) +
    (await replays.enqueue(experiment, held, 'logged', judging))
  return { object: 'experiment.replay', accepted, left_out: uploaded.length + held.length - accepted }
}

export function replayedRoute({ parts: { registry, replays } }: ExperimentContext): Route {
  return route({ summary: 'What the replay found.', query: tenantOnly, reply: replayReply }, async (req, res) => {
    const experiment = registry.get(tenantOf(req), pathParam(req, 'id'))
    const pairs = await registry.ledger.pairs<Pair>(experiment)
    const names = experiment.arms.map(({ name }) => name)
    const results = names.slice(1).map((_, i) => replayResult(experiment, pairs, i + 1))
    const changed = pairs.filter(({ answers }) => new Set(answers.map(({ text }) => text)).size > 1)
    res.json({
      ...wireReplay(results, await replays.waiting(experiment), replays.preempted),
      changed: changed.slice(0, SHOWN_PAIRS).map((pair) => wirePair(pair, names)),
    })
  })
}
