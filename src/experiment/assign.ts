import { createHash } from 'node:crypto'
import { isForModel } from '../edit/edit.ts'
import type { Caller, ChatRequest } from '../request.ts'
import { armOf, bucket, bucketRanges, inNamespace } from './bucket.ts'
import type { Experiment, Unit } from './experiment.ts'

/** Whether the experiment is about this request at all. One that chose its arm, edits, moment or template itself takes no part. */
export function inAudience({ tenant, audience }: Experiment, request: ChatRequest): boolean {
  if (request.tenant !== tenant || request.caller === undefined || request.caller.armChosen) return false
  if (request.arm !== 'edited' || request.edits.kind !== 'on' || request.asOf !== undefined || request.template !== undefined)
    return false
  const { tags, models } = audience
  if (tags.length > 0 && !tags.some((tag) => request.tags.includes(tag))) return false
  return models.length === 0 || isForModel({ models }, request.model)
}

/** What stays in one arm, as text; undefined where the request does not say. */
export function unitOf(unit: Unit, request: ChatRequest): string | undefined {
  const caller: Caller | undefined = request.caller
  const found = value()
  return found === '' ? undefined : found

  function value(): string | undefined {
    switch (unit.by) {
      case 'header':
        return caller?.header(unit.name)
      case 'user':
        return caller?.user
      case 'key':
        return caller?.keyHash?.()
      case 'conversation':
        return conversationOf(request)
      default:
        return unit satisfies never
    }
  }
}

function conversationOf({ tenant, messages }: ChatRequest): string {
  const first = messages.findIndex(({ role }) => role === 'user')
  const opening = messages.slice(0, first + 1).map(({ role, content }) => [role, content])
  return createHash('sha256')
    .update(JSON.stringify([tenant, opening]))
    .digest('hex')
}

/** Index of the unit's arm by hash; undefined where it takes no part. Every process comes to the same. */
export function assign({ seed, arms, coverage, namespace }: Experiment, unit: string): number | undefined {
  if (namespace !== undefined && !inNamespace(unit, namespace)) return undefined
  const whole = arms.reduce((sum, { weight }) => sum + weight, 0)
  const weights = arms.map(({ weight }) => weight / whole)
  const arm = armOf(bucket(seed, unit), bucketRanges(arms.length, coverage, weights))
  return arm === -1 ? undefined : arm
}

/** What the ledger keeps of a unit: enough to know it again, not who it is. */
export function unitHash(seed: string, unit: string): string {
  return createHash('sha256')
    .update(JSON.stringify([seed, unit]))
    .digest('base64url')
    .slice(0, 22)
}
