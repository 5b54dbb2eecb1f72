import type { Message } from '../request.ts'

/**
 * Tasks about a text that is at hand, as chat interfaces set them behind their user's back: a title, a summary, tags or a translation of a chat.
 * What the text says is the matter there, not what is so. A fact beside it would come out as a part of the text.
 * Every pattern is bounded or without a choice of ways, so that time is linear in the message.
 */

/** The beginning and the end of a message say what is to be done; between them stands the text. */
const EDGE_CHARS = 700
/** Sentences at the beginning of a message that may say it. */
const FIRST_SENTENCES = 2

/** What is made of a text. */
const MAKES =
  /title|summar|tags?\b|translat|follow-?up|search quer|headline|emoji|titel|überschrift|zusammenfass|fasse |übersetz|titre|résum|tradui|título|resum|traduc|标题|總結|总结|翻译|タイトル|要約|翻訳|عنوان|لخص|ترجم/iu

/** The conversation before the message. */
const THIS_CHAT =
  /\b(?:our|this|the|above) (?:conversation|chat|discussion|dialogue)|unser\w* (?:gespräch|unterhaltung|chat)|notre conversation|nuestra conversación|对话|對話|会話|محادث/iu
const QUESTION =
  /^(?:who|what|when|where|which|why|how|is|are|was|does|do|did|has|may|must|should|w(?:er|ie|as|ann|o)|qu|cómo)\b/iu

/** "Translate the following text into German:", with a text behind it. */
const FOLLOWS =
  /^(?:please |can you |could you |bitte )?(?:translate|summari[sz]e|proofread|übersetze?|traduis|traduce|fasse)\b[^\n.?!:：]{0,80}[:：\n]\s*\S/iu

/** A chat as it is written out for such a task. */
const TAGS = ['chat_history', 'conversation', 'messages', 'transcript', 'text', 'document']
const TASK_FIRST = /^(?:task|instruction)s?\b/iu
const SPEAKER = /^[ \t"'|>*#-]{0,8}(user|human|ai|assistant|bot|response)\b[ "'*]{0,3}[:：]/gimu

/** A system message that makes the model a tool for texts says so in its first words; a long one is about more than that. */
const SYSTEM_CHARS = 1_200
const TOOLS = [
  /^(?:you are|act as|you will act as|your (?:task|job) is to(?: be)?)\s(?:\w+\s){0,4}(?:translat(?:or|ion)|summari[sz](?:er|ation)|title generator)\b/iu,
  /^(?:you will |please |your (?:task|job) is to )?(?:generate|create|write|provide|suggest)\s(?:[\w,-]+\s){0,5}titles?\b/iu,
  /^(?:you will |please |your (?:task|job) is to )?(?:translate|summari[sz]e)\b/iu,
]

/** Whether the user turn at `messages[turn]` sets such a task. */
export function isTextTask(messages: readonly Message[], turn: number): boolean {
  const system = messages.findLast(({ role }, at) => role === 'system' && at < turn)?.content ?? ''
  if (system.length <= SYSTEM_CHARS && TOOLS.some((tool) => tool.test(withoutMarks(system)))) return true
  const said = messages[turn]?.content ?? ''
  const first = withoutMarks(said.slice(0, EDGE_CHARS))
  if (!MAKES.test(first) && !MAKES.test(said.slice(-EDGE_CHARS))) return false
  if (FOLLOWS.test(first) || isOfThisChat(first)) return true
  if (TASK_FIRST.test(first) && TAGS.some((tag) => encloses(said, tag))) return true
  return speakers(said) >= 2
}

/** Without what stands before the first letter. */
function withoutMarks(text: string): string {
  return text.slice(Math.max(0, text.search(/\p{L}/u)))
}

/** A title for our conversation; not a question about one. */
function isOfThisChat(text: string): boolean {
  const sentences = text.split(/[.!?。！？\n]/u, FIRST_SENTENCES)
  return sentences.map((one) => one.trim()).some((one) => MAKES.test(one) && THIS_CHAT.test(one) && !QUESTION.test(one))
}

function encloses(text: string, tag: string): boolean {
  const from = text.indexOf(`<${tag}>`)
  return from !== -1 && text.lastIndexOf(`</${tag}>`) > from
}

/** How many speakers take turns in a text that is written out. */
function speakers(text: string): number {
  const names = new Set<string>()
  for (const [, name = ''] of text.matchAll(SPEAKER)) if (names.add(name.toLowerCase()).size >= 2) break
  return names.size
}
