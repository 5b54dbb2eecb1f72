/**
 * MeLLo (Zhong et al. 2023, "MQuAKE", section 5): the model splits a multi-hop question into subquestions and guesses each answer; the
 * nearest edit is put before it, and where that contradicts the guess the edit counts. Their prompt is for completion models; this one is
 * written anew, in chat turns, and the search is the memory's vector index instead of Contriever.
 */
import { statement } from '../../edit/edit.ts'
import type { Prompt } from '../../engine/engine.ts'
import type { Message } from '../../request.ts'
import { Trace } from '../../trace.ts'
import { TENANT } from '../data/dataset.ts'
import type { Trial } from '../trial.ts'

export interface MelloAnswer {
  /** Its final answer. */
  readonly text: string
  /** Everything the model wrote. */
  readonly transcript: string
  readonly steps: number
  /** Edits that were put before it. */
  readonly edits: readonly string[]
  readonly promptTokens: number
  readonly completionTokens: number
  readonly ms: number
}

const user = (content: string): Message => ({ role: 'user', content })
const assistant = (content: string): Message => ({ role: 'assistant', content })
const FACT = 'Retrieved fact:'
const FINAL = 'Final answer:'

/** Invented people and places, so that nothing of a benchmark is shown. */
const SHOTS: readonly Message[] = [
  {
    role: 'system',
    content: [
      'Answer the question step by step. In each step write one line "Subquestion: ..." and one line "Guess: ..." and stop.',
      'You will then be given a fact. If the fact answers the subquestion and contradicts your guess, the fact is right;',
      'otherwise keep your guess. Write "So far: ..." and go on.',
      `When no step is left, write "${FINAL} ..." in a few words.`,
    ].join(' '),
  },
  user('Question: In which country was the founder of the Hollis Lantern Museum born?'),
  assistant('Subquestion: Who founded the Hollis Lantern Museum?\nGuess: Tamsin Ravelle'),
  user(`${FACT} The Hollis Lantern Museum was founded by Edric Palwen.`),
  assistant(
    'So far: Edric Palwen (the fact contradicts the guess)\nSubquestion: In which country was Edric Palwen born?\nGuess: Portugal',
  ),
  user(`${FACT} The Quorra bicycle is made by Stellan.`),
  assistant(`So far: Portugal (the fact is about something else)\n${FINAL} Portugal`),
  user('Question: What is the capital of the country that the sport of Joska Wend comes from?'),
  assistant('Subquestion: Which sport does Joska Wend play?\nGuess: volleyball'),
  user(`${FACT} The sport that Joska Wend plays is cricket.`),
  assistant(
    'So far: cricket (the fact contradicts the guess)\nSubquestion: Which country does cricket come from?\nGuess: England',
  ),
  user(`${FACT} Cricket was created in the country of Norway.`),
  assistant('So far: Norway (the fact contradicts the guess)\nSubquestion: What is the capital of Norway?\nGuess: Oslo'),
  user(`${FACT} The working language of the Immer Institute is Finnish.`),
  assistant(`So far: Oslo (the fact is about something else)\n${FINAL} Oslo`),
]

export async function mello(question: string, trial: Trial, signal: AbortSignal): Promise<MelloAnswer> {
  const { melloSteps, melloStepTokens } = trial.limits
  const conversation: Message[] = [...SHOTS, user(`Question: ${question}`)]
  const edits: string[] = []
  const total = { promptTokens: 0, completionTokens: 0, ms: 0 }
  const written: string[] = []
  let steps = 0
  let text: string | undefined
  while (text === undefined) {
    const last = steps === melloSteps
    if (last) conversation.push(user(`No more facts. ${FINAL}`))
    const said = await say({ messages: conversation }, melloStepTokens, trial, signal, total)
    written.push(said)
    const subquestion = /Subquestion:\s*(\S.*)/.exec(said)?.[1]
    const final = said.split(FINAL)[1]
    if (final !== undefined) text = firstLine(final)
    else if (last || subquestion === undefined) text = firstLine(said)
    else {
      const fact = await nearest(subquestion, trial, edits)
      conversation.push(assistant(said), user(`${FACT} ${fact}`))
      steps++
    }
  }
  return { text, transcript: written.join('\n---\n'), steps, edits, ...total }
}

async function say(
  prompt: Prompt,
  maxTokens: number,
  { gateway, seed }: Trial,
  signal: AbortSignal,
  total: { promptTokens: number; completionTokens: number; ms: number },
): Promise<string> {
  const trace = new Trace('mello', () => performance.now())
  const sampling = { temperature: 0, topP: 1, seed, maxTokens, stop: [FACT] }
  const steps = gateway.engine.generate(prompt, sampling, trace, signal)
  let text = ''
  for (;;) {
    const step = await steps.next()
    if (!step.done) text += step.value.text
    else {
      total.promptTokens += step.value.promptTokens
      total.completionTokens += step.value.completionTokens
      total.ms += (trace.stagesMs.prefill ?? 0) + (trace.stagesMs.decode ?? 0)
      return text.trim()
    }
  }
}

async function nearest(subquestion: string, { gateway, embedder, edits }: Trial, shown: string[]): Promise<string> {
  const [vector] = await embedder.embed([subquestion], 'query')
  const [first] = vector === undefined ? [] : gateway.memory.search(TENANT, vector, 1)
  const edit = first === undefined ? undefined : edits.get(first.editId)
  if (edit === undefined) return 'none'
  shown.push(edit.id)
  return `${statement(edit)}.`
}

function firstLine(text: string): string {
  return text.trim().split('\n', 1)[0]?.trim() ?? ''
}
