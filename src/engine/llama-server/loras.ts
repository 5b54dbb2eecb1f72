import { loraKey } from '../embedded/loras.ts'
import type { Lora } from '../engine.ts'
import { brokenAdapter } from '../gguf/lora.ts'
import { orAborted } from '../scheduling/or-aborted.ts'
import type { Turns } from '../scheduling/shared-lock.ts'
import type { ServerProcess } from './process.ts'
import type { LoraScale } from './wire.ts'

type Wanted = Pick<Lora, 'id' | 'path' | 'sha256' | 'bytes'>

export interface ServerLorasOptions {
  readonly server: Pick<ServerProcess, 'restart'>
  readonly turns: Turns
  /** llama-server's arguments with adapters at these paths. */
  readonly args: (paths: readonly string[]) => readonly string[]
  readonly limitBytes: number
  /** Its slots are empty. */
  readonly restarted: () => void
}

/**
 * Adapters of a llama-server. It takes them at its start only, so another one starts it anew (about a second with a small model): once the
 * answers under way have ended, while those that come wait.
 */
export class ServerLoras {
  readonly #options: ServerLorasOptions
  /** In the order in which the server has them. */
  #loras: readonly Wanted[] = []
  /** Hashes, the latest used last. */
  #recent: readonly string[] = []
  #changing: Promise<unknown> = Promise.resolve()

  constructor(options: ServerLorasOptions) {
    this.#options = options
  }

  has({ sha256 }: Pick<Lora, 'sha256'>): boolean {
    return this.#loras.some((one) => one.sha256 === sha256)
  }

  /** The longest unused make room, where all together would take more than the limit. Throws `adapter_mismatch` where the server refuses it. */
  load(lora: Lora): Promise<void> {
    return this.#change((loras) => {
      if (this.has(lora)) return loras
      const kept = [...loras, lora]
      const bytes = () => kept.reduce((sum, one) => sum + one.bytes, 0)
      while (kept.length > 1 && bytes() > this.#options.limitBytes) kept.shift()
      return kept
    }, lora.id)
  }

  unload({ sha256 }: Pick<Lora, 'sha256'>): Promise<void> {
    return this.#change((loras) => (this.has({ sha256 }) ? loras.filter((one) => one.sha256 !== sha256) : loras), '')
  }

  /** Resolves with the turn begun and the adapter there. */
  async enter(lora: Lora | undefined, alone: boolean, signal: AbortSignal): Promise<() => void> {
    for (;;) {
      if (lora !== undefined && loraKey(lora) !== '' && !this.has(lora)) await orAborted(this.load(lora), signal)
      const leave = await this.#options.turns.enter(alone, signal)
      if (lora === undefined || loraKey(lora) === '' || this.has(lora)) {
        this.#used(lora)
        return leave
      }
      leave()
    }
  }

  /**
   * For a request: every adapter by its place, all but one at 0. null where there are none. They are named for the base model, too: without
   * them llama-server reuses what the slot cached under another adapter (v0.5.0, server-context.cpp, launch_slot_with_task).
   */
  scales(lora: Lora | undefined): readonly LoraScale[] | null {
    if (this.#loras.length === 0) return null
    return this.#loras.map(({ sha256 }, id) => ({ id, scale: sha256 === lora?.sha256 ? lora.scale : 0 }))
  }

  #used(lora: Lora | undefined): void {
    if (lora !== undefined) this.#recent = [...this.#recent.filter((sha256) => sha256 !== lora.sha256), lora.sha256]
  }

  /** One change at a time, when nothing is under way. A server that does not come up with it is started as it was. */
  #change(to: (loras: readonly Wanted[]) => readonly Wanted[], id: string): Promise<void> {
    const changed = this.#changing.then(async () => {
      const byUse = [...this.#loras].sort((a, b) => this.#recent.indexOf(a.sha256) - this.#recent.indexOf(b.sha256))
      const next = to(byUse)
      if (next === byUse) return
      const { turns, server, args, restarted } = this.#options
      const leave = await turns.enter(true, new AbortController().signal)
      try {
        const start = (loras: readonly Wanted[]) => server.restart(args(loras.map(({ path }) => path)))
        const up = await start(next)
        restarted()
        if (up) {
          this.#loras = next
          return
        }
        await start(this.#loras)
        throw brokenAdapter(id, 'llama-server does not start with it')
      } finally {
        leave()
      }
    })
    this.#changing = changed.catch(() => {})
    return changed
  }
}
