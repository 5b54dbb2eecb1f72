/**
 * Which template serves best: the right edit always in the prompt, greedy, on a real model.
 *
 *   npx tsc -p tsconfig.bench.json && node dist-bench/bench/selection/template.js --model FILE.gguf --data FILE.json
 *
 * Options: --templates DIR (templates) --names a,b (all) --from N --to N (records) --kind counterfact|zsre|own --max-tokens N (24)
 * (own: a list of {subject, prompt, target_new, questions}, to read answers to requests of other shapes)
 * --early (stop when the target has appeared) --threads N (1) --show N (answers to print) --misses (print only misses) --extra N
 * (so many other records' edits above the right one) --ask prompt,paraphrase,follow (which questions)
 */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { getLlama, type LlamaContextSequence, LlamaLogLevel, type LlamaModel, type Token } from 'node-llama-cpp'
import type { Edit } from '../../src/edit/edit.ts'
import { words } from '../../src/edit/words.ts'
import { demonstrate } from '../../src/prompt/demonstrations.ts'
import { openTemplates } from '../../src/prompt/templates.ts'
import { breaksOff, viewOf } from '../../src/prompt/turn.ts'

const { values: options } = parseArgs({
  options: {
    templates: { type: 'string', default: 'templates' },
    names: { type: 'string' },
    model: { type: 'string' },
    data: { type: 'string' },
    kind: { type: 'string', default: 'counterfact' },
    from: { type: 'string', default: '100' },
    to: { type: 'string', default: '150' },
    'max-tokens': { type: 'string', default: '24' },
    threads: { type: 'string', default: '1' },
    show: { type: 'string', default: '0' },
    extra: { type: 'string', default: '0' },
    ask: { type: 'string', default: 'prompt,paraphrase' },
    misses: { type: 'boolean', default: false },
    early: { type: 'boolean', default: false },
  },
})

type Asked = 'prompt' | 'paraphrase' | 'follow'
type Fact = Pick<Edit, 'subject' | 'prompt' | 'targetNew'>
interface Case {
  readonly fact: Fact
  readonly questions: readonly (readonly [Asked, string])[]
}

// biome-ignore lint/suspicious/noExplicitAny: two outside formats, read here only
function counterfact(record: any): Case {
  const { prompt, subject, target_new } = record.requested_rewrite
  const fact = { subject, prompt: prompt.replace('{}', subject), targetNew: target_new.str }
  const paraphrases = record.paraphrase_prompts.map((text: string) => ['paraphrase', text] as const)
  return { fact, questions: [['prompt', fact.prompt], ...paraphrases, ['follow', FOLLOW_UP]] }
}

// biome-ignore lint/suspicious/noExplicitAny: as above
function zsre(record: any): Case {
  const fact = { subject: record.subject, prompt: record.src, targetNew: record.alt }
  return {
    fact,
    questions: [
      ['prompt', record.src],
      ['paraphrase', record.rephrase],
      ['follow', FOLLOW_UP],
    ],
  }
}

// biome-ignore lint/suspicious/noExplicitAny: as above
function own(record: any): Case {
  const fact = { subject: record.subject, prompt: record.prompt, targetNew: record.target_new }
  return { fact, questions: record.questions.map((text: string) => ['paraphrase', text] as const) }
}

/** Turn 2, after turn 1 asked the prompt and got an answer that does not repeat the fact. */
const FOLLOW_UP = 'I did not catch that. What was it, in one short answer?'
const DEFLECTION = 'Yes, I can tell you about that.'
const SYSTEM = 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.'
const TELLTALES =
  /\b(updated|according to|provided|given (the )?(fact|information|context)|the facts?|the note|based on|as stated|the correct)\b/i

function frame(model: LlamaModel, turns: readonly string[]): Token[] {
  const special = (text: string) => model.tokenize(text, true)
  const plain = (text: string) => model.tokenize(text, false)
  const message = (role: string, text: string) => [
    ...special('<|im_start|>'),
    ...plain(`${role}\n${text}`),
    ...special('<|im_end|>'),
    ...plain('\n'),
  ]
  const told = turns.flatMap((text, i) => message(i % 2 === 0 ? 'user' : 'assistant', text))
  return [...message('system', SYSTEM), ...told, ...special('<|im_start|>'), ...plain('assistant\n')]
}

