/** The process of `lora-apart.ts`: reads one file, and answers. */
import { PalimpsestError } from '../../errors.ts'
import { readLora } from './lora.ts'
import type { LoraJob, LoraVerdict } from './lora-apart.ts'

process.once('message', async ({ path, base }: LoraJob) => {
  const verdict = await readLora(path, base).then(
    (header): LoraVerdict => ({ header }),
    (error: unknown): LoraVerdict => {
      if (!(error instanceof PalimpsestError)) return { thrown: String(error) }
      const { code, message, param } = error
      return { refused: { code, message, param } }
    },
  )
  // Whoever asked ends this process: by itself it might be gone before its answer is read.
  process.send?.(verdict)
})
// The gateway is gone.
process.once('disconnect', () => process.exit())
