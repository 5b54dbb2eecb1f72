import { freemem } from 'node:os'
import { basename } from 'node:path'
import type { GgufInsights } from 'node-llama-cpp'
import { fitSlots, memoryText } from '../format/model-family.ts'
import { PREFILL_PIECE_TOKENS } from '../scheduling/prefix-cache.ts'

/** Tokens in one batch at least; more where that many slots prefill at once, so that no piece is ever cut in two. */
const BATCH_TOKENS = 512

export function batchTokens(slots: number): number {
  return Math.max(BATCH_TOKENS, slots * PREFILL_PIECE_TOKENS)
}

/** Bytes of a model on the CPU, and of its context with 1 to `most` slots. */
export async function memoryNeed(insights: GgufInsights, contextTokens: number, most: number) {
  const model = await insights.estimateModelResourceRequirementsV2({ gpuLayers: 0, useMmap: true })
  const contextBytes = await Promise.all(
    Array.from({ length: most }, async (_, i) => {
      const sequences = i + 1
      const batchSize = batchTokens(sequences)
      const shape = { contextSize: contextTokens, modelGpuLayers: 0, batchSize, sequences }
      return (await insights.estimateContextResourceRequirementsV2(shape)).cpuRam
    }),
  )
  return { modelBytes: model.cpuRam, contextBytes: (slots: number) => contextBytes[slots - 1] ?? 0 }
}

/** As many of the `wanted` slots as fit; says what it comes to before anything is loaded. */
export async function slotsInMemory(
  insights: GgufInsights,
  path: string,
  contextTokens: number,
  wanted: number,
  log: (level: 'info', message: string) => void,
): Promise<number> {
  const freeBytes = Math.min(freemem(), process.availableMemory?.() ?? Number.POSITIVE_INFINITY)
  const need = { ...(await memoryNeed(insights, contextTokens, wanted)), freeBytes }
  const slots = fitSlots(need, wanted, path)
  log('info', memoryText(need, slots, contextTokens, basename(path)))
  return slots
}
