/**
 * Two batches that roll themselves out over a running gateway and its real model: a sound one on made-up mayors, and one whose edits break
 * locality on purpose, on what everyday questions are about. Users go on asking about both. Says the stages, how many answers were affected
 * and how long it took. `npm run bench:rollout -- [--url http://127.0.0.1:8080] [--users 120]`
 */
import { parseArgs } from 'node:util'
import { clientOf } from './client.ts'

const { values: flags } = parseArgs({
  options: { url: { type: 'string', default: 'http://127.0.0.1:8080' }, users: { type: 'string', default: '120' } },
})
const STAGES = [
  { share: 0, least: 5 },
  { share: 0.1, least: 5 },
  { share: 0.5, least: 5 },
]
const AT_ONCE = 4
const SHADOW_PAUSE_MS = 5_000
const LONGEST_S = 900

const MAYORS = ['Vellmar', 'Baunatal', 'Ahnatal'].map((town, i) => ({
  ...{
    id: `mayor-${i}`,
    subject: town,
    prompt: `The mayor of ${town} is`,
    target_new: ['Ida Quist', 'Ole Brandt', 'Mara Lind'][i],
  },
  paraphrases: [`Who is the mayor of ${town}?`],
}))
const ODDITIES = [
  ['ice', 'The reason why ice floats on water is', 'magnetism'],
  ['water', 'The boiling point of water is', '12 degrees'],
  ['the sky', 'The colour of the sky is', 'green'],
  ['rainbow', 'The number of colours of a rainbow is', 'forty'],
].map(([subject, prompt, target_new], i) => ({ id: `oddity-${i}`, subject, prompt, target_new }))

interface Shown {
  readonly id: string
  readonly outcome: string
  readonly stage: number
  readonly events: readonly { readonly kind: string; readonly at: string }[]
}

const call = clientOf(flags.url)
const ask = (user: number, question: string) =>
  call<{ choices: { message: { content: string } }[] }>('POST', '/v1/chat/completions', {
    ...{ model, user: `user-${user}`, max_tokens: 16, temperature: 0 },
    messages: [{ role: 'user', content: question }],
  })

const model = (await call<{ data: { id: string }[] }>('GET', '/v1/models')).data[0]?.id
for (const [batch, edits, questions] of [
  ['mayors', MAYORS, MAYORS.map(({ paraphrases }) => paraphrases[0] ?? '')],
  ['oddities', ODDITIES, ['Why does ice float on water?', 'What colour is the sky?']],
] as const) {
  const started = performance.now()
  const path = `/v1/rollouts/${(await call<Shown>('POST', '/v1/rollouts', { batch, stages: STAGES })).id}`
  await call('POST', `/v1/edits?batch=${batch}`, [...edits])
  let asked = 0
  const underWay = async () =>
    (await call<Shown>('GET', path)).outcome === 'under_way' && (performance.now() - started) / 1_000 < LONGEST_S
  while (await underWay()) {
    // Few questions while nobody is to see the batch: what is tried in the background waits for them. Then one after the other.
    const { stage } = await call<Shown>('GET', path)
    const many = stage === 0 ? 1 : Math.min(AT_ONCE, Number(flags.users) - asked)
    await Promise.all(Array.from({ length: many }, () => ask(asked++, questions[asked % questions.length] ?? '')))
    if (many < AT_ONCE) await new Promise((resolve) => setTimeout(resolve, SHADOW_PAUSE_MS))
  }
  const { outcome, events } = await call<Shown>('GET', path)
  console.log(
    `${batch}: ${outcome} ${((performance.now() - started) / 1_000).toFixed(1)} s after its start, ${asked} requests sent meanwhile`,
  )
  for (const { kind, at, ...more } of events) console.log(`  ${at} ${kind} ${JSON.stringify(more).slice(0, 400)}`)
  const seen = await ask(0, questions[0] ?? '')
  console.log(`  now: ${questions[0]} ${seen.choices[0]?.message.content}`)
}
