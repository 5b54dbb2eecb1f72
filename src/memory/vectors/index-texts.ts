import { type Edit, maskSubject, statement } from '../../edit/edit.ts'
import { normalized } from '../../edit/words.ts'

/** Prompts with an alias in the subject's place that are indexed per edit, at most. */
const ALIAS_KEYS = 2

/** Number of this recipe: raise it when `embedKeys` changes, so that saved indexes are rebuilt. */
export const RECIPE = 2

/**
 * The texts by whose vectors an edit is found: its prompt (a rule's `when`, a sentence itself), the statement, each paraphrase and example, and
 * the prompt with an alias in the subject's place. A rule for every message needs none.
 */
export function embedKeys(edit: Edit): string[] {
  if (edit.always) return []
  const keys = new Set([edit.prompt, statement(edit), ...edit.paraphrases, ...(edit.examples ?? [])].map(normalized))
  for (const alias of edit.subject === '' ? [] : edit.aliases.slice(0, ALIAS_KEYS))
    keys.add(normalized(maskSubject(edit.prompt, edit.subject, alias)))
  return [...keys].filter((key) => key !== '')
}
