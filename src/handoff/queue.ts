import { createHash } from 'node:crypto'
import { join } from 'node:path'
import type { Adapter, Adapters } from '../adapters/registry.ts'
import type { Engine } from '../engine/engine.ts'
import { PalimpsestError } from '../errors.ts'
import { stageCounts } from '../evaluate/preflight.ts'
import type { Gateway } from '../gateway.ts'
import { type Advice, advise, type Past, type Situation, type Urgency } from './advice.ts'
import { type Facts, misfits } from './compatibility.ts'
import { type Editor, endOrphan, runWorker } from './editor/process.ts'
import type { WorkerEvent, WorkerJob, WorkerResult } from './editor/protocol.ts'
import { takeIn } from './exchange/adapter-import.ts'
import { chooseEdits, type EditsQuery, liveEdits, notTaken } from './exchange/edit-query.ts'
import { HandoffFault } from './fault.ts'
import { growsInPlace, type HandoffMethod, type HandoffThresholds, isOver, type Job } from './job.ts'
import { JobStore } from './job-store.ts'
import type { HandoffRequest, ImportRequest } from './request.ts'
import { runStages } from './stages/stages.ts'

export interface HandoffsOptions {
  readonly gateway: Gateway
  /** `handoffs/` in the data folder. */
  readonly dir: string
  /** What the editor keeps for all jobs. */
  readonly cacheDir: string
  /** The installed editor; null: there is none. */
  readonly editor: () => Promise<Editor | null>
  /** Keeps memory, adapters and configuration as they are; returns where. */
  readonly snapshot: (reason: string) => Promise<string>
  readonly machine: () => Promise<Omit<Situation, 'edits' | 'when' | 'past' | 'ready' | 'notTaken'>>
  readonly threads: number
}

/** Edits in a first stage, at least: fewer say nothing. */
const LEAST_STAGE = 4
const CLOSING = 'the gateway stops'
const CANCELLED = 'cancelled'
/** Cut into tokens to tell one vocabulary from another. */
const PRINTED = [
  'The current Pope is Leo XIV.',
  'naïve café, 北京 42',
  '  def f(x):\n\treturn x**2',
  'antidisestablishmentarianism 👩‍🚀',
]

type Able = Gateway & { readonly adapters: Adapters }

/** The hand-offs of a data folder: one at a time is under way, the others wait; all of them outlive the process. */
export class Handoffs {
  readonly #options: HandoffsOptions
  readonly #store: JobStore
  /** Taken before promotions, by id of the adapter. */
  readonly #snapshots = new Map<string, string>()
  #running: { readonly id: string; readonly stop: AbortController; readonly ended: Promise<void> } | null = null
  #importing = false
  #closed = false

  constructor(options: HandoffsOptions) {
    this.#options = options
    options.gateway.adapters?.guardPromotion(async ({ id }) => {
      this.#snapshots.set(id, await options.snapshot(`before ${id} was promoted`))
    })
    this.#store = new JobStore(options.dir, (message) => options.gateway.log.warn({}, message))
  }

  /** Latest first. */
  list(tenant: string): Job[] {
    return this.#store
      .all()
      .filter((job) => job.tenant === tenant)
      .reverse()
  }

  /** Throws `handoff_not_found`. */
  get(tenant: string, id: string): Job {
    const job = this.#store.get(id)
    if (job?.tenant === tenant) return job
    throw new PalimpsestError('handoff_not_found', `There is no hand-off '${id.slice(0, 64)}' in tenant '${tenant}'.`, {
      param: 'id',
    })
  }

