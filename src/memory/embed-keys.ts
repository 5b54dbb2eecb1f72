import { type Edit, maskSubject } from '../edit/edit.ts'

/** Prompts with an alias in the subject's place that are indexed per edit, at most. */
const ALIAS_KEYS = 4

/** Number of this recipe: raise it when `embedKeys` changes, so that saved indexes are rebuilt. */
export const RECIPE = 1

/**
 * The texts by whose vectors an edit is found: its prompt, each paraphrase, and the prompt with an alias in the subject's place. The target
 * is left out: a question does not contain its answer.
 */
export function embedKeys(edit: Edit): string[] {
  const keys = new Set([edit.prompt, ...edit.paraphrases])
  const limit = keys.size + ALIAS_KEYS
  for (const alias of edit.aliases) {
    if (keys.size >= limit) break
    keys.add(maskSubject(edit.prompt, edit.subject, alias))
  }
  return [...keys].filter((key) => key.trim() !== '')
}
