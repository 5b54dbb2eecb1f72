import { PalimpsestError } from '../errors.ts'
import type { Arm } from '../request.ts'

/** OpenAI's Model object, with the arm it stands for. */
export interface WireModel {
  readonly id: string
  readonly object: 'model'
  /** Seconds since the epoch. */
  readonly created: number
  readonly owned_by: string
  readonly palimpsest: { readonly arm: Arm }
}

/** `NAME` and `NAME@edited` are the edited model, `NAME@base` the untouched one. Throws `model_not_found`, listing what is served. */
export function modelAsked(asked: string, served: string): { name: string; arm: Arm } {
  if (asked === served || asked === `${served}@edited`) return { name: served, arm: 'edited' }
  if (asked === `${served}@base`) return { name: served, arm: 'base' }
  const clipped = asked.length > 64 ? `${asked.slice(0, 64)}…` : asked
  throw new PalimpsestError(
    'model_not_found',
    `The model \`${clipped}\` does not exist. Served here: ${served} (with edits) and ${served}@base (without).`,
    { param: 'model' },
  )
}

export function wireModels(served: string, startedAt: number): WireModel[] {
  return [wireModel(served, 'edited', startedAt), wireModel(`${served}@base`, 'base', startedAt)]
}

export function wireModel(id: string, arm: Arm, startedAt: number): WireModel {
  return { id, object: 'model', created: Math.floor(startedAt / 1000), owned_by: 'palimpsest', palimpsest: { arm } }
}
