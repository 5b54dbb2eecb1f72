import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { noteFault, recentFault, serverPath } from '../../../../src/engine/llama-server/build.ts'
import { buildChild } from '../../../support/built-child.ts'

/** Stand-ins for git and cmake: the source is empty, and a build makes a file, fails, or goes on for ever. */
const GIT = '#!/bin/sh\nfor last; do :; done\nmkdir -p "$last"\n'
/** A compiler that knows the flag, and one that does not. */
const CXX = '#!/bin/sh\n[ -z "$ARM" ] || exit 1\n'
const CMAKE = `#!/bin/sh
[ "$1" = --build ] || { echo "$@" > "$FLAGS"; exit 0; }
echo "[ 50%] Building with $*"
case "$FAULT" in
  fails) echo 'a.cpp:1: error: no such header' >&2; exit 2 ;;
  hangs) sleep 600 & echo $! > "$COMPILER"; wait ;;
esac
mkdir -p "$2/bin" && echo built > "$2/bin/llama-server"
`
const PATIENCE = { timeout: 120_000 }

let script = ''
let built = ''
let folder: string
beforeAll(() => {
  ;({ built, child: script } = buildChild('src/engine/llama-server/build-child'))
}, PATIENCE.timeout)
afterAll(() => rmSync(built, { recursive: true, force: true }))
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'palimpsest-test-'))
  for (const name of ['bin', 'tmp', 'home']) mkdirSync(join(folder, name))
  for (const [name, text] of Object.entries({ git: GIT, cmake: CMAKE, 'c++': CXX })) {
    writeFileSync(join(folder, 'bin', name), text)
    chmodSync(join(folder, 'bin', name), 0o755)
  }
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const home = () => join(folder, 'home')
const compiler = () => Number(existsSync(join(folder, 'compiler')) && readFileSync(join(folder, 'compiler'), 'utf8'))
const alive = (pid: number) => existsSync(`/proc/${pid}/stat`) && !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))

function start(FAULT: string, more = {}): { child: ChildProcess; end: Promise<{ code: number | null; said: string }> } {
  const child = spawn(process.execPath, [script, home(), '2'], {
    detached: true,
    env: {
      FAULT,
      ...{ COMPILER: join(folder, 'compiler'), FLAGS: join(folder, 'flags') },
      TMPDIR: join(folder, 'tmp'),
      PATH: `${join(folder, 'bin')}:${process.env.PATH}`,
      ...more,
    },
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (said += text))
  return { child, end: new Promise((resolve) => child.once('close', (code) => resolve({ code, said }))) }
}

describe.runIf(process.platform === 'linux')('the child that builds llama-server', PATIENCE, () => {
  it('puts it in its place, prints what the programs say, and takes back an earlier fault', async () => {
    await noteFault(home(), { at: Date.now(), why: 'then' })
    const { code, said } = await start('').end
    expect([code, said]).toEqual([0, expect.stringMatching(/^\[ 50%\] Building with .* --target llama-server -j2\n$/)])
    expect(readFileSync(serverPath(home()), 'utf8')).toBe('built\n')
    expect(recentFault(home(), Date.now())).toBeNull()
    expect(readdirSync(join(folder, 'tmp'))).toEqual([])
  })

  it.each([
    ['sums in single precision where the compiler could do otherwise', {}, ['-DCMAKE_C_FLAGS_INIT', '-DCMAKE_CXX_FLAGS_INIT']],
    ['leaves the flags of other compilers as they are', { ARM: 'yes' }, []],
  ])('%s', async (_what, more, flags) => {
    expect((await start('', more).end).code).toBe(0)
    const given = readFileSync(join(folder, 'flags'), 'utf8').trim().split(' ')
    expect(given.filter((flag) => flag.includes('_FLAGS_INIT'))).toEqual(flags.map((flag) => `${flag}=-mno-avx512fp16`))
  })

  it('says why it failed', async () => {
    const { code, said } = await start('fails').end
    expect([code, said]).toEqual([1, expect.stringContaining('a.cpp:1: error: no such header')])
    expect(existsSync(serverPath(home()))).toBe(false)
  })

  it.each([
    ['whose gateway is gone', (child: ChildProcess) => child.stdin?.destroy()],
    ['that is told to stop', (child: ChildProcess) => process.kill(-(child.pid ?? 0), 'SIGTERM')],
  ])('%s ends, with its compilers, and leaves nothing', async (_how, stop) => {
    const { child, end } = start('hangs')
    await expect.poll(compiler, PATIENCE).toBeGreaterThan(0)
    expect(alive(compiler())).toBe(true)
    stop(child)
    expect((await end).code).toBe(1)
    await expect.poll(() => alive(compiler())).toBe(false)
    expect(readdirSync(join(folder, 'tmp'))).toEqual([])
    expect(existsSync(serverPath(home()))).toBe(false)
  })
})
