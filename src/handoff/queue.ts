import { join } from 'node:path'
import type { Adapter, Adapters } from '../adapters/registry.ts'
import { PalimpsestError } from '../errors.ts'
import { stageCounts } from '../evaluate/preflight.ts'
import type { Gateway } from '../gateway.ts'
import { type Advice, advise, pastOf, type Situation, type Urgency } from './advice.ts'
import { misfits, tokenizerPrint } from './compatibility.ts'
import { type Editor, endOrphan, runWorker, type WorkerOutcome } from './editor/process.ts'
import type { WorkerEvent, WorkerJob } from './editor/protocol.ts'
import { takeIn } from './exchange/adapter-import.ts'
import { chooseEdits, type EditsQuery, liveEdits, notTaken } from './exchange/edit-query.ts'
import { conflict, HandoffFault, notFound, Stopped, stopReason } from './fault.ts'
import { growsInPlace, type HandoffMethod, type HandoffThresholds, isOver, type Job } from './job.ts'
import type { JobStore } from './job-store.ts'
import { factsOf, ownAdapter } from './promotion.ts'
import type { HandoffRequest, ImportRequest } from './request.ts'
import { runStages } from './stages/stages.ts'

export interface HandoffsOptions {
  readonly gateway: Gateway
  readonly store: JobStore
  /** What the editor keeps for all jobs. */
  readonly cacheDir: string
  /** The installed editor; null: there is none. */
  readonly editor: () => Promise<Editor | null>
  /** Keeps memory, adapters and configuration as they are; returns where. Empty: they are in a database, whose own backups keep them. */
  readonly snapshot: (reason: string) => Promise<string>
  readonly machine: () => Promise<Omit<Situation, 'edits' | 'when' | 'past' | 'ready' | 'notTaken'>>
  readonly threads: number
}

/** Edits in a first stage, at least: fewer say nothing. */
const LEAST_STAGE = 4
type Able = Gateway & { readonly adapters: Adapters }

/** Hand-offs: one at a time is under way here, the others wait; all of them outlive the process. */
export class Handoffs {
  readonly #options: HandoffsOptions
  readonly #store: JobStore
  /** Taken before promotions, by id of the adapter. */
  readonly #snapshots = new Map<string, string>()
  #running: { readonly id: string; readonly stop: AbortController; readonly ended: Promise<void> } | null = null
  #taking: Promise<void> = Promise.resolve()
  #importing = false
  #started = false
  #closed = false

  constructor(options: HandoffsOptions) {
    this.#options = options
    options.gateway.adapters?.guardPromotion(async ({ id }) => {
      this.#snapshots.set(id, await options.snapshot(`before ${id} was promoted`))
    })
    this.#store = options.store
    this.#store.follow(() => this.#heard())
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
    throw notFound(id, tenant)
  }

