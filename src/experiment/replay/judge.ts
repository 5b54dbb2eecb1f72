import type { ChatRequest } from '../../request.ts'

/** Which of two answers is better; `tie` also where the judge changes its mind with the order. */
export type Verdict = 'base' | 'other' | 'tie'

/** The question put to the judge; `first` is called A. */
export function judgePrompt(question: string, first: string, second: string): string {
  return [
    'Two answers to one question. Say which is better: correct, to the point, in good language.',
    `Question:\n${question}`,
    `Answer A:\n${first}`,
    `Answer B:\n${second}`,
    'Reply with one letter: A, B, or T if they are equally good.',
  ].join('\n\n')
}

/** The letter a judge's reply begins with or is about; undefined where it says none. */
export function verdictLetter(reply: string): 'A' | 'B' | 'T' | undefined {
  const said = /^\W*(?:answer\s+)?([ABT])\b/i.exec(reply)?.[1] ?? /\b([ABT])\b(?!['’])/.exec(reply)?.[1]
  return said?.toUpperCase() as 'A' | 'B' | 'T' | undefined
}

/** Both orders, since judges favour one place (Zheng et al. 2023, "Judging LLM-as-a-judge", section 3.4). */
export async function judge(
  ask: (prompt: string) => Promise<string>,
  question: string,
  base: string,
  other: string,
): Promise<Verdict> {
  const first = verdictLetter(await ask(judgePrompt(question, base, other)))
  const second = verdictLetter(await ask(judgePrompt(question, other, base)))
  if (first === 'A' && second === 'B') return 'base'
  return first === 'B' && second === 'A' ? 'other' : 'tie'
}

const JUDGE_TOKENS = 8

export function judgeRequest(model: string, tenant: string, content: string): ChatRequest {
  return {
    model,
    tenant,
    arm: 'base',
    edits: { kind: 'off' },
    tags: [],
    explain: false,
    messages: [{ role: 'user', content }],
    sampling: { temperature: 0, topP: 1, stop: [], seed: 0, maxTokens: JUDGE_TOKENS },
  }
}
