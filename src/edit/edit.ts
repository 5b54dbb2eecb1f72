/**
 * The edit: one statement of new knowledge, "PROMPT TARGET_NEW", about one subject.
 * Vocabulary of ROME/MEMIT (Meng et al. 2022, 2023) and EasyEdit; camelCase inside, snake_case on the wire and in files.
 */
export interface Edit {
  /** Absent: a fact. A sentence stands in `prompt` whole; a rule's `prompt` says when it holds and its `targetNew` what is to be done. */
  readonly kind?: 'sentence' | 'rule'
  /** Client-supplied, or `e_` and 16 hex digits of a hash over tenant, subject, prompt and target. */
  readonly id: string
  /** Empty: it names none. */
  readonly subject: string
  /** Other names of the subject. */
  readonly aliases: readonly string[]
  /** A cloze ("The capital of France is") or a question ("Who leads X?"), the subject written out: never with a `{}`. */
  readonly prompt: string
  readonly targetNew: string
  readonly targetTrue?: string
  /** Relation label or id ("P36", "capital"). Absent: the relation is what is left of the prompt once the subject is masked. */
  readonly relation?: string
  readonly paraphrases: readonly string[]
  /** Messages that need it, and messages that look like it and do not. */
  readonly examples?: readonly string[]
  readonly counterexamples?: readonly string[]
  /** Of a rule: it holds for every message. */
  readonly always?: true
  readonly tags: readonly string[]
  readonly tenant: string
  /** Names of served models that it is for, `*` standing for any characters; absent: every model. Never empty. */
  readonly models?: readonly string[]
  /** Milliseconds since the epoch; absent: from when it landed. */
  readonly validFrom?: number
  /** Milliseconds since the epoch, exclusive; absent: until superseded or withdrawn. */
  readonly validTo?: number
  /** Where the user got it: a URL, a ticket, a file. */
  readonly source?: string
}

/** Limits on one edit, so that no record can starve the others. */
export const LIMITS = {
  idChars: 128,
  subjectChars: 512,
  promptChars: 4_096,
  targetChars: 4_096,
  aliases: 64,
  paraphrases: 64,
  examples: 32,
  tags: 32,
  tagChars: 64,
  models: 32,
  modelChars: 128,
  tenantChars: 64,
  sourceChars: 2_048,
  batchEdits: 200_000,
} as const

/** The subject's place in text from which it was cut out; a word the embedder knows as neutral. */
export const MASK = 'someone or something'

const LETTER = /[\p{L}\p{N}]/u

/** Replace every occurrence of `subject` (case-insensitive, whole words) in `text` by `mask`; text unchanged when it does not occur. */
export function maskSubject(text: string, subject: string, mask: string = MASK): string {
  // A search, not a pattern: compiling one with Unicode classes for every edit costs milliseconds.
  const sought = subject.trim().toLowerCase()
  const lower = text.toLowerCase()
  if (sought === '' || lower.length !== text.length) return sought === '' ? text : text.replaceAll(subject.trim(), () => mask)
  let out = ''
  let from = 0
  for (let at = lower.indexOf(sought); at !== -1; at = lower.indexOf(sought, at)) {
    const begins = !LETTER.test(text.charAt(at - 1))
    if (begins && !LETTER.test(text.charAt(at + sought.length))) {
      out += text.slice(from, at) + mask
      from = at + sought.length
      at = from
    } else at++
    // Within a word none begins: a text of one letter is not searched at each.
    while (at < text.length && LETTER.test(text.charAt(at - 1))) at++
  }
  return out + text.slice(from)
}

/** Whether the edit is for the served model of this name (without an arm's suffix). Upper and lower case are the same. */
export function isForModel({ models }: Pick<Edit, 'models'>, name: string): boolean {
  return models === undefined || models.some((pattern) => matchesName(pattern.toLowerCase(), name.toLowerCase()))
}

/** Parts between stars, each sought after the one before: linear, where a compiled pattern may not be. */
function matchesName(pattern: string, name: string): boolean {
  const [head = '', ...parts] = pattern.split('*')
  const tail = parts.pop()
  if (tail === undefined) return name === head
  if (!name.startsWith(head)) return false
  let from = head.length
  for (const part of parts) {
    const found = name.indexOf(part, from)
    if (found === -1) return false
    from = found + part.length
  }
  return name.length - from >= tail.length && name.endsWith(tail)
}

/** The statement as a reader would see it: question and answer, cloze completed, the sentence itself, or a rule with its occasion. */
export function statement(edit: Pick<Edit, 'prompt' | 'targetNew' | 'kind'>): string {
  const [prompt, target] = [edit.prompt.trim(), edit.targetNew.trim()]
  if (prompt === '' || target === '') return prompt + target
  return edit.kind === 'rule' ? `${prompt}: ${target}` : `${prompt} ${target}`
}
