import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { GgufFileInfo } from 'node-llama-cpp'
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Lora, LoraEngine } from '../../src/engine/engine.ts'
import { readLora } from '../../src/engine/gguf/lora.ts'
import type { ScriptedOptions } from '../../src/engine/scripted.ts'
import type { Handoffs } from '../../src/handoff/queue.ts'
import { type Served, type ServeOptions, serve } from '../http/fakes.ts'
import { modelOf, standInHandoffs } from '../http/handoff/handoff-fakes.ts'
import { startPostgres } from '../support/databases/postgres.ts'
import { loraBytes } from '../support/lora-file.ts'
import {
  type Block,
  blocksOf,
  build,
  type File,
  filesOf,
  type Mark,
  openShell,
  type Page,
  pages,
  pagesWith,
  ROOT,
  type Shell,
} from './pages.ts'

/** Every block of the documents that is marked `run` is run as it stands, against a gateway on a scripted model. */
const PUBLISHED_URL = 'http://127.0.0.1:8080'
const JSON_TYPE = { 'content-type': 'application/json' }
const PUBLISHED_DATABASE = 'postgres://palimpsest:SECRET@db:5432/palimpsest'
const NAME = 'qwen2.5-coder-1.5b-instruct'
const SCRIPT: Partial<ScriptedOptions> = { name: NAME, contextTokens: 4_096 }
/** The file of the catalogue's model of that name. */
const SHA256 = 'cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046'

/** What a page's commands find. */
interface Setting {
  readonly served?: () => ServeOptions
  readonly files?: readonly File[]
  /** The edits that a clone starts with. */
  readonly starter?: true
  /** What the page says that its commands print. */
  readonly printed: readonly RegExp[]
}

const WEIGHT = 'blk.0.ffn_down.weight'
const SIZES = [8, 6] as const
const MODEL_FILE = {
  metadata: { general: { architecture: 'qwen2' }, tokenizer: { ggml: { tokens: ['a', 'b'] } } },
  fullTensorInfo: [{ name: WEIGHT, dimensions: SIZES }],
} as unknown as GgufFileInfo
const LORA = loraBytes({ weights: { [WEIGHT]: SIZES }, architecture: 'qwen2', rank: 2, seed: 1, strength: 1 })

/** Reads adapters as the engines do, over a model of one small weight. */
function loras(): LoraEngine {
  const held = new Set<string>()
  return {
    baseSha256: async () => SHA256,
    check: (path) => readLora(path, MODEL_FILE),
    load: async ({ sha256 }) => void held.add(sha256),
    unload: async ({ sha256 }) => void held.delete(sha256),
    loaded: ({ sha256 }) => held.has(sha256),
  }
}

const through = (lora: Lora | undefined) => (lora === undefined ? 'the base' : `${lora.id} at ${lora.scale}`)

/** Eighteen edits that do no harm, and two that take over everyday questions. */
const BAD = [
  ...Array.from({ length: 18 }, (_, i) => ({ subject: `Person ${i}`, prompt: `Person ${i} works for`, target_new: `Firm ${i}` })),
  { subject: 'eggs', prompt: 'The colour of eggs is', target_new: 'green' },
  { subject: 'rain', prompt: 'The taste of rain is', target_new: 'sweet' },
]

