import { z } from 'zod'
import { PalimpsestError } from '../../errors.ts'
import type { Limits } from '../../gateway.ts'
import type { Explanation } from '../../pipeline.ts'
import type { ChatRequest } from '../../request.ts'
import type { Trace } from '../../trace.ts'
import { modelField, type Served } from '../openai/chat.ts'
import { wireDecomposition, wireTurns } from '../openai/completion.ts'
import { strip } from '../openai/fields.ts'
import { isObject, messagesField, tidyMessages, toMessages } from '../openai/messages.ts'
import { modelAsked } from '../openai/models.ts'
import { check } from '../openai/refusal.ts'
import { sent } from '../sent.ts'
import { selectionFields, type Tenancy, text, toSelection } from './selection.ts'

export type ExplainReader = (body: unknown, tenantHeader: Tenancy | undefined, served: Served) => ChatRequest

/**
 * Reads the body of `POST /v1/edits/explain`: `question` or `messages`, and what may narrow the selection (`edits`, `template`, `tags`,
 * `tenant`, `as_of`, `multi_hop`, as in a chat request's `palimpsest`).
 */
export function explainReader(limits: Limits): ExplainReader {
  const schema = explainBody(limits)
  return (body, tenantHeader, served) => {
    const { question, messages, model, ...fields } = check(schema, tidy(body))
    if (question !== undefined && messages !== undefined) {
      throw new PalimpsestError(
        'invalid_value',
        'Both `question` and `messages` were sent: send one. A `question` stands for a conversation of one message.',
        { param: 'messages' },
      )
    }
    const asked = question === undefined ? messages && toMessages(messages) : [{ role: 'user' as const, content: question }]
    if (asked === undefined)
      throw new PalimpsestError(
        'missing_field',
        'Missing required field `question`: expected a string, or `messages` as in a chat request.',
        { param: 'question' },
      )
    const sampling = { temperature: limits.defaultTemperature, topP: 1, stop: [] }
    const selection = toSelection(fields, tenantHeader, served.templates, '')
    return {
      ...selection,
      ...modelAsked(model ?? served.model, served, selection.tenant),
      messages: asked,
      explain: true,
      sampling,
    }
  }
}

/** The body of `POST /v1/edits/explain`. */
export function explainBody(limits: Limits) {
  const schema = z.strictObject({
    question: text.min(1).optional().describe('Stands for a conversation of one message.'),
    messages: messagesField(limits).optional(),
    model: modelField.optional(),
    ...selectionFields(limits),
  })
  return schema.register(sent, { decided: {} })
}

function tidy(body: unknown): unknown {
  if (!isObject(body)) return body
  const { messages, ...fields } = strip(body, {})
  return { ...fields, ...(messages !== undefined && { messages: tidyMessages(messages) }) }
}

/** What would be put in front of the model, why, and exactly how; and what the base arm would see. */
export function wireExplanation(
  model: string,
  { turns, adapter, template, prompt, base, tokensAdded, memoryVersion }: Explanation,
  decomposition: Trace['decomposition'],
) {
  return {
    object: 'edit.explanation',
    model,
    memory_version: memoryVersion,
    tokens_added: tokensAdded,
    adapter,
    template,
    turns: wireTurns(turns),
    decomposition: wireDecomposition(decomposition),
    prompt: { text: prompt.text, tokens: prompt.tokens },
    base: { text: base.text, tokens: base.tokens },
  }
}
