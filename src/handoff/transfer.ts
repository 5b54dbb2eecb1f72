import type { Edit } from '../edit/edit.ts'
import type { Gateway } from '../gateway.ts'
import { explain } from '../pipeline.ts'
import type { ChatRequest } from '../request.ts'
import { Trace } from '../trace.ts'

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

/** Each edit's prompt and paraphrases. */
export async function transferSet(edits: readonly Edit[], gateway: Gateway, signal: AbortSignal): Promise<TransferLine[]> {
  const out: TransferLine[] = []
  for (const edit of edits)
    for (const question of new Set([edit.prompt, ...edit.paraphrases])) out.push(await rendered(question, edit, gateway, signal))
  return out
}

async function rendered(question: string, edit: Edit, gateway: Gateway, signal: AbortSignal): Promise<TransferLine> {
  signal.throwIfAborted()
  // What the model says by itself, without experiments and adapters.
  const { experiments: _, adapters: _promoted, ...plain } = gateway
  const request: ChatRequest = {
    ...{ model: gateway.engine.model.name, tenant: edit.tenant, tags: [], explain: false, arm: 'edited' },
    messages: [{ role: 'user', content: question }],
    edits: { kind: 'only', ids: [edit.id] },
    sampling: { temperature: 0, topP: 1, stop: [] },
  }
  const { prompt, base } = await explain(request, plain, new Trace('transfer', gateway.now), signal)
  return {
    ...{ edits: [edit.id], question, edited: prompt.tokens, plain: base.tokens },
    ...{ edited_text: prompt.text, plain_text: base.text },
  }
}
