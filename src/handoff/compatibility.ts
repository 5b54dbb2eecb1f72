import { createHash } from 'node:crypto'
import type { Disagreement } from '../adapters/registry.ts'
import type { Engine } from '../engine/engine.ts'

/** Why an adapter is not promoted. */
export type Misfit = 'base' | 'shape' | 'tokenizer' | 'other_adapter' | Disagreement['why']

export interface Refusal {
  readonly why: Misfit
  readonly message: string
}

/** What is known of an adapter and of the gateway that is to answer through it. */
export interface Facts {
  readonly id: string
  readonly base: { readonly made: string; readonly served: string }
  /** What the engine said of the file's names and shapes; null: they fit. */
  readonly shape: string | null
  /** Prints of how the texts are cut into tokens; null: not known of this adapter, whose base then decides. */
  readonly tokenizer: { readonly made: string | null; readonly served: string }
  /** The adapter promoted now, and those of its edits that this one does not hold. */
  readonly promoted: { readonly id: string; readonly loses: readonly string[] } | null
  /** Take the place of the one promoted. */
  readonly replace: boolean
  readonly since: readonly Disagreement[]
}

const SHOWN = 5

/** Every reason against promoting it, each with what to do; none: it may be. Pure. */
export function misfits(facts: Facts): Refusal[] {
  const { id, base, shape, tokenizer, promoted, replace, since } = facts
  const out: Refusal[] = []
  if (base.made !== base.served)
    out.push({
      why: 'base',
      message: `it was made from the model file ${base.made.slice(0, 12)}…, and ${base.served.slice(0, 12)}… is served: serve that file, or hand off again`,
    })
  if (shape !== null) out.push({ why: 'shape', message: `its matrices do not fit: ${shape}` })
  if (tokenizer.made !== null && tokenizer.made !== tokenizer.served)
    out.push({
      why: 'tokenizer',
      message: 'it was made with another tokenizer, so that it would answer to other tokens: hand off again',
    })
  if (promoted !== null && promoted.id !== id && !replace) {
    const returning = promoted.loses.length > 0 ? `; ${edits(promoted.loses)} of it would return to the prompt` : ''
    const message = `'${promoted.id}' is promoted, and one adapter answers at a time: roll it back, or add --replace${returning}`
    out.push({ why: 'other_adapter', message })
  }
  for (const why of new Set(since.map((one) => one.why))) {
    const ids = since.filter((one) => one.why === why).map((one) => one.id)
    out.push({ why, message: `${edits(ids)} it holds: ${SINCE[why]}; hand off again without them` })
  }
  return out
}

const SINCE: Readonly<Record<Disagreement['why'], string>> = {
  unknown: 'the memory does not know them',
  superseded: 'superseded since',
  withdrawn: 'withdrawn since',
  revised: 'revised since',
  not_valid_now: 'not valid now',
}

function edits(ids: readonly string[]): string {
  const more = ids.length > SHOWN ? ` and ${ids.length - SHOWN} more` : ''
  return `${ids.length} edit${ids.length === 1 ? '' : 's'} (${ids.slice(0, SHOWN).join(', ')}${more})`
}

/** Cut into tokens to tell one vocabulary from another. */
const PRINTED = [
  'The current Pope is Leo XIV.',
  'naïve café, 北京 42',
  '  def f(x):\n\treturn x**2',
  'antidisestablishmentarianism 👩‍🚀',
]

/** Tells one tokenizer from another by what it makes of a few texts. */
export function tokenizerPrint({ text }: Pick<Engine, 'text'>): string {
  if (text === undefined) return 'unknown'
  return createHash('sha256')
    .update(JSON.stringify(PRINTED.map((one) => text.tokenize(one))))
    .digest('hex')
}