async function answer(
  model: LlamaModel,
  sequence: LlamaContextSequence,
  prompt: Token[],
  done: (text: string) => boolean,
): Promise<string> {
  await sequence.adaptStateToTokens(prompt.slice(0, -1), false)
  const made: Token[] = []
  const greedy = { temperature: 0, topK: 0, topP: 1, minP: 0 }
  for await (const token of sequence.evaluate(prompt.slice(sequence.nextTokenIndex), greedy)) {
    if (model.isEogToken(token)) break
    made.push(token)
    if (made.length >= Number(options['max-tokens']) || done(model.detokenize(made))) break
  }
  return model.detokenize(made)
}

const holds = (text: string, target: string) => ` ${words(text).join(' ')} `.includes(` ${words(target).join(' ')} `)
const percent = (part: number, whole: number) => (whole === 0 ? '–' : ((100 * part) / whole).toFixed(1))

if (!options.model || !options.data) throw new Error('Give --model FILE.gguf and --data FILE.json')
const read = { counterfact, zsre, own }[options.kind as 'own']
const records: unknown[] = JSON.parse(readFileSync(options.data, 'utf8'))
const cases = records.slice(Number(options.from), Number(options.to)).map(read)
const templates = openTemplates({ dir: options.templates, watch: false, log: { info: () => {}, warn: console.warn } })
const threads = Number(options.threads)
const llama = await getLlama({ gpu: false, build: 'never', maxThreads: threads, logLevel: LlamaLogLevel.error })
const model = await llama.loadModel({ modelPath: options.model })
const context = await model.createContext({ contextSize: 2048, sequences: 1, threads })
const sequence = context.getSequence()

console.log('template | prompt % | paraphrase % | follow-up % | telltale % | words | block tokens | s/answer')
for (const name of options.names?.split(',') ?? templates.names()) {
  const template = templates.get(name, 'chatml')
  const right: Record<Asked, number> = { prompt: 0, paraphrase: 0, follow: 0 }
  const asked: Record<Asked, number> = { prompt: 0, paraphrase: 0, follow: 0 }
  let [telltales, length, added, shown] = [0, 0, 0, 0]
  const start = performance.now()
  for (const [index, { fact, questions }] of cases.entries()) {
    const others = Array.from({ length: Number(options.extra) }, (_, k) => cases[(index + k + 1) % cases.length]?.fact as Fact)
    const edits = [...others, fact].map(viewOf)
    const rendered = (question: string) => {
      const demonstrations = demonstrate({ question, edits, pool: [], count: template.demonstrations })
      return template.render({ question, unfinished: breaksOff(question), edits, demonstrations })
    }
    for (const [kind, question] of questions.filter(([kind]) => options.ask.split(',').includes(kind))) {
      const turns = kind === 'follow' ? [rendered(fact.prompt), DEFLECTION, question] : [rendered(question)]
      const stop = (text: string) => options.early && holds(text, fact.targetNew)
      const text = await answer(model, sequence, frame(model, turns), stop)
      const hit = holds(text, fact.targetNew)
      asked[kind]++
      if (hit) right[kind]++
      if (TELLTALES.test(text)) telltales++
      length += words(text).length
      added += model.tokenize(turns[0] as string).length - model.tokenize(kind === 'follow' ? fact.prompt : question).length
      if (shown < Number(options.show) && !(options.misses && hit)) {
        shown++
        console.log(`  ${hit ? 'ok  ' : 'MISS'} ${JSON.stringify({ kind, question, target: fact.targetNew, text })}`)
      }
    }
  }
  const total = asked.prompt + asked.paraphrase + asked.follow
  const shares = (['prompt', 'paraphrase', 'follow'] as const).map((kind) => percent(right[kind], asked[kind]))
  const means = [length, added].map((sum) => (sum / total).toFixed(1))
  const seconds = ((performance.now() - start) / 1000 / total).toFixed(2)
  console.log([`${name}@${template.hash}`, ...shares, percent(telltales, total), ...means, seconds].join(' | '))
}
await llama.dispose()
