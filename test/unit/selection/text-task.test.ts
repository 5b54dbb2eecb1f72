import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Message } from '../../../src/request.ts'
import { EVERYDAY } from '../../../src/selection/everyday.ts'
import { isTextTask } from '../../../src/selection/text-task.ts'

const CORPUS = join(import.meta.dirname, '../../../corpus')

const CHAT = 'Who is the mayor of Lund?\nASSISTANT: Ada Quist is.'
const user = (content: string): Message => ({ role: 'user', content })
const system = (content: string): Message => ({ role: 'system', content })
/** The last user turn of a conversation. */
const task = (messages: readonly Message[]) =>
  isTextTask(
    messages,
    messages.findLastIndex(({ role }) => role === 'user'),
  )

describe('a task about a text', () => {
  test.each<[string, readonly Message[]]>([
    [
      'a title, as Open WebUI asks',
      [
        user(
          `### Task:\nFind a short title for the chat below.\n### Output:\n{"title": "…"}\n### Chat History:\n<chat_history>\nUSER: ${CHAT}\n</chat_history>`,
        ),
      ],
    ],
    [
      'tags, as Open WebUI asks',
      [
        user(
          `### Task:\nName one to three tags of the main themes.\n### Chat History:\n<chat_history>\nUSER: ${CHAT}\n</chat_history>`,
        ),
      ],
    ],
    [
      'follow-up questions, as Open WebUI asks',
      [user(`### Task:\nWrite three follow-up questions.\n### Chat History:\n<chat_history>\nUSER: ${CHAT}\n</chat_history>`)],
    ],
    [
      'search queries, as Open WebUI asks',
      [
        user(
          `### Task:\nSay which search queries would help.\n### Chat History:\n<chat_history>\nUSER: ${CHAT}\n</chat_history>`,
        ),
      ],
    ],
    [
      'a title, as LibreChat asks',
      [user(`Give this conversation a title of five words.\n\nConversation:\nUser: ${CHAT.replace('ASSISTANT', 'AI')}`)],
    ],
    [
      'a title by a system message',
      [system('Generate a concise title for what the user says.'), user('Who is the mayor of Lund?')],
    ],
    [
      'a summary, as LangChain asks',
      [user(`Extend the summary by the new lines.\n\nNew lines:\nHuman: ${CHAT.replace('ASSISTANT', 'AI')}\n\nNew summary:`)],
    ],
    [
      'a title for the conversation so far',
      [
        user('Who is the mayor of Lund?'),
        { role: 'assistant', content: 'Ada.' },
        user('Please find a four-word title for our conversation, without quotation marks.'),
      ],
    ],
    [
      'a summary of it',
      [user('Hi'), { role: 'assistant', content: 'Hi.' }, user('Summarize the discussion briefly, to be used as context later.')],
    ],
    ['a translation', [user('Translate the following text into German:\n\nThe mayor of Lund is Ada Quist.')]],
    [
      'a translation, in German',
      [user('Übersetze den folgenden Text ins Englische: Die Bürgermeisterin von Lund ist Ada Quist.')],
    ],
    [
      'a translator',
      [system('You are a professional translator. Answer with the translation only.'), user('Who is the mayor of Lund?')],
    ],
  ])('is %s', (_, messages) => {
    expect(task(messages)).toBe(true)
  })

  test.each<[string, readonly Message[]]>([
    ['a question', [user('Who is the mayor of Lund?')]],
    [
      'a question after a title was asked for',
      [user('Find a title for our conversation.'), { role: 'assistant', content: 'Lund' }, user('Who is the mayor of Lund?')],
    ],
    ['a question about a title', [user('Who holds the title of mayor of Lund?')]],
    ['a summary of what is known', [user('Summarize our refund policy.')]],
    ['a question about how a chat is summed up', [user('How long may the summary of a support chat be?')]],
    [
      'a pasted mail with a question',
      [user('Subject: tags\n\nHi, see the text below: <text>our tags are late</text> When do you deliver?')],
    ],
    [
      'an assistant that can translate, too',
      [system('You are the assistant of Lumora. You answer questions, and translate on request.'), user('What does Flow cost?')],
    ],
  ])('is not %s', (_, messages) => {
    expect(task(messages)).toBe(false)
  })

  test('is none of the messages of the corpus that need a fact, nor what anybody asks any day', () => {
    interface Line {
      readonly edit: object
      readonly in_scope: readonly { readonly messages?: readonly Message[] }[]
    }
    const lines = readdirSync(CORPUS)
      .filter((file) => file.endsWith('.jsonl'))
      .flatMap((file) => readFileSync(join(CORPUS, file), 'utf8').split('\n'))
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Line)
    const facts = lines.filter(({ edit }) => !('instruction' in edit))
    const asked = facts.flatMap(({ in_scope: own }) => own.flatMap(({ messages }) => (messages === undefined ? [] : [messages])))
    expect(asked.length).toBeGreaterThan(5_000)
    expect(asked.filter(task).map((messages) => messages.at(-1)?.content)).toEqual([])
    expect(EVERYDAY.filter((text) => task([user(text)]))).toEqual([])
  })
})
