import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import type { Subject } from './measure.ts'

export interface Case extends Subject {
  readonly name: string
}

/** Exports of `src`, as `FILE#NAME`, and inputs that are hard on them. */
export interface Measured {
  readonly of: readonly string[]
  readonly cases: readonly Case[]
}

const SRC = join(import.meta.dirname, '../../../src')

/** Folders and files of `src` where texts, lists and files of others are read and matched: each function and class of theirs is measured, or excused. */
export const ROOMS = [
  'edit',
  'selection',
  'prompt',
  'engine/format',
  'engine/output',
  'engine/grammar',
  'engine/gguf',
  'engine/upstream/wire.ts',
  'engine/upstream/sse-parser.ts',
  'engine/upstream/request.ts',
  'engine/llama-server/wire.ts',
  'wire',
  'http/request/body.ts',
  'memory/log',
  'memory/files',
] as const

/** All else of `src`: what it does with the texts of others. A new folder has to be put here or there. */
export const OUTSIDE: Readonly<Record<string, string>> = {
  access: 'tokens of 63 characters, by a pattern',
  adapters: 'records of our own',
  backup: 'manifests and files of our own',
  cli: 'what its user types',
  console: 'files of ours',
  'engine/embedded': 'hands on to llama.cpp what the rooms made',
  'engine/llama-server': 'hands on to llama-server what the rooms made',
  'engine/scheduling': 'tokens and slots, as many as the context holds',
  'engine/upstream': 'hands on what the rooms read',
  evaluate: 'data sets of its user, off the request path',
  experiment: 'what the rooms read, within its limits',
  handoff: 'edits within limits, off the request path',
  'http/edits': 'hands on what the rooms read',
  'http/experiments': 'hands on what the rooms read',
  'http/inference': 'hands on what the rooms read',
  'http/observe': 'one line and one count a request',
  'http/openapi': 'schemas of our own',
  'http/reply': 'answers as they come',
  'http/request': 'headers, which Node bounds at 16 kB',
  'memory/vectors': 'vectors of the embedder',
  models: 'files of a catalogue, by their hashes',
  server: 'settings of its user',
  storage: 'statements of ours',
  terminal: 'what is printed',
}

const EXPORT =
  /^export (?:async )?(?:function\*? |class |const (?=\w+(?:: [^=]+)? = (?:async )?(?:\([^)]*\)|\w+)(?:: [^=]+)? =>))(\w+)/gm

function filesIn(path: string): string[] {
  if (path.endsWith('.ts')) return [path]
  return readdirSync(join(SRC, path), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => relative(SRC, join(entry.parentPath, entry.name)))
}

/** Functions and classes that the rooms export, as `FILE#NAME`. */
export function exportsOf(rooms: readonly string[]): string[] {
  const files = [...new Set(rooms.flatMap(filesIn))].sort()
  return files.flatMap((file) => [...readFileSync(join(SRC, file), 'utf8').matchAll(EXPORT)].map(([, name]) => `${file}#${name}`))
}

/** Folders of `src` that hold files themselves. */
export function foldersOf(): string[] {
  const files = filesIn('.').filter((file) => file.includes('/') && !file.startsWith('console/web/'))
  return [...new Set(files.map((file) => file.slice(0, file.lastIndexOf('/'))))].sort()
}

