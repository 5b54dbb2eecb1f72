import type { Edit } from '../edit/edit.ts'
import type { Gateway } from '../gateway.ts'
import { explain } from '../pipeline.ts'
import type { ChatRequest } from '../request.ts'
import { Trace } from '../trace.ts'

/**
 * One line of the transfer set: the model with the edit in its prompt is the teacher, the model with the question alone the student, which
 * learns the teacher's distributions (KL). Both prompts are this gateway's own renderings, chat format and all.
 */
export interface Transfer {
  /** null: a question that no edit is about, whose two prompts are equal, so that the rest holds still. */
  readonly edit: string | null
  readonly question: string
  readonly teacher: string
  readonly student: string
  readonly teacher_tokens: readonly number[]
  readonly student_tokens: readonly number[]
  /** What the edit says; null where there is none. */
  readonly target: string | null
}

/** Each edit's prompt and paraphrases, then questions that are to stay as they are. */
export async function transferSet(
  edits: readonly Edit[],
  still: readonly string[],
  gateway: Gateway,
  signal: AbortSignal,
): Promise<Transfer[]> {
  const out: Transfer[] = []
  for (const edit of edits) {
    for (const question of new Set([edit.prompt, ...edit.paraphrases])) out.push(await rendered(question, edit, gateway, signal))
  }
  for (const question of still) out.push(await rendered(question, null, gateway, signal))
  return out
}

async function rendered(question: string, edit: Edit | null, gateway: Gateway, signal: AbortSignal): Promise<Transfer> {
  signal.throwIfAborted()
  const { experiments: _, adapters: _promoted, ...plain } = gateway
  const request: ChatRequest = {
    ...{ model: gateway.engine.model.name, tenant: edit?.tenant ?? 'default', tags: [], explain: false, arm: 'edited' },
    messages: [{ role: 'user', content: question }],
    edits: edit === null ? { kind: 'off' } : { kind: 'only', ids: [edit.id] },
    sampling: { temperature: 0, topP: 1, stop: [] },
  }
  const { prompt, base } = await explain(request, plain, new Trace('transfer', gateway.now), signal)
  return {
    ...{ edit: edit?.id ?? null, question, teacher: prompt.text, student: base.text },
    ...{ teacher_tokens: prompt.tokens, student_tokens: base.tokens, target: edit?.targetNew ?? null },
  }
}
