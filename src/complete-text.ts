import { assign } from './assign.ts'
import type { Engine, Finish, Piece } from './engine/engine.ts'
import { PalimpsestError } from './errors.ts'
import { type Done, observed } from './experiment/ledger/outcome.ts'
import { type Gateway, holdEngine } from './gateway.ts'
import { loraOf, noted, prepare } from './pipeline.ts'
import type { ChatRequest, Message, TextRequest } from './request.ts'
import type { Trace } from './trace.ts'

/** The template that puts facts before a text and adds no instruction. */
const TEXT_TEMPLATE = 'raw-completion'

/** The way of `answer` for a text to be gone on with: its edits stand before it, and it stays as the client wrote it, to the token. */
export async function* completeText(
  request: TextRequest,
  gateway: Gateway,
  trace: Trace,
  signal: AbortSignal,
): AsyncGenerator<Piece, Finish> {
  const { engine, release } = await holdEngine(request.model, gateway, signal)
  try {
    return yield* complete(request, engine, gateway, trace, signal)
  } finally {
    release()
  }
}

async function* complete(
  { prompt, echo, sampling, ...rest }: TextRequest,
  { model, text: engine }: Engine,
  gateway: Gateway,
  trace: Trace,
  signal: AbortSignal,
): AsyncGenerator<Piece, Finish> {
  if (engine === undefined)
    throw new PalimpsestError(
      'unsupported_field',
      `\`${model.name}\` can't go on with plain text here: use /v1/chat/completions.`,
      { param: 'prompt' },
    )
  const text = typeof prompt === 'string' ? prompt : engine.detokenize(prompt)
  const asked: ChatRequest = { ...rest, sampling, messages: [{ role: 'user', content: text }] }
  const kept = { model: asked.model, template: asked.template ?? TEXT_TEMPLATE }
  const { request, selection, experiment, done } = await assign(asked, gateway, trace, signal, kept)
  trace.assigned(request.arm, experiment, selection)
  const count = (messages: readonly Message[]) => engine.tokenize(messages[0]?.content ?? '').length
  const { plan, written } = await prepare(request, selection, gateway, model, count, trace)
  const whole = written.messages[0]?.content ?? text
  if (!whole.endsWith(text))
    throw new PalimpsestError(
      'invalid_value',
      `The template '${kept.template}' writes after the text, which is to be gone on with: name one that only writes before it.`,
      { param: 'palimpsest.template' },
    )
  const lora = await loraOf(plan.adapter, gateway, signal)
  const completing = { before: whole.slice(0, whole.length - text.length), text: prompt, echo, ...lora }
  const pieces = noted(engine.complete(completing, sampling, trace, signal), trace, echo ? text.length : 0)
  // What is echoed is no answer.
  const answered: Done | undefined = done && ((all, finish) => done(echo ? all.slice(text.length) : all, finish))
  return yield* answered === undefined ? pieces : observed(pieces, answered, signal)
}
