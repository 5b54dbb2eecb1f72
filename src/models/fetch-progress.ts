import { Bar, type BarStream, type Step } from '../terminal/progress-bar.ts'
import { ensureModel, type FetchOptions, type ModelFile } from './fetch.ts'
import type { Progress } from './meter.ts'

/** A fetch's progress as the bar draws it. */
export function progressStep(progress: Progress): Step {
  return {
    label: progress.source === 'check' ? `checking ${progress.file}` : progress.file,
    done: progress.bytesDone,
    total: progress.bytesTotal,
    unit: 'bytes',
    perSecond: progress.bytesPerSecond,
    secondsLeft: progress.secondsLeft,
  }
}

/** Brings the models one after the other, with a bar on `stream`, and a closing line for each that had to be fetched. */
export async function ensureModelsShown(
  names: readonly string[],
  options: Omit<FetchOptions, 'onProgress' | 'log'>,
  stream: BarStream,
): Promise<ModelFile[]> {
  const now = options.now ?? Date.now
  const bar = new Bar(stream, now)
  const files: ModelFile[] = []
  try {
    for (const name of names) {
      const start = now()
      const file = await ensureModel(name, {
        ...options,
        onProgress: (p) => bar.update(progressStep(p)),
        log: (line) => bar.log(line),
      })
      const seconds = ((now() - start) / 1000).toFixed(1)
      if (file.fetchedBytes > 0)
        bar.log(`${name}: fetched ${file.fetchedBytes.toLocaleString('en-GB')} bytes in ${seconds} s, checksum right`)
      files.push(file)
    }
  } finally {
    bar.clear()
  }
  return files
}
