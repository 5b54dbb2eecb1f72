/** How bench/engine.ts and bench/quick.ts ask their contenders. */
import type { ChildProcess } from 'node:child_process'
import type { Ask, Setup } from './contender.ts'

const WORDS =
  'the old harbour keeps seven lamps lit while ships of wool and salt pass under a bridge that no king has ever crossed'.split(
    ' ',
  )

/** Unlike any other from its first word on, so that no cache helps; the answer is long in any model, so that all are of one length. */
export function prompt(serial: number, words: number): string {
  const body = Array.from({ length: words }, (_, i) => WORDS[(i * 7 + serial * 13 + ((i * serial) % 5)) % WORDS.length])
  return `Note ${serial}: ${body.join(' ')}. Write this note down again, word for word.`
}

export function reply<T>(child: ChildProcess, message: Setup | Ask): Promise<T> {
  return new Promise((resolve, reject) => {
    child.once('message', (value) => resolve(value as T))
    child.once('exit', (code) => reject(new Error(`a contender ended with ${code}`)))
    child.send(message)
  })
}
