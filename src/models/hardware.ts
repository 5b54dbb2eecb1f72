import { execFile } from 'node:child_process'
import { freemem, totalmem } from 'node:os'

export interface Gpu {
  readonly name: string
  readonly freeVramBytes: number
}

const ASK_MS = 10_000

/** The first NVIDIA GPU as `nvidia-smi` prints it ("name, free MiB"); null for anything else. */
export function parseNvidia(printed: string): Gpu | null {
  const match = /^(.+), (\d+)\s*$/m.exec(printed)
  return match === null ? null : { name: String(match[1]), freeVramBytes: Number(match[2]) * 1024 * 1024 }
}

/** The GPU that models would run on, or null. Apple's share their memory with the processor and may take about two thirds of it. */
export async function findGpu(platform: NodeJS.Platform, arch: string): Promise<Gpu | null> {
  if (platform === 'darwin') return arch === 'arm64' ? { name: 'Apple GPU', freeVramBytes: (totalmem() * 2) / 3 } : null
  const query = ['--query-gpu=name,memory.free', '--format=csv,noheader,nounits']
  const printed = await new Promise<string>((resolve) => {
    execFile('nvidia-smi', query, { timeout: ASK_MS }, (error, stdout) => resolve(error === null ? stdout : ''))
  })
  return parseNvidia(printed)
}

/** Memory that a model may take, in bytes. macOS counts as free only what nothing was ever cached in, so there half of all is taken. */
export function freeMemoryBytes(platform: NodeJS.Platform): number {
  if (platform === 'darwin') return totalmem() / 2
  const limit = process.constrainedMemory?.() ?? 0
  const bounded = limit > 0 && limit < totalmem()
  return bounded ? Math.min(freemem(), limit - process.memoryUsage().rss) : freemem()
}
