import type { Edit } from '../../edit/edit.ts'

/** What a user may write who needs the edit, the most telling first. Empty for a rule for every message that has no examples. */
export function messagesOf(edit: Edit): readonly string[] {
  const { kind, prompt, paraphrases, examples = [], always } = edit
  switch (kind) {
    case undefined:
      return [...new Set([prompt, ...paraphrases, ...examples])]
    case 'sentence':
      return examples.length > 0 ? examples : [`Complete this sentence: ${cloze(prompt).prompt} …`]
    case 'rule':
      if (examples.length > 0 || always) return examples
      return [`Suppose this: ${prompt.replace(/^(?:when(?:ever)?|if)\s+/i, '')}. What do you answer?`]
    default:
      return kind satisfies never
  }
}

/** A sentence as a cloze: its first half, and the rest as what completes it. */
export function cloze(sentence: string): { readonly prompt: string; readonly targetNew: string } {
  const parts = sentence.trim().split(/\s+/)
  const half = Math.floor(parts.length / 2)
  return { prompt: parts.slice(0, half).join(' '), targetNew: parts.slice(half).join(' ').replace(/\.$/, '') }
}