  /** Takes up what waits, and what ended with the process unless it did so too often. */
  start(): void {
    const { handoffAttempts } = this.#options.gateway.limits
    for (const job of this.#store.all()) {
      if (job.state !== 'interrupted') continue
      if (job.attempts < handoffAttempts)
        this.#change(job.id, (now) => (now.state === 'interrupted' ? { state: 'queued' } : {})).catch((err) =>
          this.#options.gateway.log.error({ err }, `hand-off ${job.id} could not be noted`),
        )
      else this.#options.gateway.log.warn({}, `hand-off ${job.id} ended ${job.attempts} times; resume it by hand`)
    }
    this.#started = true
    this.#pump()
  }

  /** What other gateways did may end the work here, or give it some. */
  #heard(): void {
    const running = this.#running
    const standing = running === null ? 'held' : this.#store.standing(running.id)
    if (standing !== 'held') running?.stop.abort(new Stopped(standing))
    if (this.#started) this.#pump()
  }

  /** Accepts a job and begins it when its turn comes. */
  async submit(tenant: string, request: HandoffRequest): Promise<Job> {
    const { gateway, threads } = this.#options
    const { engine, memory, limits, now } = this.#able()
    await this.#mayTakeIn()
    this.#assertRoom(this.#store.all())
    const { method, settings, query, stages } = request
    const { edits, notes } = chooseEdits(memory, tenant, query, method, engine.model.name, limits.handoffEdits)
    const at = new Date(now())
    const id = request.id ?? this.#freeId(`${method}-${at.toISOString().slice(0, 19).replace(/[-:]/g, '').replace('T', '-')}`)
    const isTaken = (jobs: readonly Job[]) => jobs.some((one) => one.id === id) || gateway.adapters?.has(id) === true
    const check = (jobs: readonly Job[]) => {
      this.#assertRoom(jobs)
      if (isTaken(jobs)) throw conflict(`There is a hand-off or an adapter '${id}' already: choose another id.`)
    }
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
        // EasyEdit's own hyper-parameters are taken as they are.
        hparams:
          growsInPlace(method) && !('alg_name' in settings.hparams) ? { chat: true, ...settings.hparams } : settings.hparams,
        threads: settings.threads ?? threads,
        // Where gateways share the jobs, it is the one that works whose devices count.
        device: this.#store.isShared ? settings.device : await this.#device(settings.device),
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
    await this.#store.add(job, edits, check)
    this.#pump()
    return this.#store.get(id) ?? job
  }

  #assertRoom(jobs: readonly Job[]): void {
    const waiting = jobs.filter(({ state }) => state === 'queued').length
    if (waiting >= this.#options.gateway.limits.handoffQueueJobs)
      throw new PalimpsestError('queue_full', `${waiting} hand-offs wait, which is the limit: cancel one, or try later.`, {
        retryAfterSeconds: 60,
      })
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
    const nothingLeft = ({ state }: Job) => conflict(`Hand-off '${id}' is ${state}: there is nothing to cancel.`)
    const job = this.get(tenant, id)
    if (isOver(job)) throw nothingLeft(job)
    await this.#taking
    if (this.#running?.id === id) {
      this.#running.stop.abort(new Stopped('cancelled'))
      await this.#running.ended
      return this.get(tenant, id)
    }
    return this.#change(id, (now) => {
      if (isOver(now)) throw nothingLeft(now)
      return { state: 'cancelled', progress: null, pid: null }
    })
  }

  /** Goes on with what was finished, by other thresholds where some are given. */
  async resume(tenant: string, id: string, thresholds: Partial<HandoffThresholds> = {}): Promise<Job> {
    const isUnderWay = ({ state }: Job) => state === 'running' || state === 'queued'
    const job = this.get(tenant, id)
    if (job.state === 'done') throw conflict(`Hand-off '${id}' is done: promote it with palimpsest handoff promote ${id}.`)
    if (isUnderWay(job)) return job
    await this.#mayTakeIn()
    const queued = await this.#change(id, (now) => {
      if (isUnderWay(now)) return {}
      const settings = { ...now.settings, thresholds: { ...now.settings.thresholds, ...thresholds } }
      // Its answers are kept, so that judging a stage anew costs nothing.
      const stages = now.stages.map((stage) => (stage.ok === false ? { ...stage, ok: null } : stage))
      return { state: 'queued', fault: null, stages, settings }
    })
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
      const { cacheDir, threads } = this.#options
      const base = { path: this.#basePath(), sha256: await this.#baseSha256() }
      const folder = join(this.#store.dir, '.import')
      const edit = async (job: WorkerJob) => (await this.#work(job, folder, () => {}, signal)).result
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
    const place = { gateway: this.#able(), store: this.#store }
    const found = misfits(await factsOf(ownAdapter(tenant, id, place), replace, place))
    if (found.length > 0)
      throw conflict(`'${id}' is not promoted: ${found.map(({ why, message }) => `${why}: ${message}`).join('; ')}.`)
    const adapter = await place.gateway.adapters.promote(id, tenant, gated)
    return { adapter, snapshot: this.#snapshots.get(id) ?? '' }
  }

  /** The prompt edits return. */
  async rollback(tenant: string, id: string): Promise<Adapter> {
    const gateway = this.#able()
    return gateway.adapters.rollback(ownAdapter(tenant, id, { gateway, store: this.#store }).id, tenant)
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
      past: pastOf(this.#store.all(), gateway.engine.model.name),
      notTaken: {
        memit: refused('memit'),
        alphaedit: refused('alphaedit'),
        pmet: refused('pmet'),
        lora: refused('lora'),
        distil: refused('distil'),
      },
    }
    return { ...advise(situation), edits: edits.length }
  }

  /** Ends the worker at work; its job goes on at the next start. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#taking
    this.#running?.stop.abort(new Stopped('closing'))
    await this.#store.close(this.#running?.ended ?? Promise.resolve())
  }

  /** Looks for work, once the look before has ended. */
  #pump(): void {
    if (this.#closed || this.#running !== null || !this.#store.hasWaiting()) return
    this.#taking = this.#taking
      .then(() => this.#take())
      .catch((err) => this.#options.gateway.log.error({ err }, 'the next hand-off could not be taken up'))
  }

  async #take(): Promise<void> {
    if (this.#closed || this.#running !== null || !this.#store.hasWaiting()) return
    // Where gateways share the jobs, those that cannot work on one leave it to the others.
    if (this.#store.isShared && !(this.#isAble() && (await this.#options.editor()) !== null)) return
    const baseSha256 = this.#isAble() ? await this.#baseSha256() : ''
    const job = await this.#store.claim({ mostAttempts: this.#options.gateway.limits.handoffAttempts, baseSha256 })
    if (job === null) return
    const stop = new AbortController()
    const ended = this.#run(job, stop.signal)
      .then(() => this.#prune())
      .catch((error) => this.#options.gateway.log.error({ err: error }, `hand-off ${job.id} could not be noted`))
      .then(() => {
        this.#running = null
        this.#pump()
      })
    this.#running = { id: job.id, stop, ended }
  }

  /** Reports do not pile up; that of what answers now stays. */
  async #prune(): Promise<void> {
    const { adapters, limits } = this.#options.gateway
    await this.#store.prune(limits.handoffJobsKept, (job) => adapters?.promoted(job.tenant)?.id === job.id)
  }

  async #run(job: Job, signal: AbortSignal): Promise<void> {
    endOrphan(job.pid, this.#store.folder(job.id))
    try {
      const gateway = this.#able()
      const edit = (task: WorkerJob, to: string, onEvent: (event: WorkerEvent) => void) => this.#work(task, to, onEvent, signal)
      const device = (wanted: string) => this.#device(wanted)
      const { cacheDir } = this.#options
      const context = { gateway, store: this.#store, basePath: this.#basePath(), cacheDir, device, edit, signal }
      const sha256 = await this.#baseSha256()
      if (sha256 !== job.base.sha256)
        throw new HandoffFault(
          'wrong_base',
          `The hand-off began on the model file ${job.base.sha256.slice(0, 12)}…, and ${sha256.slice(0, 12)}… is served.`,
          `Serve ${job.base.name} again and resume, or start a new hand-off.`,
        )
      await runStages(job, context)
    } catch (error) {
      await this.#ended(job.id, error, signal)
    }
  }

  async #ended(id: string, error: unknown, signal: AbortSignal): Promise<void> {
    const job = this.#store.get(id)
    const why = stopReason(signal)
    if (job === undefined || why === 'lost') return
    const over = { progress: null, pid: null }
    if (why !== null) return this.#said(job, { ...over, state: why === 'cancelled' ? 'cancelled' : 'interrupted' })
    const fault =
      error instanceof HandoffFault
        ? error.fault
        : {
            code: error instanceof PalimpsestError ? error.code : 'internal',
            message: (error as Error).message,
            change: 'Mend that, then: palimpsest handoff resume ID',
          }
    this.#options.gateway.log.warn({ err: error }, `hand-off ${id} failed`)
    await this.#said(job, { ...over, state: 'failed', fault: { ...fault, change: fault.change.replaceAll(' ID', ` ${id}`) } })
  }

  async #work(
    job: WorkerJob,
    folder: string,
    onEvent: (event: WorkerEvent) => void,
    signal: AbortSignal,
  ): Promise<WorkerOutcome> {
    const editor = await this.#options.editor()
    if (editor === null)
      throw new HandoffFault('no_editor', 'The parameter editor is not installed.', 'Run `palimpsest handoff setup`.')
    const { engine, otherEngines, limits } = this.#options.gateway
    const isBusy = () =>
      [engine, ...(otherEngines?.values() ?? [])].some((one) => {
        const { busy, queued } = one.load()
        return busy + queued > 0
      })
    return runWorker({ editor, job, folder, onEvent, signal, limits, isBusy })
  }

  /** Where gateways share the jobs, another one may have the editor. */
  async #mayTakeIn(): Promise<void> {
    if (!this.#store.isShared && (await this.#options.editor()) === null)
      throw new PalimpsestError('handoff_failed', 'The parameter editor is not installed: run palimpsest handoff setup.')
  }

  /** Looks and writes in one turn. */
  #change(id: string, to: (job: Job) => Partial<Job>): Promise<Job> {
    return this.#store.change(id, (job) => {
      if (job === undefined) throw notFound(id)
      return this.#with(job, to(job))
    })
  }

  /** Of the job that is worked on here. */
  #said(job: Job, to: Partial<Job>): Promise<void> {
    return this.#store.save(this.#with(job, to))
  }

  #with(job: Job, to: Partial<Job>): Job {
    return { ...job, ...to, updated: new Date(this.#options.gateway.now()).toISOString() }
  }

  #isAble(): boolean {
    const { adapters, engine } = this.#options.gateway
    return adapters !== undefined && engine.loras?.basePath !== undefined
  }

  #able(): Able {
    const { gateway } = this.#options
    if (this.#isAble()) return gateway as Able
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
