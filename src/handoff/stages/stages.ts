import { createReadStream, existsSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import type { Adapter, Adapters } from '../../adapters/registry.ts'
import type { Edit } from '../../edit/edit.ts'
import { type DataRecord, readDatasetFile } from '../../evaluate/data/dataset.ts'
import type { Probe } from '../../evaluate/data/probe.ts'
import { settleScope } from '../../evaluate/data/scope.ts'
import { openAnswers } from '../../evaluate/protocols/answers.ts'
import type { Gateway } from '../../gateway.ts'
import type { WorkerOutcome } from '../editor/process.ts'
import type { WorkerEdit, WorkerEvent, WorkerJob, WorkerResult } from '../editor/protocol.ts'
import { subjectIn } from '../exchange/edit-query.ts'
import { HandoffFault, stopReason } from '../fault.ts'
import { growsInPlace, type Job, type Measure, type Stage } from '../job.ts'
import type { JobStore } from '../job-store.ts'
import { assess } from './assess.ts'
import { judge } from './judge.ts'
import { cloze, split } from './messages.ts'
import { probesOf, stillPrompts } from './probes.ts'
import { taughtAnswers, transferSet } from './transfer.ts'

export interface StageContext {
  readonly gateway: Gateway & { readonly adapters: Adapters }
  readonly store: JobStore
  readonly basePath: string
  /** What the editor keeps for all jobs: the dequantised model, statistics. */
  readonly cacheDir: string
  /** What `auto` means on this machine. */
  readonly device: (wanted: string) => Promise<string>
  readonly edit: (job: WorkerJob, folder: string, onEvent: (event: WorkerEvent) => void) => Promise<WorkerOutcome>
  readonly signal: AbortSignal
}

/** Between two writes of a job's progress to the disk. */
const SAVED_EVERY_MS = 2_000

/**
 * All stages of one job: stage after stage made, registered, evaluated; at the first that breaks a threshold all of it is taken back. What
 * an earlier attempt finished is taken over. Throws HandoffFault, or the signal's reason.
 */
export async function runStages(job: Job, context: StageContext): Promise<Job> {
  const run = new StageRun(job, context)
  try {
    return await run.run()
  } finally {
    // What another gateway took up is its own to clear away.
    if (stopReason(context.signal) !== 'lost') await run.forget()
  }
}

class StageRun {
  readonly #context: StageContext
  readonly #edits: readonly Edit[]
  readonly #folder: string
  #job: Job
  #savedAt = 0

  constructor(job: Job, context: StageContext) {
    this.#job = job
    this.#context = context
    this.#edits = context.store.edits(job.id)
    this.#folder = context.store.folder(job.id)
  }

  async run(): Promise<Job> {
    const { plan, settings } = this.#job
    const records = settings.data === null ? [] : readDatasetFile(settings.data, 'auto').records
    for (const [index, count] of plan.entries()) {
      const stage = this.#job.stages[index] ?? (await this.#make(index, count))
      if (stage.ok === true && index < plan.length - 1) continue
      const last = index === plan.length - 1
      const adapter = await this.#register(stage, last ? this.#job.id : this.#partId(index))
      const judged = stage.ok === null ? await this.#assess(index, stage, adapter, records) : stage
      if (!judged.ok) return this.#takeBack(adapter, judged)
    }
    await this.#forgetParts()
    await forgetWork(this.#context.store, this.#job)
    return this.#save({ state: 'done', adapter: this.#job.id, progress: null, pid: null })
  }

  /** Of an attempt that did not come to its end, nothing stays served. */
  async forget(): Promise<void> {
    await this.#forgetParts()
    if (this.#job.state !== 'done') await this.#remove((id) => id === this.#job.id)
  }

  /** What only the stages themselves needed to be served. */
  #forgetParts(): Promise<void> {
    return this.#remove((id) => this.#job.plan.some((_, index) => id === this.#partId(index)))
  }

  async #remove(isMeant: (id: string) => boolean): Promise<void> {
    const { adapters } = this.#context.gateway
    const { tenant } = this.#job
    const own = adapters.list(tenant).filter((one) => isMeant(one.id) && this.#isOwn(one))
    for (const { id } of own) await adapters.remove(id, tenant).catch(() => {})
  }

  /** Whether this job registered it, in this attempt or another. */
  #isOwn({ tenant, method, created }: Adapter): boolean {
    return tenant === this.#job.tenant && method === this.#job.method && created === Date.parse(this.#job.created)
  }

  #partId(index: number): string {
    return `${this.#job.id}.stage${index + 1}`
  }

  /** The adapter that holds the first `count` edits. */
  async #make(index: number, count: number): Promise<Stage> {
    const { method, plan, stages } = this.#job
    const before = stages[index - 1]
    const onTop = growsInPlace(method) && before !== undefined
    const done = onTop ? (plan[index - 1] ?? 0) : 0
    const own = this.#edits.slice(done, count)
    const kept = method === 'alphaedit' && onTop ? { kept: this.#edits.slice(0, done).map(workerEdit) } : {}
    const earlier = onTop ? [{ path: join(this.#folder, before.file), scale: 1 }] : []
    const made = await this.#work(index, 'edit', { ...(await this.#task(own)), ...kept, method, adapters: earlier })
    const whole =
      earlier.length === 0
        ? made
        : await this.#work(index, 'merge', {
            task: 'merge',
            adapters: [...earlier, { path: adapterOf(made.result).gguf, scale: 1 }],
          })
    const { gguf, sha256, bytes, rank } = adapterOf(whole.result)
    const works = [...new Set([made, whole])]
    const stage: Stage = {
      edits: count,
      file: relative(this.#folder, gguf),
      sha256,
      bytes,
      rank,
      measures: [],
      failures: [],
      ok: null,
      seconds: works.reduce((sum, { result }) => sum + result.seconds, 0),
      paused_s: Math.round(works.reduce((sum, { pausedSeconds }) => sum + pausedSeconds, 0)),
      peak_bytes: Math.max(...works.map(({ result }) => result.peak_bytes)),
    }
    await this.#save({ stages: [...stages, stage], pid: null })
    return stage
  }

  async #task(edits: readonly Edit[]): Promise<Pick<WorkerJob, 'task' | 'edits' | 'transfer' | 'locality'>> {
    const { method, settings } = this.#job
    const { gateway, signal } = this.#context
    const task = { task: 'edit' as const, edits: edits.map(workerEdit) }
    if (growsInPlace(method)) return task
    const still = stillPrompts(this.#others(), settings.seed, edits)
    const locality = still.map((question) => ({ question }))
    // LoRA learns facts by their targets; what has none, by what the model answers that is told it.
    const taught = method === 'lora' ? edits.filter(({ kind }) => kind !== undefined) : edits
    if (taught.length === 0) return { ...task, locality }
    const lines = await transferSet(taught, edits, gateway, signal)
    // The log of what the teacher was shown.
    await writeFile(join(this.#folder, 'transfer.jsonl'), lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
    return { ...task, locality, transfer: lines.map(({ edited_text: _, plain_text: __, ...record }) => record) }
  }

  async #work(index: number, what: string, given: Partial<WorkerJob> & Pick<WorkerJob, 'task'>): Promise<WorkerOutcome> {
    const { base, settings } = this.#job
    const { basePath, cacheDir, device: deviceOf, edit } = this.#context
    const folder = join(this.#folder, `stage-${index + 1}-${what}`)
    const { device, dtype, threads, seed, hparams, statistics, memory_bytes: memoryBytes } = settings
    const job: WorkerJob = {
      base: { path: basePath, sha256: base.sha256 },
      work_dir: join(folder, 'work'),
      out_dir: join(folder, 'out'),
      cache_dir: cacheDir,
      hparams,
      statistics,
      device: await deviceOf(device),
      dtype,
      threads,
      seed,
      limits: memoryBytes === null ? {} : { memory_bytes: memoryBytes },
      export: { name: 'adapter' },
      ...given,
    }
    return edit(job, folder, (event) => this.#heard(index, event))
  }

  #heard(index: number, event: WorkerEvent): void {
    switch (event.event) {
      case 'started':
        this.#note({ pid: event.pid })
        return
      case 'plan':
        this.#note({ estimate_s: event.estimate_s })
        return
      case 'progress':
        this.#at(index, event.stage, event.done, event.of, event.estimate_s ?? null)
        return
      case 'note':
        this.#note({ notes: [...this.#job.notes, event.message] })
        return
      case 'result':
      case 'error':
        return
      default:
        event satisfies never
    }
  }

  #at(index: number, phase: string, done: number, of: number, left: number | null): void {
    const progress = { stage: index + 1, phase, done, of, seconds_left: left }
    const now = this.#context.gateway.now()
    this.#job = { ...this.#job, progress }
    this.#context.store.show(this.#job)
    if (now - this.#savedAt < SAVED_EVERY_MS) return
    this.#savedAt = now
    this.#note({ progress })
  }

  async #register(stage: Stage, id: string): Promise<Adapter> {
    const { adapters } = this.#context.gateway
    const held = adapters.list(this.#job.tenant).find((one) => one.id === id)
    if (held?.sha256 === stage.sha256) return held
    // Left by a gateway that ended under the job; somebody else's is a conflict.
    if (held !== undefined && this.#isOwn(held)) await adapters.remove(id, held.tenant)
    const file = join(this.#folder, stage.file)
    if (!existsSync(file)) throw new HandoffFault('lost', `${file} is gone.`, 'Start the hand-off again.')
    const { tenant, base, method, edits, created } = this.#job
    return adapters.register(createReadStream(file), {
      id,
      tenant,
      baseSha256: base.sha256,
      method,
      edits: edits.slice(0, stage.edits),
      created: Date.parse(created),
      scale: 1,
    })
  }

  async #assess(index: number, stage: Stage, adapter: Adapter, records: readonly DataRecord[]): Promise<Stage> {
    const { gateway, signal } = this.#context
    const { settings } = this.#job
    await gateway.adapters.load(adapter.id, adapter.tenant)
    const edits = this.#edits.slice(0, stage.edits)
    const probes = await this.#probes(edits, records)
    const answers = openAnswers(join(this.#folder, 'answers.jsonl'), true)
    const began = gateway.now()
    const tick = (done: number, of: number) => {
      const left = done === 0 ? null : ((gateway.now() - began) / 1_000 / done) * (of - done)
      this.#at(index, 'evaluate', done, of, left)
    }
    const outcomes = await assess({ gateway, adapter, probes, answers, settings, tick, signal })
    const told = await taughtAnswers(probes, edits, gateway, settings, signal)
    const { measures, failures } = judge(outcomes, settings.thresholds, told)
    const judged: Stage = { ...stage, measures, failures, ok: measures.every(({ ok }) => ok) }
    const open = measures.filter(({ decided }) => !decided).map(against)
    const note = `With ${stage.edits} edits, too little was asked to tell whether these hold, so they stop nothing: ${open.join('; ')}`
    const notes = open.length === 0 || this.#job.notes.includes(note) ? this.#job.notes : [...this.#job.notes, note]
    await this.#save({ notes, stages: this.#job.stages.map((one, i) => (i === index ? judged : one)) })
    return judged
  }

  /** A neighbour that another edit of the adapter is about is none (src/evaluate/data/scope.ts): it is not asked. */
  async #probes(edits: readonly Edit[], records: readonly DataRecord[]): Promise<readonly Probe[]> {
    const { embedder } = this.#context.gateway
    const drawn = probesOf({ edits, others: this.#others(), records, settings: this.#job.settings })
    if (embedder === undefined) return drawn
    const byIndex = new Map(records.map((record) => [record.index, record]))
    // A scope is told by subjects: what has none is asked as it is.
    const held = edits.flatMap((edit, seq) => (edit.kind === undefined && edit.subject.trim() !== '' ? [{ edit, seq }] : []))
    const { probes } = await settleScope(drawn, byIndex, held, embedder)
    return probes.filter(({ kind }) => kind !== 'in_scope_neighbour')
  }

  #others(): Edit[] {
    const held = new Set(this.#job.edits)
    const live = this.#context.gateway.memory
      .all(this.#job.tenant)
      .filter(({ edit, state }) => state === 'live' && !held.has(edit.id))
    return live.map(({ edit }) => edit)
  }

  async #takeBack({ id, tenant }: Adapter, { measures, edits }: Stage): Promise<Job> {
    await this.#context.gateway.adapters.remove(id, tenant)
    await this.#forgetParts()
    const broken = measures.filter(({ ok }) => !ok).map(against)
    const fault = {
      code: 'threshold',
      message: `With ${edits} edits: ${broken.join('; ')}. What had been made is taken back.`,
      change:
        'See the answers that failed; hand off fewer edits, take another method or other --hparams, or loosen the threshold.',
    }
    return this.#save({ state: 'stopped', fault, progress: null, pid: null })
  }

  /** Nobody waits for it; a disk that takes nothing any more is told by the next that somebody waits for. */
  #note(to: Partial<Job>): void {
    this.#save(to).catch(() => {})
  }

  async #save(to: Partial<Job>): Promise<Job> {
    this.#job = { ...this.#job, ...to, updated: new Date(this.#context.gateway.now()).toISOString() }
    await this.#context.store.save(this.#job)
    return this.#job
  }
}

function against({ name, value, low, high, least }: Measure): string {
  const interval = low === null || high === null ? '' : ` (${shown(low)} to ${shown(high)})`
  return `${name} ${shown(value)}${interval}, at least ${shown(least)}`
}

function shown(value: number | null): string {
  return value === null ? '–' : value > 1 ? value.toFixed(1) : value.toFixed(3)
}

function adapterOf({ adapter }: WorkerResult) {
  if (adapter !== undefined) return adapter
  throw new HandoffFault('malformed_event', 'The editor ended with a result and no adapter.', 'Run `palimpsest handoff setup`.')
}

export function workerEdit(edit: Edit): WorkerEdit {
  const { id, kind, targetTrue, paraphrases, examples, always } = edit
  const { prompt, targetNew } = kind === 'sentence' ? cloze(edit.prompt) : edit
  return {
    // Another wording of a sentence or a rule is no prompt that its rest completes.
    id,
    prompt,
    target_new: targetNew,
    paraphrases: kind === undefined ? paraphrases : [],
    subject: kind === 'rule' ? '' : (subjectIn({ ...edit, prompt }) ?? ''),
    ...(kind !== undefined && { kind }),
    ...(targetTrue !== undefined && { target_true: targetTrue }),
    ...(examples !== undefined && { examples: kind === undefined ? examples : split(examples).taught }),
    ...(always && { always }),
  }
}

/** Frees what a job worked with; its report and its adapter stay. */
async function forgetWork(store: JobStore, { id, plan }: Job): Promise<void> {
  for (const [index] of plan.entries())
    for (const what of ['edit', 'merge'])
      await rm(join(store.folder(id), `stage-${index + 1}-${what}`, 'work'), { recursive: true, force: true })
}
