// A stand-in for build-child.js: same arguments, builds nothing. What it does is in the environment: BUILT, the file it makes; GO, a file that it
// waits for; FAULT, what it says when it fails; LOG, where it notes its beginning and end.
import { appendFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

const { BUILT, GO, FAULT, LOG } = process.env
const note = (line) => appendFileSync(LOG, `${line}\n`)
note(`build ${process.pid}`)
process.on('SIGTERM', () => {
  note('told to stop')
  process.exit(1)
})
while (GO !== undefined && !existsSync(GO)) await sleep(10)
if (FAULT !== undefined) {
  console.log(`[ 10%] Building\nsrc/a.cpp:1: ${FAULT}\nmake: *** Error 2`)
  process.exit(2)
}
mkdirSync(dirname(BUILT), { recursive: true })
writeFileSync(BUILT, '')
note('built')