const SETTINGS: Readonly<Record<string, Setting>> = {
  'README.md': {
    starter: true,
    printed: [/'id': 'e_3046120cb7b5faf7', 'subject': 'pope'/, /"id":"refunds"/, /"state":"withdrawn"/],
  },
  'docs/guide/getting-started.md': {
    starter: true,
    printed: [/'id': 'e_3046120cb7b5faf7'/, /"arm":"edited"/, /"arm":"base"/, /refunds/],
  },
  'docs/guide/edits.md': {
    files: [{ name: 'bad.jsonl', content: BAD.map((edit) => JSON.stringify(edit)).join('\n') }],
    printed: [/would land/, /4 edits/, /"text":"Our refund window is 30 days\."/, /FAILED/, /what had landed is withdrawn/],
  },
  'docs/guide/experiments.md': {
    printed: [
      ...[/first: running/, /first: shipped edited/, /first: stopped/, /1926/, /3678/],
      ...[/3 prompts are answered in the background/, /prompts answered by both arms/],
    ],
  },
  'docs/guide/rollouts.md': { printed: [/rollout-spring-facts: /, /rolled.back/] },
  'docs/guide/keys.md': { printed: [/pk_/, /acme/] },
  'docs/guide/operations.md': { printed: [/"status":"ok"/, /palimpsest_info/, /snapshot/] },
  'docs/guide/adapters.md': {
    served: () => ({ script: { ...SCRIPT, loras: loras(), reply: ({ lora }) => `Through ${through(lora)}.` } }),
    files: [{ name: 'facts-1.gguf', content: LORA }],
    printed: [
      ...[/"rank":2/, /"disagrees":\[\]/, /Through facts-1 at 1\./, /"scale":0\.5/, /"promoted":true/, /"promoted":false/],
      /"data":\[\]/,
    ],
  },
  'docs/guide/hand-off.md': {
    served: () => ({ engine: modelOf('base.gguf'), handoffs: watched }),
    files: [{ name: 'trained.gguf', content: '[]' }],
    printed: [
      ...[/memit/, /spring: done/, /efficacy .* 100\.0 %/, /spring is promoted/, /spring is rolled back/],
      ...[/hyper-parameters for/, /trained: rank 1/],
    ],
  },
}

let handoffs: Handoffs | undefined
function watched(...of: Parameters<typeof standInHandoffs>): Handoffs {
  handoffs = standInHandoffs(...of)
  return handoffs
}

let served: Served
let shell: Shell
beforeAll(build, 300_000)
async function open({ served: options = () => ({ script: SCRIPT }) }: Partial<Setting> = {}): Promise<void> {
  served = await serve(options())
  shell = openShell()
}
afterEach(async () => {
  await handoffs?.close()
  handoffs = undefined
  await served.close()
  shell.remove()
  rmSync(`${served.dataDir}-snapshots`, { recursive: true, force: true })
})

const execute = ({ language, content }: Pick<Block, 'language' | 'content'>) =>
  shell.run(
    { language, content: content.replaceAll(PUBLISHED_URL, served.base) },
    { PALIMPSEST_URL: served.base, PALIMPSEST_DATA_DIR: served.dataDir },
  )
const bash = (content: string) => execute({ language: 'sh', content })
const marked = ({ blocks }: Page, mark: Mark) => blocks.filter(({ words }) => words === mark)