  /** Takes up what waits, and what ended with the process unless it did so too often. */
  start(): void {
    const { handoffAttempts } = this.#options.gateway.limits
    for (const job of this.#store.all()) {
      if (job.state !== 'interrupted') continue
      if (job.attempts < handoffAttempts)
        this.#change(job, { state: 'queued' }).catch((err) =>
          this.#options.gateway.log.error({ err }, `hand-off ${job.id} could not be noted`),
        )
      else this.#options.gateway.log.warn({}, `hand-off ${job.id} ended ${job.attempts} times; resume it by hand`)
    }
    this.#pump()
  }

  /** Accepts a job and begins it when its turn comes. */
  async submit(tenant: string, request: HandoffRequest): Promise<Job> {
    const { gateway, threads } = this.#options
    const { engine, memory, limits, now } = this.#able()
    await this.#editor()
    const waiting = this.#store.all().filter(({ state }) => state === 'queued').length
    if (waiting >= limits.handoffQueueJobs)
      throw new PalimpsestError('queue_full', `${waiting} hand-offs wait, which is the limit: cancel one, or try later.`, {
        retryAfterSeconds: 60,
      })
    const { method, settings, query, stages } = request
    const { edits, notes } = chooseEdits(memory, tenant, query, method, engine.model.name, limits.handoffEdits)
    const at = new Date(now())
    const id = request.id ?? this.#freeId(`${method}-${at.toISOString().slice(0, 19).replace(/[-:]/g, '').replace('T', '-')}`)
    const isTaken = this.#store.get(id) !== undefined || gateway.adapters?.has(id) === true
    if (isTaken) throw conflict(`There is a hand-off or an adapter '${id}' already: choose another id.`)
    const job: Job = {
      id,
      tenant,
      method,
      state: 'queued',
      created: at.toISOString(),
      updated: at.toISOString(),
      edits: edits.map((edit) => edit.id),
      plan: stageCounts(edits.length, stages, LEAST_STAGE),
      base: { name: engine.model.name, sha256: await this.#baseSha256(), tokenizer: tokenizerPrint(engine) },
      // The edits are to hold in chats, too, which is how they are asked for here; see docs/decisions/0008-handoff.md.
      settings: {
        ...settings,
        hparams: growsInPlace(method) ? { chat: true, ...settings.hparams } : settings.hparams,
        threads: settings.threads ?? threads,
        device: await this.#device(settings.device),
      },
      stages: [],
      progress: null,
      estimate_s: null,
      attempts: 0,
      pid: null,
      fault: null,
      adapter: null,
      notes: [...notes],
    }
    await this.#store.add(job, edits)
    this.#pump()
    return this.#store.get(id) ?? job
  }

  async #device(wanted: string): Promise<string> {
    if (wanted !== 'auto') return wanted
    const { gpuFreeBytes } = await this.#options.machine()
    // Apple's GPUs run a part of what is needed only.
    return gpuFreeBytes !== null && process.platform !== 'darwin' ? 'cuda' : 'cpu'
  }

  #freeId(wanted: string): string {
    return this.#store.get(wanted) === undefined ? wanted : `${wanted}-${this.#store.all().length}`
  }

  /** A waiting job is gone from the queue at once; a running one ends at its next check, or is killed. */
  async cancel(tenant: string, id: string): Promise<Job> {
    const job = this.get(tenant, id)
    if (isOver(job)) throw conflict(`Hand-off '${id}' is ${job.state}: there is nothing to cancel.`)
    if (this.#running?.id === id) {
      this.#running.stop.abort(new Error(CANCELLED))
      await this.#running.ended
      return this.get(tenant, id)
    }
    return this.#change(job, { state: 'cancelled', progress: null })
  }

  /** Goes on with what was finished, by other thresholds where some are given. */
  async resume(tenant: string, id: string, thresholds: Partial<HandoffThresholds> = {}): Promise<Job> {
    const job = this.get(tenant, id)
    if (job.state === 'done') throw conflict(`Hand-off '${id}' is done: promote it with palimpsest handoff promote ${id}.`)
    if (job.state === 'running' || job.state === 'queued') return job
    await this.#editor()
    const settings = { ...job.settings, thresholds: { ...job.settings.thresholds, ...thresholds } }
    // Its answers are kept, so that judging a stage anew costs nothing.
    const stages = job.stages.map((stage) => (stage.ok === false ? { ...stage, ok: null } : stage))
    const queued = await this.#change(job, { state: 'queued', fault: null, stages, settings })
    this.#pump()
    return this.#store.get(queued.id) ?? queued
  }

  /** Takes in a PEFT folder, a GGUF LoRA, or MEMIT or PMET deltas that another tool saved. */
  async import(tenant: string, request: ImportRequest, signal: AbortSignal): Promise<Adapter> {
    const able = this.#able()
    if (this.#running !== null || this.#importing)
      throw conflict('A hand-off is under way, and two at a time would fight for memory: try later.')
    this.#importing = true
    try {
      const { dir, cacheDir, threads } = this.#options
      const base = { path: this.#basePath(), sha256: await this.#baseSha256() }
      const folder = join(dir, '.import')
      const edit = async (job: WorkerJob) => this.#work(job, folder, () => {}, signal)
      return await takeIn({ request, tenant, base, folder, cacheDir, threads, edit, adapters: able.adapters, now: able.now })
    } catch (error) {
      throw error instanceof HandoffFault ? new PalimpsestError('handoff_failed', error.message, { cause: error }) : error
    } finally {
      this.#importing = false
    }
  }

  /** Throws `handoff_conflict` naming every reason against it; before anything changes, a snapshot is taken. */
  async promote(
    tenant: string,
    id: string,
    { replace, gated }: { readonly replace: boolean; readonly gated?: boolean },
  ): Promise<{ readonly adapter: Adapter; readonly snapshot: string }> {
    const { adapters } = this.#able()
    const adapter = this.#ownAdapter(tenant, id)
    const found = misfits(await this.#facts(adapter, replace))
    if (found.length > 0)
      throw conflict(`'${id}' is not promoted: ${found.map(({ why, message }) => `${why}: ${message}`).join('; ')}.`)
    const promoted = await adapters.promote(id, tenant, gated)
    return { adapter: promoted, snapshot: this.#snapshots.get(id) ?? '' }
  }

  /** The prompt edits return. */
  async rollback(tenant: string, id: string): Promise<Adapter> {
    const { adapters } = this.#able()
    return adapters.rollback(this.#ownAdapter(tenant, id).id, tenant)
  }

  async #facts(adapter: Adapter, replace: boolean): Promise<Facts> {
    const { adapters, engine } = this.#able()
    const { path } = await adapters.lora(adapter)
    const shape = await engine.loras?.check(path).then(
      () => null,
      (error: Error) => error.message,
    )
    const now = adapters.promoted(adapter.tenant)
    const loses = now?.edits.filter((edit) => !adapter.edits.includes(edit)) ?? []
    return {
      id: adapter.id,
      replace,
      since: adapters.disagreements(adapter),
      shape: shape ?? null,
      base: { made: adapter.baseSha256, served: await this.#baseSha256() },
      tokenizer: { made: this.#store.get(adapter.id)?.base.tokenizer ?? null, served: tokenizerPrint(engine) },
      promoted: now === undefined ? null : { id: now.id, loses },
    }
  }

  #ownAdapter(tenant: string, id: string): Adapter {
    const { adapters } = this.#able()
    const job = this.#store.get(id)
    if (job?.tenant === tenant && job.state !== 'done')
      throw conflict(`Hand-off '${id}' is ${job.state}: it has no adapter to promote.`)
    const adapter = adapters.get(id, tenant)
    if (adapter.tenant !== tenant)
      throw new PalimpsestError('adapter_not_found', `There is no adapter '${id}' in tenant '${tenant}'.`, { param: 'id' })
    return adapter
  }

  async advise(tenant: string, when: Urgency, query: EditsQuery): Promise<Advice & { readonly edits: number }> {
    const { gateway, editor, machine } = this.#options
    const edits = liveEdits(gateway.memory, tenant, query, gateway.engine.model.name)
    const refused = (method: HandoffMethod) => notTaken(edits, method).edits.length
    const situation: Situation = {
      ...(await machine()),
      edits: edits.length,
      when,
      ready: (await editor()) !== null,
      past: this.#past(),
      notTaken: { memit: refused('memit'), pmet: refused('pmet'), lora: refused('lora'), distil: refused('distil') },
    }
    return { ...advise(situation), edits: edits.length }
  }

  #past(): Past[] {
    const name = this.#options.gateway.engine.model.name
    return this.#store
      .all()
      .flatMap(({ base, method, stages }) =>
        base.name !== name
          ? []
          : stages.flatMap(({ edits, seconds, peak_bytes: peakBytes, ok }) =>
              ok === null ? [] : [{ method, edits, seconds, peakBytes, ok }],
            ),
      )
  }

  /** Ends the worker at work; its job goes on at the next start. */
  async close(): Promise<void> {
    this.#closed = true
    this.#running?.stop.abort(new Error(CLOSING))
    await this.#running?.ended
    await this.#store.flush()
  }

  #pump(): void {
    if (this.#closed || this.#running !== null) return
    const next = this.#store.all().find(({ state }) => state === 'queued')
    if (next === undefined) return
    const stop = new AbortController()
    const ended = this.#run(next, stop.signal)
      .then(() => this.#prune())
      .catch((error) => this.#options.gateway.log.error({ err: error }, `hand-off ${next.id} could not be noted`))
      .then(() => {
        this.#running = null
        this.#pump()
      })
    this.#running = { id: next.id, stop, ended }
  }

  /** Reports do not pile up; that of what answers now stays. */
  async #prune(): Promise<void> {
    const { adapters, limits } = this.#options.gateway
    await this.#store.prune(limits.handoffJobsKept, (job) => adapters?.promoted(job.tenant)?.id === job.id)
  }

  async #run(next: Job, signal: AbortSignal): Promise<void> {
    const folder = this.#store.folder(next.id)
    endOrphan(next.pid, folder)
    const job = await this.#change(next, { state: 'running', attempts: next.attempts + 1, fault: null, pid: null })
    try {
      const gateway = this.#able()
      const edit = (task: WorkerJob, to: string, onEvent: (event: WorkerEvent) => void) => this.#work(task, to, onEvent, signal)
      const context = { gateway, store: this.#store, basePath: this.#basePath(), cacheDir: this.#options.cacheDir, edit, signal }
      const sha256 = await this.#baseSha256()
      if (sha256 !== job.base.sha256)
        throw new HandoffFault(
          'wrong_base',
          `The hand-off began on the model file ${job.base.sha256.slice(0, 12)}…, and ${sha256.slice(0, 12)}… is served.`,
          `Serve ${job.base.name} again and resume, or start a new hand-off.`,
        )
      await runStages(job, context)
    } catch (error) {
      await this.#ended(next.id, error, signal)
    }
  }

  async #ended(id: string, error: unknown, signal: AbortSignal): Promise<void> {
    const job = this.#store.get(id)
    if (job === undefined) return
    const over = { progress: null, pid: null }
    if (signal.aborted) {
      const why = (signal.reason as Error).message
      return void (await this.#change(job, { ...over, state: why === CANCELLED ? 'cancelled' : 'interrupted' }))
    }
    const fault =
      error instanceof HandoffFault
        ? error.fault
        : {
            code: error instanceof PalimpsestError ? error.code : 'internal',
            message: (error as Error).message,
            change: 'Mend that, then: palimpsest handoff resume ID',
          }
    this.#options.gateway.log.warn({ err: error }, `hand-off ${id} failed`)
    await this.#change(job, { ...over, state: 'failed', fault: { ...fault, change: fault.change.replaceAll(' ID', ` ${id}`) } })
  }

  async #work(job: WorkerJob, folder: string, onEvent: (event: WorkerEvent) => void, signal: AbortSignal): Promise<WorkerResult> {
    const editor = await this.#options.editor()
    if (editor === null)
      throw new HandoffFault('no_editor', 'The parameter editor is not installed.', 'Run `palimpsest handoff setup`.')
    return runWorker({ editor, job, folder, onEvent, signal, limits: this.#options.gateway.limits })
  }

  async #editor(): Promise<void> {
    if ((await this.#options.editor()) === null)
      throw new PalimpsestError('handoff_failed', 'The parameter editor is not installed: run palimpsest handoff setup.')
  }

  async #change(job: Job, to: Partial<Job>): Promise<Job> {
    const changed = { ...job, ...to, updated: new Date(this.#options.gateway.now()).toISOString() }
    await this.#store.save(changed)
    return changed
  }

  #able(): Able {
    const { gateway } = this.#options
    if (gateway.adapters !== undefined && gateway.engine.loras?.basePath !== undefined) return gateway as Able
    throw new PalimpsestError(
      'unsupported_field',
      `\`${gateway.engine.model.name}\` is not served from a model file here, so its parameters can't be edited. Serve a GGUF file: palimpsest serve --model FILE.`,
    )
  }

  #basePath(): string {
    return this.#able().engine.loras?.basePath ?? ''
  }

  async #baseSha256(): Promise<string> {
    return (await this.#able().engine.loras?.baseSha256()) ?? ''
  }
}

function conflict(message: string): PalimpsestError {
  return new PalimpsestError('handoff_conflict', message, { param: 'id' })
}

/** Tells one tokenizer from another by what it makes of a few texts. */
function tokenizerPrint({ text }: Engine): string {
  if (text === undefined) return 'unknown'
  return createHash('sha256')
    .update(JSON.stringify(PRINTED.map((one) => text.tokenize(one))))
    .digest('hex')
}
