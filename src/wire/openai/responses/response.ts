import type { CallPiece, Finish, Piece, TokenLogprob } from '../../../engine/engine.ts'
import type { PalimpsestError } from '../../../errors.ts'
import type { Trace } from '../../../trace.ts'
import { callId, provenance, wireTokens } from '../completion.ts'
import { wireError } from '../error.ts'
import type { InputItem } from './items.ts'

/** What is the same in every state of one response. */
export interface ResponseHeading {
  readonly id: string
  /** Seconds since the epoch. */
  readonly created_at: number
  readonly echo: Readonly<Record<string, unknown>>
}

/** An event of a streamed response; its `type` is the event's name on the stream too. */
export interface ResponseEvent {
  readonly type: string
  readonly [field: string]: unknown
}

interface TextItem {
  readonly kind: 'text'
  readonly id: string
  text: string
  readonly logprobs: object[]
}

interface CallItem {
  readonly kind: 'call'
  readonly id: string
  readonly callId: string
  readonly name: string
  arguments: string
}

type OutputItem = TextItem | CallItem

/**
 * A response as it grows (openai-openapi 2.3.0, ResponseStreamEvent). The same steps make the events of a stream and, with the events left
 * out, the answer in one piece. An item begins with its first piece and ends with the next item's first, or with the response.
 */
export class ResponseBuilder {
  readonly #heading: ResponseHeading
  readonly #newId: (prefix: string) => string
  readonly #items: OutputItem[] = []
  #sequence = 0
  #open = false

  constructor(heading: ResponseHeading, newId: (prefix: string) => string) {
    this.#heading = heading
    this.#newId = newId
  }

  begin(): ResponseEvent[] {
    return ['response.created', 'response.in_progress'].map((type) =>
      this.#event(type, { response: this.#response('in_progress') }),
    )
  }

