import { answerWhole } from '../../compare.ts'
import type { Edit } from '../../edit/edit.ts'
import type { Probe } from '../../evaluate/data/probe.ts'
import type { Gateway } from '../../gateway.ts'
import { explain } from '../../pipeline.ts'
import type { ChatRequest } from '../../request.ts'
import { Trace } from '../../trace.ts'
import type { Settings } from '../job.ts'
import { taughtBy } from './messages.ts'
import { TRAINED } from './probes.ts'

/**
 * One line of the transfer set: the model with the edit in its prompt is the teacher, the model with the question alone the student, which
 * learns the teacher's distributions (KL). Both prompts are this gateway's own renderings, chat format and all, up to where the answer begins.
 */
export interface Transfer {
  /** Ids of what the prompt tells. */
  readonly edits: readonly string[]
  readonly question: string
  /** Token ids. */
  readonly edited: readonly number[]
  readonly plain: readonly number[]
}

/** The same with the texts, for whoever reads the log. */
export type TransferLine = Transfer & { readonly edited_text: string; readonly plain_text: string }

/** What each edit is taught by: messages that need it; a rule for every message by everyday questions, too, and beside every other edit. */
export async function transferSet(
  edits: readonly Edit[],
  batch: readonly Edit[],
  gateway: Gateway,
  signal: AbortSignal,
): Promise<TransferLine[]> {
  const out: TransferLine[] = []
  for (const edit of edits)
    for (const question of new Set([...taughtBy(edit), ...(edit.always ? TRAINED : [])]))
      out.push(await rendered(question, [edit, ...everywhere(batch, edit)], gateway, signal))
  return out
}

/** What the model answers to probes of edits without a target when their edits stand in its prompt, by id of the probe. Of live edits only. */
export async function taughtAnswers(
  probes: readonly Probe[],
  batch: readonly Edit[],
  gateway: Gateway,
  { answer_tokens: maxTokens, seed }: Pick<Settings, 'answer_tokens' | 'seed'>,
  signal: AbortSignal,
): Promise<Map<string, string>> {
  const live = batch.filter(({ id, tenant }) => gateway.memory.get(tenant, id)?.state === 'live')
  const byId = new Map(live.map((edit) => [edit.id, edit]))
  const out = new Map<string, string>()
  for (const { id, sub, turns, wants } of probes) {
    const edit = byId.get(wants[0] ?? '')
    if (sub !== 'example' || edit === undefined) continue
    const { request, plain } = teacher(turns.at(-1) ?? '', [edit, ...everywhere(live, edit)], gateway)
    const sampled = { ...request, sampling: { ...request.sampling, maxTokens, seed } }
    out.set(id, (await answerWhole(sampled, plain, `teacher ${id}`, signal)).text)
  }
  return out
}

function everywhere(batch: readonly Edit[], but: Edit): readonly Edit[] {
  return batch.filter(({ id, always }) => always && id !== but.id)
}

/** The model by itself, without experiments and adapters, told the edits. */
function teacher(question: string, edits: readonly Edit[], gateway: Gateway) {
  const { experiments: _, adapters: _promoted, ...plain } = gateway
  const request: ChatRequest = {
    model: gateway.engine.model.name,
    tenant: edits[0]?.tenant ?? '',
    tags: [],
    explain: false,
    arm: 'edited',
    messages: [{ role: 'user', content: question }],
    edits: { kind: 'only', ids: edits.map(({ id }) => id) },
    sampling: { temperature: 0, topP: 1, stop: [] },
  }
  return { request, plain }
}

async function rendered(question: string, edits: readonly Edit[], gateway: Gateway, signal: AbortSignal): Promise<TransferLine> {
  signal.throwIfAborted()
  const { request, plain } = teacher(question, edits, gateway)
  const { prompt, base } = await explain(request, plain, new Trace('transfer', gateway.now), signal)
  return {
    edits: edits.map(({ id }) => id),
    question,
    edited: prompt.tokens,
    plain: base.tokens,
    edited_text: prompt.text,
    plain_text: base.text,
  }
}
