// Teaches the reader with the Python that has torch: PALIMPSEST_PYTHON, the environment that `palimpsest handoff setup` made, or python3.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'

const home = process.env.PALIMPSEST_HOME ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'palimpsest')
const made = existsSync(join(home, 'handoff'))
  ? readdirSync(join(home, 'handoff')).map((name) => join(home, 'handoff', name, 'bin', 'python'))
  : []
const python = process.env.PALIMPSEST_PYTHON ?? made.find((path) => existsSync(path)) ?? 'python3'
// Threads that spin while they wait make this ten times slower beside a busy neighbour.
const env = { OMP_WAIT_POLICY: 'passive', ...process.env }
const { status } = spawnSync(python, ['-m', 'palimpsest_reader.recipe', ...process.argv.slice(2)], {
  cwd: join(import.meta.dirname, '../../editor'),
  env,
  stdio: 'inherit',
})
process.exit(status ?? 1)
