// `npm run fuzz`: a million cases of test/fuzz. `npm run fuzz -- --cases N --seed N` says otherwise; what it prints has the seed.
import { spawn } from 'node:child_process'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { ROOT } from './prepare.mjs'

const { values } = parseArgs({ options: { cases: { type: 'string', default: '1000000' }, seed: { type: 'string' } } })
const env = {
  ...process.env,
  PALIMPSEST_FUZZ_CASES: values.cases,
  ...(values.seed !== undefined && { PALIMPSEST_FUZZ_SEED: values.seed }),
}
const child = spawn(process.execPath, ['node_modules/vitest/vitest.mjs', 'run', 'test/fuzz'], {
  cwd: ROOT,
  env,
  stdio: 'inherit',
})
child.on('close', (code) => {
  process.exitCode = code ?? 1
})
