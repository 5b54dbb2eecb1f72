import type { Edit } from '../../edit/edit.ts'
import { words } from '../../edit/words.ts'

/** How an answer ended, as far as an outcome tells. */
export interface Usage {
  readonly promptTokens: number
  readonly completionTokens: number
}

/** What the gateway itself sees of an answer. */
export interface Outcome {
  readonly latencyMs: number
  readonly promptTokens: number
  readonly completionTokens: number
  readonly error: boolean
  /** Null where there is no answer to look at. */
  readonly refusal: boolean | null
  /** The target of one of the edits that the gate chose stands in the answer, in whichever arm; null where none of them has a target, or there is no answer. */
  readonly targetShown: boolean | null
}

/** Whether the target's words stand in the answer, one after another; case and accents aside. A target without words stands in none. */
export function shows(answer: string, target: string): boolean {
  const sought = words(target).join(' ')
  return sought !== '' && ` ${words(answer).join(' ')} `.includes(` ${sought} `)
}

/** Whether one of the targets stands in the answer; null: the edits at work have none, so the answer can't say. */
export function showsAny(answer: string, targets: readonly string[]): boolean | null {
  const some = targets.filter((target) => target.trim() !== '')
  return some.length === 0 ? null : some.some((target) => shows(answer, target))
}

/** Whether an answer can be seen to hold what the edit says: a sentence has no target, and a rule's is an instruction. */
export function hasTarget({ kind, targetNew }: Pick<Edit, 'kind' | 'targetNew'>): boolean {
  return kind === undefined && targetNew.trim() !== ''
}

const REFUSAL =
  /^\W*(?:i(?:['’]m| am) (?:very |so )?(?:sorry|afraid|unable)|sorry\b|i (?:can(?:['’]t|not)|won['’]t|am not able to)|as an ai\b|unfortunately,? i)/iu

/** Whether the answer begins as refusals do; English only. */
export function refuses(answer: string): boolean {
  return REFUSAL.test(answer)
}

/** Told once: the answer, and how it ended; null: in an error. */
export type Done = (text: string, finish: Usage | null) => void

/** Passes an answer on, and tells `done` what came of it: its text and end, or the error that ended it. Not told where the client left. */
export async function* observed<Part extends { readonly text: string }, Finish extends Usage>(
  pieces: AsyncGenerator<Part, Finish>,
  done: Done,
  signal: AbortSignal,
): AsyncGenerator<Part, Finish> {
  let text = ''
  try {
    for (;;) {
      const { done: ended, value } = await pieces.next()
      if (ended) {
        done(text, value)
        return value
      }
      text += value.text
      yield value
    }
  } catch (error) {
    if (!signal.aborted) done(text, null)
    throw error
  } finally {
    await pieces.return(undefined as never)
  }
}
