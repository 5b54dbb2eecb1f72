#!/usr/bin/env node
// Speaks the parameter editor's protocol without any model. Its "adapter" is a list of what was edited; `hparams.act` says what goes wrong.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

const job = JSON.parse(readFileSync(process.argv.at(-1), 'utf8'))
const { act = 'work', ms = 0, forget = [] } = job.hparams ?? {}
const say = (event, fields = {}) => process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`)
let stopped = false
process.on('SIGTERM', () => {
  if (act !== 'deaf') stopped = true
})
function end(code, status, message, change) {
  say('error', { code, message, change })
  process.exit(status)
}

say('started', { protocol: act === 'other_protocol' ? 2 : 1, version: '0.1.0', pid: process.pid })
if (act === 'malformed') process.stdout.write('Loading weights: 50%\n')
if (act === 'odd_event') say('progress', { stage: 'targets', done: 'three', of: 4 })
if (act === 'long') process.stdout.write('x'.repeat(200_000))
if (act === 'silent' || act === 'malformed' || act === 'odd_event' || act === 'long') await sleep(60_000)
if (act === 'crash') {
  process.stderr.write('Traceback\nSegmentation fault in the tensor library\n')
  process.exit(139)
}
if (act === 'killed') process.kill(process.pid, 'SIGKILL')
if (act === 'wrong_base')
  end('wrong_base', 3, 'model.gguf has sha256 b…, the job was made for a…', 'Edit the model that is being served')
if (act === 'nan') end('nan', 5, 'The targets of 2 edits are not finite', 'Lower hparams.lr, or give dtype float32')
if (act === 'memory')
  end('memory', 4, '10.2 GB in use, the limit is 10.0 GB', 'Raise limits.memory_bytes, or give dtype bfloat16')

say('plan', { estimate_s: 12.5, stages: [] })
mkdirSync(job.work_dir, { recursive: true })
mkdirSync(job.out_dir, { recursive: true })
const path = join(job.work_dir, 'pieces.json')
const pieces = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : []
const edits = job.edits ?? []
for (let done = pieces.length; done < edits.length; done++) {
  say('progress', { stage: 'targets', done, of: edits.length, seconds: 1, estimate_s: null })
  await sleep(ms)
  if (stopped) end('cancelled', 7, 'Stopped by a signal; what was finished is kept', 'Start the same job again to go on')
  pieces.push({ prompt: edits[done].prompt, paraphrases: edits[done].paraphrases, target: edits[done].target_new })
  writeFileSync(path, JSON.stringify(pieces))
  if (act === 'dies_once' && done === 1 && !existsSync(`${path}.died`)) {
    writeFileSync(`${path}.died`, '')
    process.kill(process.pid, 'SIGKILL')
  }
}
const before = job.task === 'merge' ? (job.adapters ?? []).flatMap((one) => JSON.parse(readFileSync(one.path, 'utf8'))) : []
const made = [...before, ...pieces].filter(({ prompt }) => !forget.includes(prompt))
const imported = job.task === 'import' ? [{ prompt: 'imported', paraphrases: [], target: job.source }] : []
const text = JSON.stringify([...made, ...imported])
const gguf = join(job.out_dir, `${job.export.name}.gguf`)
writeFileSync(gguf, text)
const sha256 = createHash('sha256').update(text).digest('hex')
say('note', { code: 'stand_in', message: `made by the stand-in, task ${job.task}` })
say('result', {
  seconds: 2,
  peak_bytes: 1e9,
  adapter: { gguf, peft: '', sha256, bytes: text.length, rank: Math.max(1, edits.length), left_out: 0 },
})