  add({ text, tokens = [], calls = [] }: Piece): ResponseEvent[] {
    return [...(text === '' && tokens.length === 0 ? [] : this.#text(text, tokens)), ...calls.flatMap((call) => this.#call(call))]
  }

  #text(delta: string, tokens: readonly TokenLogprob[]): ResponseEvent[] {
    const last = this.#items.at(-1)
    const before = last?.kind === 'text' && this.#open ? [] : this.#beginText()
    const item = this.#items.at(-1) as TextItem
    const logprobs = wireTokens(tokens)
    item.text += delta
    item.logprobs.push(...logprobs)
    return [...before, this.#event('response.output_text.delta', { ...this.#part(item), delta, logprobs })]
  }

  #beginText(): ResponseEvent[] {
    const item: TextItem = { kind: 'text', id: this.#newId('msg'), text: '', logprobs: [] }
    const before = this.#begin(item)
    return [...before, this.#event('response.content_part.added', { ...this.#part(item), part: textPart('', []) })]
  }

  #call({ name, id, index, arguments: delta }: CallPiece): ResponseEvent[] {
    const before =
      name === undefined
        ? []
        : this.#begin({
            kind: 'call',
            id: this.#newId('fc'),
            callId: id ?? callId(this.#heading.id, index),
            name,
            arguments: '',
          })
    const item = this.#items.at(-1)
    if (item?.kind !== 'call' || delta === '') return before
    item.arguments += delta
    const fields = { item_id: item.id, output_index: this.#items.length - 1, delta }
    return [...before, this.#event('response.function_call_arguments.delta', fields)]
  }

  /** The last event, and whatever has to come before it. `length` is OpenAI's "incomplete". */
  end(finish: Finish, trace: Trace, explain: boolean, completedAt: number): { events: ResponseEvent[]; response: object } {
    // An answer without a word is a message all the same.
    const empty = this.#items.length === 0 ? this.#beginText() : []
    const before = [...empty, ...this.#end()]
    const incomplete = finish.reason === 'length'
    const response = {
      ...this.#response(incomplete ? 'incomplete' : 'completed'),
      completed_at: incomplete ? null : completedAt,
      incomplete_details: incomplete ? { reason: 'max_output_tokens' } : null,
      usage: usage(finish),
      palimpsest: provenance(trace, explain),
    }
    return { events: [...before, this.#event(`response.${response.status}`, { response })], response }
  }

  /** How a stream ends that can't go on: OpenAI's `error` event, then the response as failed. */
  fail(cause: PalimpsestError): ResponseEvent[] {
    const { code, message, param, status } = cause
    const error = {
      code: status === 429 ? 'rate_limit_exceeded' : status < 500 ? 'invalid_prompt' : 'server_error',
      message,
    }
    return [
      // As documented, and as a chat's stream has it: official clients throw for the latter.
      this.#event('error', { code, message, param, ...wireError(cause) }),
      this.#event('response.failed', { response: { ...this.#response('failed'), error } }),
    ]
  }

  /** What was said, as items to go on from. */
  conversation(): InputItem[] {
    return this.#items.map((item) =>
      item.kind === 'text'
        ? { type: 'message', id: item.id, role: 'assistant', content: [item.text] }
        : { type: 'function_call', id: item.id, call_id: item.callId, name: item.name, arguments: item.arguments },
    )
  }

  #begin(item: OutputItem): ResponseEvent[] {
    const before = this.#end()
    this.#items.push(item)
    this.#open = true
    const fields = { output_index: this.#items.length - 1, item: wireItem(item, 'in_progress') }
    return [...before, this.#event('response.output_item.added', fields)]
  }

  /** Ends the item that is open. */
  #end(): ResponseEvent[] {
    const item = this.#items.at(-1)
    if (item === undefined || !this.#open) return []
    this.#open = false
    const at = { output_index: this.#items.length - 1, item: wireItem(item, 'completed') }
    if (item.kind === 'call') {
      const { id, name, arguments: given } = item
      const fields = { item_id: id, output_index: at.output_index, name, arguments: given }
      return [this.#event('response.function_call_arguments.done', fields), this.#event('response.output_item.done', at)]
    }
    const { text, logprobs } = item
    return [
      this.#event('response.output_text.done', { ...this.#part(item), text, logprobs }),
      this.#event('response.content_part.done', { ...this.#part(item), part: textPart(text, logprobs) }),
      this.#event('response.output_item.done', at),
    ]
  }

  #part({ id }: TextItem) {
    return { item_id: id, output_index: this.#items.length - 1, content_index: 0 }
  }

  #event(type: string, fields: object): ResponseEvent {
    return { type, sequence_number: this.#sequence++, ...fields }
  }

  #response(status: 'in_progress' | 'completed' | 'incomplete' | 'failed') {
    const { id, created_at, echo } = this.#heading
    return {
      id,
      object: 'response',
      created_at,
      status,
      completed_at: null as number | null,
      error: null,
      incomplete_details: null as object | null,
      ...echo,
      output: this.#items.map((item) => wireItem(item, 'completed')),
      usage: null as object | null,
    }
  }
}

function wireItem(item: OutputItem, status: 'in_progress' | 'completed') {
  if (item.kind === 'call')
    return { id: item.id, type: 'function_call', status, call_id: item.callId, name: item.name, arguments: item.arguments }
  const content = status === 'in_progress' ? [] : [textPart(item.text, item.logprobs)]
  return { id: item.id, type: 'message', status, role: 'assistant', content }
}

function textPart(text: string, logprobs: readonly object[]) {
  return { type: 'output_text', text, annotations: [], logprobs }
}

function usage({ promptTokens, cachedTokens, completionTokens }: Finish) {
  return {
    input_tokens: promptTokens,
    input_tokens_details: { cached_tokens: cachedTokens, cache_write_tokens: 0 },
    output_tokens: completionTokens,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: promptTokens + completionTokens,
  }
}