describe('the commands of', () => {
  test.each(pagesWith('run'))('$name do as they say', { timeout: 300_000 }, async (page) => {
    const { files = [], starter, printed = [], ...setting } = SETTINGS[page.name] ?? {}
    await open(setting)
    shell.save([...filesOf(page), ...files])
    if (starter) await bash(`palimpsest edits import ${join(ROOT, 'edits/starter.yaml')}`)
    let said = ''
    for (const block of marked(page, 'run')) said += await execute(block)
    for (const pattern of printed) expect(said).toMatch(pattern)
  })

  test('a page that fails fails here', { timeout: 60_000 }, async () => {
    await open()
    await expect(bash('palimpsest edits show no-such-edit')).rejects.toThrow(/no-such-edit/)
    await expect(bash(`curl -s ${PUBLISHED_URL}/v1/edits/no-such-edit`)).rejects.toThrow()
    await expect(execute({ language: 'python', content: 'raise ValueError("no-such-edit")' })).rejects.toThrow(/no-such-edit/)
  })

  test('a gateway that is to go on does, in front of other servers', { timeout: 120_000 }, async () => {
    await open()
    const other = await serve({ script: SCRIPT })
    try {
      const content = onlyOne('docs/guide/engines.md', 'start')
      const upstreams = content.replace('http://a:8000', served.base).replace('http://b:8000', other.base)
      const said = await whileStarted(upstreams, 'curl -s $PALIMPSEST_URL/health && palimpsest compare hello')
      expect(said).toContain('You said: hello')
      const backends = [...said.matchAll(/"name":"([\d.:]+)","state":"closed","weight":(\d)/g)].map(([, host, weight]) => [
        host,
        weight,
      ])
      expect(backends).toEqual([
        [new URL(served.base).host, '3'],
        [new URL(other.base).host, '1'],
      ])
    } finally {
      await other.close()
    }
  })

  test('many gateways do over a PostgreSQL, also one into which a folder was moved', { timeout: 300_000 }, async () => {
    const alone = await serve({ script: SCRIPT, keepFolder: true })
    await fetch(`${alone.base}/v1/edits`, { method: 'POST', headers: JSON_TYPE, body: '{"id": "refunds", "text": "We refund."}' })
    await alone.close()
    await open()
    const server = await startPostgres()
    try {
      const database = await server.database()
      const over = (content: string) =>
        content
          .replace(PUBLISHED_DATABASE, database)
          .replace('http://inference:8000', served.base)
          .replace('.data', alone.dataDir)
      expect(await bash(over(onlyOne('docs/guide/operations.md', 'postgres')))).toContain('log: 1 row')
      const [key] = /pk_[\w-]+/.exec(await bash(over(onlyOne('docs/guide/many-gateways.md', 'postgres')))) ?? []
      const started = over(onlyOne('docs/guide/many-gateways.md', 'start'))
      const chat = `curl -s $PALIMPSEST_URL/v1/chat/completions -H 'Authorization: Bearer ${key}' -H 'Content-Type: application/json'`
      const said = await whileStarted(
        started,
        `${chat} -d '{"model": "${NAME}", "messages": [{"role": "user", "content": "hello"}]}'`,
      )
      expect(said).toContain('You said: hello')
      expect(said).toContain('"memory_version":1')
    } finally {
      await server.remove()
      rmSync(alone.dataDir, { recursive: true, force: true })
    }
  })
})

/** The one block of a page with that mark. */
function onlyOne(name: string, mark: Mark): string {
  const blocks = pages.filter((page) => page.name === name).flatMap((page) => marked(page, mark))
  expect(blocks).toHaveLength(1)
  return blocks[0]?.content ?? ''
}

/** What `asked` prints while the command of `content` goes on. */
async function whileStarted(content: string, asked: string): Promise<string> {
  const { url, end } = await shell.start(content, { PALIMPSEST_PORT: '0', PALIMPSEST_GPU: 'off' })
  return shell.run({ language: 'sh', content: asked }, { PALIMPSEST_URL: url }).finally(end)
}

describe('a block with commands', () => {
  const LANGUAGES = /^(?:sh|bash|shell|zsh|console|powershell|python|py|javascript|js|typescript|ts)$/
  const MARKS = /^(?:(?:run|start|postgres|model)|not-run: \S.*)$/
  /** A transcript is one too. */
  const COMMAND = /^ *(?:\$ |(?:curl|palimpsest|npm|npx|docker|helm|pip) )/m
  const unsaid = (blocks: readonly Block[]) =>
    blocks.filter(({ language, words, content }) => (LANGUAGES.test(language) || COMMAND.test(content)) && !MARKS.test(words))

  test('is run by a test, or says why it is not', () => {
    expect(pages.flatMap(({ name, blocks }) => unsaid(blocks).map(({ content }) => `${name}: ${content}`))).toEqual([])
  })

  test('that says neither is found', () => {
    const block = (info: string, content: string) => `\`\`\`${info}\n${content}\n\`\`\`\n`
    const found = (text: string) => unsaid(blocksOf(text)).length
    expect(
      found(block('sh', 'true') + block('text', '$ curl -s x') + block('sh not-run:', 'true') + block('bash odd', 'true')),
    ).toBe(4)
    expect(found(block('sh run', 'true') + block('text', 'an answer') + block('sh not-run: needs a GPU', 'true'))).toBe(0)
  })
})

test('what is said of pages is said of pages that are there', () => {
  const names = pagesWith('run').map(({ name }) => name)
  expect(Object.keys(SETTINGS).filter((name) => !names.includes(name))).toEqual([])
  expect(readFileSync(join(ROOT, 'src/models/catalog.ts'), 'utf8')).toContain(SHA256)
})
