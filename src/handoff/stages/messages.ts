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

/** One message in so many is asked and never taught. */
const HELD_EVERY = 4

/** Messages of a sentence or rule, as they are taught and as they are only asked: what was taught by rote does not show what was learnt. Of fewer than four, all are taught. */
export function split(messages: readonly string[]): { readonly taught: readonly string[]; readonly held: readonly string[] } {
  const isHeld = (_: string, i: number) => i % HELD_EVERY === HELD_EVERY - 1
  return { taught: messages.filter((message, i) => !isHeld(message, i)), held: messages.filter(isHeld) }
}

/** What an edit is taught by. */
export function taughtBy(edit: Edit): readonly string[] {
  return edit.kind === undefined ? messagesOf(edit) : split(messagesOf(edit)).taught
}

/** Messages that look as if they needed one of the edits, and that none of them needs. */
export function nearMisses(edits: readonly Edit[]): readonly string[] {
  const needed = new Set(edits.flatMap(messagesOf))
  return [...new Set(edits.flatMap(({ counterexamples = [] }) => counterexamples))].filter((text) => !needed.has(text))
}

/** A sentence as a cloze: its first half, and the rest as what completes it. */
export function cloze(sentence: string): { readonly prompt: string; readonly targetNew: string } {
  const parts = sentence.trim().split(/\s+/)
  const half = Math.floor(parts.length / 2)
  return { prompt: parts.slice(0, half).join(' '), targetNew: parts.slice(half).join(' ').replace(/\.$/, '') }
}
