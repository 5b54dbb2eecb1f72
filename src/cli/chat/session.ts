import { eventData } from '../../engine/upstream/sse-parser.ts'
import { printable } from '../../terminal/table.ts'
import type { Client } from '../client/client.ts'
import { candidateTable } from '../text/edits-text.ts'
import type { WireLanding, WireProvenance } from '../wire.ts'

interface Turn {
  readonly role: 'user' | 'assistant'
  readonly content: string
}

interface Chunk {
  readonly choices?: readonly { readonly delta?: { readonly content?: string } }[]
  readonly palimpsest?: WireProvenance
  readonly error?: { readonly message: string }
}

/** Near misses that /why lists. */
const NEAR_MISSES = 3

export const HELP = `Type a question. Commands:
  /base    switch between the edited model and the model as it was
  /why     which edits made the last answer, their scores, and near misses
  /set SUBJECT | PROMPT => TARGET
           land an edit: /set pope | The name of the current pope is => Leo XIV
  /reset   forget the conversation
  /help    this
  /quit    leave (so does the end of the input)
Ctrl-C stops an answer; on an empty line it leaves.`

/** One conversation with a gateway. `write` gets text as it comes. */
export class ChatSession {
  readonly #client: Client
  readonly #model: string
  readonly #write: (text: string) => void
  #turns: Turn[] = []
  #base = false
  #last: WireProvenance | undefined

  constructor(client: Client, model: string, write: (text: string) => void) {
    this.#client = client
    this.#model = model
    this.#write = write
  }

  /** What stands before the next question: it tells the arm. */
  get prompt(): string {
    return this.#base ? 'base> ' : 'edited> '
  }

  /** Takes one line; false when it asks to leave. Throws what the gateway answers, the conversation unchanged. */
  async take(line: string, signal: AbortSignal): Promise<boolean> {
    const [, command, rest = ''] = /^\/(\w+)\s*(.*)$/s.exec(line.trim()) ?? []
    switch (command) {
      case undefined:
        if (line.trim() !== '') await this.#ask(line.trim(), signal)
        return true
      case 'base':
        this.#base = !this.#base
        this.#say(this.#base ? 'The model as it was answers now.' : 'The edited model answers now.')
        return true
      case 'why':
        this.#say(this.#why())
        return true
      case 'set':
        this.#say(await this.#set(rest))
        return true
      case 'reset':
        this.#turns = []
        this.#last = undefined
        this.#say('The conversation is forgotten.')
        return true
      case 'help':
        this.#say(HELP)
        return true
      case 'quit':
      case 'exit':
        return false
      default:
        this.#say(`There is no command /${command}. /help lists them.`)
        return true
    }
  }

  #say(text: string): void {
    this.#write(`${printable(text)}\n`)
  }

  async #ask(question: string, signal: AbortSignal): Promise<void> {
    const turns: Turn[] = [...this.#turns, { role: 'user', content: question }]
    const model = this.#base ? `${this.#model}@base` : this.#model
    const body = JSON.stringify({ model, messages: turns, stream: true, palimpsest: { explain: true } })
    let answer = ''
    try {
      const response = await this.#client.send('/v1/chat/completions', {
        method: 'POST',
        body,
        headers: { 'Content-Type': 'application/json' },
        signal,
      })
      for await (const data of eventData(response.body ?? empty())) {
        if (data === '[DONE]') break
        const { choices, palimpsest, error } = JSON.parse(data) as Chunk
        if (error !== undefined) throw new Error(error.message)
        const piece = choices?.[0]?.delta?.content ?? ''
        answer += piece
        this.#write(printable(piece))
        if (palimpsest !== undefined) this.#last = palimpsest
      }
    } catch (error) {
      if (!signal.aborted) throw error
      this.#write(' [stopped]')
    }
    if (answer !== '') this.#turns = [...turns, { role: 'assistant', content: answer }]
    this.#write('\n')
  }

  #why(): string {
    if (this.#last === undefined) return 'There is no answer yet.'
    const { arm, edits, template, trace } = this.#last
    // An edit may concern several turns: it is shown for the latest.
    const latest = new Map((trace?.turns ?? []).flatMap(({ considered }) => considered.map((one) => [one.id, one] as const)))
    const considered = [...latest.values()].sort((a, b) => b.score - a.score)
    const ids = new Set(edits.map(({ id }) => id))
    const used = considered.filter(({ id, reason }) => ids.has(id) || reason === 'selected')
    const missed = considered.filter((one) => !used.includes(one)).slice(0, NEAR_MISSES)
    const head =
      edits.length > 0
        ? `The ${arm} model answered with these edits in its prompt (template ${template}):`
        : used.length > 0
          ? `The ${arm} model answered without edits. The edited one would have had these:`
          : 'No edit applied: this is the answer of the model as it was.'
    return [
      head,
      ...(used.length > 0 ? [candidateTable(used)] : []),
      ...(missed.length > 0 ? ['Near misses:', candidateTable(missed)] : []),
    ].join('\n')
  }

  async #set(text: string): Promise<string> {
    const [, subject, prompt, target] = /^(.+?)\s*\|\s*(.+?)\s*=>\s*(.+)$/s.exec(text) ?? []
    if (subject === undefined || prompt === undefined || target === undefined) return 'Expected: /set SUBJECT | PROMPT => TARGET'
    const landing = await this.#client.json<WireLanding>('POST', '/v1/edits?source=chat', { subject, prompt, target_new: target })
    return `Landed as ${landing.results[0]?.id}. It holds from the next question on; /reset first, lest the model repeat what it said.`
  }
}

async function* empty(): AsyncGenerator<Uint8Array> {}
