import { PalimpsestError } from '../errors.ts'
import type { Arm } from '../request.ts'

/** OpenAI's Model object, with the arm it stands for. */
export interface WireModel {
  readonly id: string
  readonly object: 'model'
  /** Seconds since the epoch. */
  readonly created: number
  readonly owned_by: string
  readonly palimpsest:
    | { readonly arm: Arm }
    | { readonly embedding: { readonly dimensions: number; readonly max_tokens: number } }
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

/** What embeds; listed after the models that chat. */
export interface ServedEmbedder {
  readonly name: string
  readonly dimensions: number
  readonly maxTokens: number
}

export function wireModels(served: string, embedder: ServedEmbedder | undefined, startedAt: number): WireModel[] {
  return [
    wireModel(served, { arm: 'edited' }, startedAt),
    wireModel(`${served}@base`, { arm: 'base' }, startedAt),
    ...(embedder ? [embeddingModel(embedder, startedAt)] : []),
  ]
}

/** One by its name. Throws `model_not_found`. */
export function wireModelAsked(
  asked: string,
  served: string,
  embedder: ServedEmbedder | undefined,
  startedAt: number,
): WireModel {
  if (embedder !== undefined && asked === embedder.name) return embeddingModel(embedder, startedAt)
  return wireModel(asked, { arm: modelAsked(asked, served).arm }, startedAt)
}

function embeddingModel({ name, dimensions, maxTokens }: ServedEmbedder, startedAt: number): WireModel {
  return wireModel(name, { embedding: { dimensions, max_tokens: maxTokens } }, startedAt)
}

function wireModel(id: string, palimpsest: WireModel['palimpsest'], startedAt: number): WireModel {
  return { id, object: 'model', created: Math.floor(startedAt / 1000), owned_by: 'palimpsest', palimpsest }
}
