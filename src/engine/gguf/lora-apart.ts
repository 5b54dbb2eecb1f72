import { fork } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import type { GgufFileInfo } from 'node-llama-cpp'
import { PalimpsestError } from '../../errors.ts'
import { type LoraBase, type LoraHeader, mismatch, readLora } from './lora.ts'

/** What the child is sent, and sends. */
export interface LoraJob {
  readonly path: string
  readonly base: LoraBase
}
export type LoraVerdict =
  | { readonly header: LoraHeader }
  | { readonly refused: Pick<PalimpsestError, 'code' | 'message' | 'param'> }
  | { readonly thrown: string }

export interface LoraChild {
  /** Null: the file is read where it is called. */
  readonly entry: URL | null
  readonly longestMs: number
}

/** Some gigabytes of weights, from a slow disk. */
const LONGEST_MS = 120_000
/** A header of 32 MiB that is all short texts takes less. */
const MEMORY_MIB = 512
/** At one time; the others wait. */
const CHILDREN = 2

/** As built: node runs no TypeScript. Sources, as tests run them, are read where they are called. */
const CHILD: LoraChild = {
  entry: import.meta.url.endsWith('.js') ? new URL('./lora-child.js', import.meta.url) : null,
  longestMs: LONGEST_MS,
}

/** Each ends with the file that was last given to it. */
const lanes: Promise<unknown>[] = Array.from({ length: CHILDREN }, () => Promise.resolve())
let given = 0

/**
 * `readLora` in a process of its own, of bounded memory and time: whatever a file does to who reads it, the gateway goes on. Throws
 * `adapter_mismatch` also where that process is late or ends without an answer.
 */
export function readLoraApart(path: string, base: LoraBase, { entry, longestMs } = CHILD): Promise<LoraHeader> {
  if (entry === null) return readLora(path, base)
  const lane = given++ % CHILDREN
  const mine = (lanes[lane] ?? Promise.resolve()).then(() => inChild(entry, { path, base }, longestMs))
  lanes[lane] = mine.catch(() => {})
  return mine
}

async function inChild(entry: URL, job: LoraJob, longestMs: number): Promise<LoraHeader> {
  // It is told nothing that it does not need: of the gateway's environment, keys might be part.
  const child = fork(fileURLToPath(entry), {
    execArgv: [`--max-old-space-size=${MEMORY_MIB}`],
    env: {},
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  })
  let timer: NodeJS.Timeout | undefined
  try {
    const verdict = await new Promise<LoraVerdict>((resolve, reject) => {
      const ended = (how: string) => reject(mismatch('a GGUF file', `one whose reading ${how}`))
      timer = setTimeout(() => ended(`takes more than ${longestMs / 1_000} s`), longestMs)
      child.once('message', resolve)
      child.once('error', reject)
      child.once('exit', (code, signal) => ended(`ended its process (${signal ?? `exit code ${code}`})`))
      // Where it cannot be sent, the process has ended, and that is told.
      child.send({ ...job }, () => {})
    })
    return headerOf(verdict)
  } finally {
    clearTimeout(timer)
    child.kill('SIGKILL')
  }
}

function headerOf(verdict: LoraVerdict): LoraHeader {
  if ('header' in verdict) return verdict.header
  if ('thrown' in verdict) throw new Error(`an adapter's file could not be read: ${verdict.thrown}`)
  const { code, message, param } = verdict.refused
  throw new PalimpsestError(code, message, { param })
}

/** What adapters are compared with. The model file's hash, where nobody has it yet, is computed once. */
export function loraFiles(info: GgufFileInfo, modelPath: string, sha256: string | null) {
  let hashed: Promise<string> | undefined
  const base = baseOf(info)
  return {
    basePath: modelPath,
    checkLora: (path: string) => readLoraApart(path, base),
    baseSha256: async () => {
      if (sha256 !== null) return sha256
      hashed ??= fileSha256(modelPath)
      return hashed
    },
  }
}

/** The little of it that is sent with each file. */
function baseOf({ metadata: { general, tokenizer }, fullTensorInfo = [] }: GgufFileInfo): LoraBase {
  return {
    metadata: { general: { architecture: general.architecture }, tokenizer: { ggml: { tokens: tokenizer.ggml.tokens } } },
    fullTensorInfo: fullTensorInfo.map(({ name, dimensions }) => ({ name, dimensions })),
  }
}

async function fileSha256(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}
