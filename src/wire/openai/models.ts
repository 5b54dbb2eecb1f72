import { PalimpsestError } from '../../errors.ts'
import type { Arm, ChatRequest } from '../../request.ts'

/** OpenAI's Model object, with the arm it stands for. */
export interface WireModel {
  readonly id: string
  readonly object: 'model'
  /** Seconds since the epoch. */
  readonly created: number
  readonly owned_by: string
  readonly palimpsest:
    | { readonly arm: Arm; readonly adapter?: string }
    | { readonly embedding: { readonly dimensions: number; readonly max_tokens: number } }
}

/** What a model's name may stand for here. */
export interface ServedModels {
  readonly model: string
  /** Further ones, loaded when asked for. */
  readonly others?: readonly string[]
  /** Ids of the adapters over it that a tenant may ask for. */
  readonly adapters?: (tenant: string) => readonly string[]
}

const ADAPTER = '@adapter:'

/**
 * For each model, `NAME` and `NAME@edited` are the edited one, `NAME@base` the untouched one, `NAME@adapter:ID` the one with an adapter. Throws
 * `model_not_found`, listing what is served.
 */
export function modelAsked(
  asked: string,
  { model: served, others = [], adapters: of = () => [] }: ServedModels,
  tenant: string,
): Pick<ChatRequest, 'model' | 'arm' | 'adapter'> {
  for (const model of [served, ...others]) {
    if (asked === model || asked === `${model}@edited`) return { model, arm: 'edited' }
    if (asked === `${model}@base`) return { model, arm: 'base' }
  }
  const adapters = of(tenant)
  const adapter = asked.startsWith(`${served}${ADAPTER}`) ? asked.slice(served.length + ADAPTER.length) : undefined
  if (adapter !== undefined && adapters.includes(adapter)) return { model: served, arm: 'adapter', adapter }
  const clipped = asked.length > 64 ? `${asked.slice(0, 64)}…` : asked
  throw new PalimpsestError(
    'model_not_found',
    `The model \`${clipped}\` does not exist. Served here: ${listed(served, others, adapters)}.`,
    { param: 'model' },
  )
}

const LISTED = 10

function listed(served: string, others: readonly string[], adapters: readonly string[]): string {
  const some = adapters.slice(0, LISTED).map((id) => `${served}${ADAPTER}${id}`)
  const more = [...some, ...(adapters.length > LISTED ? ['…'] : []), ...others.slice(0, LISTED)]
  return `${served} (with edits) and ${served}@base (without)${more.map((name) => `, ${name}`).join('')}`
}

/** What embeds; listed after the models that chat. */
export interface ServedEmbedder {
  readonly name: string
  readonly dimensions: number
  readonly maxTokens: number
}

export function wireModels(
  { model: served, others = [], adapters = () => [] }: ServedModels,
  tenant: string,
  embedder: ServedEmbedder | undefined,
  startedAt: number,
): WireModel[] {
  return [
    wireModel(served, { arm: 'edited' }, startedAt),
    wireModel(`${served}@base`, { arm: 'base' }, startedAt),
    ...others.flatMap((other) => [
      wireModel(other, { arm: 'edited' }, startedAt),
      wireModel(`${other}@base`, { arm: 'base' }, startedAt),
    ]),
    ...adapters(tenant).map((adapter) => wireModel(`${served}${ADAPTER}${adapter}`, { arm: 'adapter', adapter }, startedAt)),
    ...(embedder ? [embeddingModel(embedder, startedAt)] : []),
  ]
}

/** One by its name. Throws `model_not_found`. */
export function wireModelAsked(
  asked: string,
  served: ServedModels,
  tenant: string,
  embedder: ServedEmbedder | undefined,
  startedAt: number,
): WireModel {
  if (embedder !== undefined && asked === embedder.name) return embeddingModel(embedder, startedAt)
  const { model: _, ...arm } = modelAsked(asked, served, tenant)
  return wireModel(asked, arm, startedAt)
}

function embeddingModel({ name, dimensions, maxTokens }: ServedEmbedder, startedAt: number): WireModel {
  return wireModel(name, { embedding: { dimensions, max_tokens: maxTokens } }, startedAt)
}

function wireModel(id: string, palimpsest: WireModel['palimpsest'], startedAt: number): WireModel {
  return { id, object: 'model', created: Math.floor(startedAt / 1000), owned_by: 'palimpsest', palimpsest }
}