/** Why exports need no measurement of their own. */
export const EXCUSED: Readonly<Record<string, readonly string[]>> = {
  'they say what a schema is; the readers that use it are measured': [
    'edit/values.ts#text',
    'edit/values.ts#name',
    'edit/values.ts#optional',
    'edit/values.ts#list',
    'wire/openai/chat.ts#chatBody',
    'wire/openai/chat.ts#palimpsestField',
    'wire/openai/chat.ts#streamFields',
    'wire/openai/embeddings.ts#embeddingBody',
    'wire/openai/messages.ts#messagesField',
    'wire/openai/responses/request.ts#responseBody',
    'wire/openai/responses/items.ts#inputField',
    'wire/openai/sampling.ts#samplingFields',
    'wire/openai/text-completion.ts#textBody',
    'wire/openai/tools.ts#toolFields',
    'wire/palimpsest/adapters.ts#adapterBody',
    'wire/palimpsest/adapters.ts#adapterQuery',
    'wire/palimpsest/adapters.ts#adapterChangeBody',
    'wire/palimpsest/experiments.ts#experimentBody',
    'wire/palimpsest/experiments.ts#rolloutBody',
    'wire/palimpsest/explain.ts#explainBody',
    'wire/palimpsest/selection.ts#selectionFields',
    'wire/palimpsest/replies.ts#listOf',
    'wire/palimpsest/replies.ts#pageOf',
    'wire/palimpsest/replies.ts#deletedReply',
    'wire/sent.ts#checkedLater',
  ],
  'a step of a reader that is measured whole': [
    'edit/values.ts#isAbsent',
    'edit/values.ts#isFalse',
    'edit/formats/convsent.ts#opinion',
    'edit/formats/counterfact.ts#nested',
    'edit/formats/draft.ts#isJson',
    'edit/formats/draft.ts#has',
    'edit/formats/draft.ts#hasAny',
    'edit/formats/draft.ts#take',
    'edit/formats/draft.ts#first',
    'edit/formats/draft.ts#oldAnswer',
    'edit/formats/draft.ts#written',
    'edit/json-keys.ts#hasPrototypeKey',
    'engine/format/chat-format.ts#written',
    'wire/openai/chat.ts#checkStreamOptions',
    'wire/openai/chat.ts#tidyObject',
    'wire/openai/fields.ts#strip',
    'wire/openai/format.ts#toFormat',
    'wire/openai/messages.ts#tidyMessages',
    'wire/openai/messages.ts#isObject',
    'wire/openai/messages.ts#toMessages',
    'wire/openai/models.ts#modelAsked',
    'wire/openai/refusal.ts#paramOf',
    'wire/openai/refusal.ts#check',
    'wire/openai/refusal.ts#fault',
    'wire/openai/refusal.ts#unknownField',
    'wire/openai/refusal.ts#shown',
    'wire/openai/responses/items.ts#toMessages',
    'wire/openai/responses/request.ts#inResponseNames',
    'wire/openai/sampling.ts#toSampling',
    'wire/openai/sampling.ts#oneLimit',
    'wire/openai/tools.ts#toTools',
    'wire/palimpsest/selection.ts#toSelection',
    'wire/palimpsest/selection.ts#oneTenant',
    'wire/palimpsest/selection.ts#otherTenant',
    'http/request/body.ts#bytes',
    'http/request/body.ts#mediaType',
    'http/request/body.ts#json',
    'http/request/body.ts#optionalJson',
    'http/request/body.ts#fromBodyParser',
    'selection/text.ts#endsOf',
    'engine/output/answer-stream.ts#pieceOf',
    'engine/upstream/wire.ts#firstModel',
    'engine/upstream/wire.ts#unreachable',
    'engine/upstream/wire.ts#UpstreamFault',
  ],
  'its input has few entries, by a limit': [
    'edit/instant.ts#isoDate',
    'engine/grammar/json-grammar.ts#unsupported',
    'engine/grammar/number-grammar.ts#integers',
    'engine/grammar/number-grammar.ts#numbers',
    'engine/format/raw-prompt.ts#textTokens',
    'engine/format/tool-format.ts#toolsText',
    'engine/format/model-family.ts#guessFamily',
    'engine/format/model-family.ts#defaultSystem',
    'engine/format/model-family.ts#fitSlots',
    'engine/format/model-family.ts#memoryText',
    'engine/format/model-family.ts#tooLittleMemory',
    'engine/format/model-family.ts#brokenModelFile',
    'engine/output/logprobs.ts#logprobOf',
    'engine/output/token-bytes.ts#tokenBytes',
    'engine/upstream/request.ts#chatBody',
    'engine/llama-server/wire.ts#serverArgs',
    'engine/llama-server/wire.ts#completionBody',
    'engine/llama-server/wire.ts#completionEvent',
    'engine/llama-server/wire.ts#serverFailed',
    'engine/gguf/lora.ts#brokenAdapter',
    'prompt/check.ts#checkProgram',
    'prompt/compile.ts#compileTemplate',
    'prompt/fault.ts#fault',
    'prompt/templates.ts#openTemplates',
    'prompt/demonstrations.ts#demonstrate',
    'prompt/demonstrations.ts#kindsOf',
    'selection/candidate.ts#unread',
    'selection/candidate.ts#Offers',
    'selection/gate.ts#readCalibration',
    'selection/gate.ts#evidenceOf',
    'selection/gate.ts#score',
    'selection/gate.ts#gate',
    'selection/gate.ts#shown',
    'selection/nearness.ts#nearnessFor',
    'selection/sameness.ts#namesOf',
    'selection/sameness.ts#sameSubject',
    'selection/sameness.ts#rivals',
    'selection/sameness.ts#samenessPairs',
    'selection/sameness.ts#asksSame',
    'wire/palimpsest/adapters.ts#readAdapterFile',
    'wire/palimpsest/adapters.ts#readAdapterFields',
    'wire/palimpsest/adapters.ts#readAdapterChange',
    'wire/palimpsest/adapters.ts#readAdapterPromotion',
    'wire/palimpsest/experiments.ts#readExperiment',
    'wire/palimpsest/experiments.ts#readRollout',
    'wire/palimpsest/experiments.ts#readFeedback',
    'wire/palimpsest/tokenizing.ts#tokenized',
    'wire/palimpsest/tokenizing.ts#detokenized',
    'wire/palimpsest/tokenizing.ts#tokenizerInfo',
  ],
  'it writes an answer, once for each of its parts': [
    'wire/openai/completion.ts#callId',
    'wire/openai/completion.ts#completion',
    'wire/openai/completion.ts#finite',
    'wire/openai/completion.ts#wireTokens',
    'wire/openai/completion.ts#deltaOf',
    'wire/openai/completion.ts#chunk',
    'wire/openai/completion.ts#obfuscated',
    'wire/openai/completion.ts#finishChunk',
    'wire/openai/completion.ts#usageChunk',
    'wire/openai/completion.ts#usage',
    'wire/openai/completion.ts#provenance',
    'wire/openai/completion.ts#wireDecomposition',
    'wire/openai/completion.ts#wireTurns',
    'wire/openai/embeddings.ts#wireEmbeddings',
    'wire/openai/error.ts#wireError',
    'wire/openai/error.ts#presentable',
    'wire/openai/models.ts#wireModels',
    'wire/openai/models.ts#wireModelAsked',
    'wire/openai/text-completion.ts#TextWriter',
    'wire/openai/text-completion.ts#likeliest',
    'wire/openai/text-completion.ts#textCompletion',
    'wire/openai/text-completion.ts#textChunk',
    'wire/openai/text-completion.ts#textUsage',
    'wire/palimpsest/adapters.ts#wireAdapter',
    'wire/palimpsest/edits.ts#wireHeld',
    'wire/palimpsest/edits.ts#wireWithHistory',
    'wire/palimpsest/edits.ts#wirePage',
    'wire/palimpsest/edits.ts#wireLanding',
    'wire/palimpsest/edits.ts#wireBatch',
    'wire/palimpsest/experiment-answers.ts#wireExperiment',
    'wire/palimpsest/experiment-answers.ts#wireResult',
    'wire/palimpsest/experiment-answers.ts#wireMoment',
    'wire/palimpsest/experiment-answers.ts#wireStanding',
    'wire/palimpsest/experiment-answers.ts#wireEvent',
    'wire/palimpsest/experiment-answers.ts#wireReplay',
    'wire/palimpsest/experiment-answers.ts#wirePair',
    'wire/palimpsest/explain.ts#wireExplanation',
  ],
  'it asks the model, the disk or a database, and does little itself': [
    'edit/batch-thread.ts#parseBatchApart',
    'engine/format/chat-format.ts#remembering',
    'engine/format/chat-format.ts#tokenize',
    'engine/gguf/header.ts#readGgufHeader',
    'engine/gguf/header.ts#findNotFinite',
    'engine/gguf/lora.ts#loraFiles',
    'engine/gguf/lora.ts#readLora',
    'memory/files/watcher.ts#openFolder',
    'memory/files/watcher.ts#describeProblem',
    'memory/log/edit-log.ts#openLogFile',
    'memory/log/edit-log.ts#EditLog',
    'memory/log/edit-log.ts#isBehind',
    'memory/log/feed.ts#Feed',
    'selection/boundless.ts#boundless',
    'selection/chain.ts#follow',
    'selection/chain.ts#bridge',
    'selection/landing-check.ts#landingReport',
    'selection/reader-cache.ts#cachedReader',
    'selection/retriever.ts#Retriever',
    'selection/sameness.ts#latest',
    'selection/select.ts#select',
  ],
}
