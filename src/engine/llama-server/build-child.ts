/**
 * A build of llama-server as a child process of a gateway, which it ends with, and in a process group of its own. Arguments: the cache folder,
 * and how many compilers may run at once.
 */
import { buildServer } from './build.ts'

const [home = '', jobs = '1'] = process.argv.slice(2)
const stop = new AbortController()
process.on('SIGTERM', () => stop.abort(new Error('it was told to stop')))
// The gateway holds the other end. Compilers are told by their group, and may be paused.
process.stdin
  .on('close', () => {
    process.kill(-process.pid, 'SIGTERM')
    process.kill(-process.pid, 'SIGCONT')
  })
  .resume()
const onText = (text: string) => void process.stdout.write(text)
try {
  await buildServer({ home, threads: Number(jobs), onProgress: () => {}, onText, signal: stop.signal })
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
process.exit()
