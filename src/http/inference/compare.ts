import { randomUUID } from 'node:crypto'
import type { Request, Response } from 'express'
import { z } from 'zod'
import { answerWhole } from '../../compare.ts'
import type { Finish } from '../../engine/engine.ts'
import { asServed } from '../../experiment/experiment.ts'
import type { Gateway } from '../../gateway.ts'
import { explain } from '../../pipeline.ts'
import type { ChatRequest } from '../../request.ts'
import { Trace } from '../../trace.ts'
import { wireTurns } from '../../wire/openai/completion.ts'
import { check } from '../../wire/openai/refusal.ts'
import { explainBody, explainReader } from '../../wire/palimpsest/explain.ts'
import { comparisonReply } from '../../wire/palimpsest/replies.ts'
import { bytes, json } from '../request/body.ts'
import { isFailed, withinBudget } from '../request/budget.ts'
import { exchangeOf, goneSignal, refuseWhenClosing, tenantHeader } from '../request/request-context.ts'
import { servedBy } from '../request/request-identity.ts'
import { type Routes, route } from '../routes.ts'

const ANSWER_TOKENS = 256

const ownFields = {
  experiment: z.string().optional().describe('Its arms are compared; base and edited where left out.'),
  max_tokens: z.int().min(1).optional().describe(`Of each answer; ${ANSWER_TOKENS} where left out.`),
}

interface ArmRequest {
  readonly arm: string
  readonly request: ChatRequest
}

/** `POST /v1/compare`: one prompt, answered by base and edited, or by every arm of an experiment or rollout, side by side, with the why. */
export function compareRoutes(gateway: Gateway): Routes {
  const { limits } = gateway
  const read = explainReader(limits)
  const own = z.looseObject(ownFields)
  const compare = async (req: Request, res: Response) => {
    const signal = goneSignal(res)
    const { experiment, max_tokens: maxTokens = ANSWER_TOKENS, ...fields } = check(own, json(req, limits.jsonDepthLevels))
    const served = servedBy(gateway)
    const asked = read(fields, tenantHeader(req), served)
    const request = { ...asked, sampling: { ...asked.sampling, seed: 0, maxTokens } }
    const { experiments: _, ...plain } = gateway
    const arms = []
    const asking = armsOf(request, gateway, experiment)
    const exchange = exchangeOf(res)
    const finishes: Finish[] = []
    let begun = 0
    const promptTokens = () => gateway.engine.countTokens({ messages: request.messages })
    await withinBudget(res, gateway, {
      sampling: request.sampling,
      prompts: asking.length,
      answers: 1,
      promptTokens: () => asking.length * promptTokens(),
      // An answer that its client left counts as a whole one, and one that failed as none.
      used: () =>
        finishes.reduce((sum, { promptTokens, completionTokens }) => sum + promptTokens + completionTokens, 0) +
        (isFailed(exchange) ? 0 : (begun - finishes.length) * (promptTokens() + maxTokens)),
    })
    for (const { arm, request: own } of asking) {
      const id = `compare-${randomUUID()}`
      begun++
      const { text, finish, trace, latencyMs } = await answerWhole(own, plain, id, signal)
      finishes.push(finish)
      const { prompt, base } = await explain(own, plain, new Trace(id, gateway.now), signal)
      arms.push({
        arm,
        text,
        model: own.model,
        finish_reason: finish.reason,
        latency_ms: Math.round(latencyMs),
        prompt_tokens: finish.promptTokens,
        completion_tokens: finish.completionTokens,
        tokens_added: trace.tokensAdded,
        edits: trace.applied,
        adapter: trace.adapter,
        template: trace.template,
        turns: wireTurns(trace.turns),
        prompt: own.arm === 'base' ? base.text : prompt.text,
      })
    }
    const [first, ...others] = arms
    return { object: 'comparison', arms, identical: others.every(({ text }) => text === first?.text) }
  }
  return {
    '/v1/compare': {
      post: route(
        {
          summary: 'One prompt by base and edited, or by every arm of an experiment, side by side, with the why.',
          body: explainBody(limits).extend(ownFields),
          reply: comparisonReply,
          errors: ['model_not_found', 'insufficient_quota', 'upstream_failed'],
        },
        refuseWhenClosing(gateway),
        bytes(limits.chatBodyBytes),
        async (req, res) => void res.json(await compare(req, res)),
      ),
    },
  }
}

function armsOf(request: ChatRequest, { experiments }: Gateway, id: string | undefined): ArmRequest[] {
  const usual = experiments?.registry.usual(request) ?? request
  if (id === undefined || experiments === undefined)
    return [
      { arm: 'base', request: asServed(usual, { kind: 'base' }) },
      { arm: 'edited', request: { ...usual, arm: 'edited' } },
      ...(usual.arm === 'adapter' ? [{ arm: `adapter:${usual.adapter}`, request: usual }] : []),
    ]
  const experiment = experiments.registry.get(request.tenant, id)
  return experiments.registry.arms(experiment, usual).map((own, at) => ({ arm: experiment.arms[at]?.name ?? '', request: own }))
}
