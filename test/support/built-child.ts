import { execFileSync } from 'node:child_process'
import { mkdtempSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'

const ROOT = resolve(import.meta.dirname, '../..')
/** What is read below the package's folder. */
const READ = ['node_modules', 'calibration', 'templates', 'src']

/** Compiles a script of this tree, `FOLDER/NAME`, for a process that is to be killed. Returns the new folder, which the caller removes, and the script in it. */
export function buildChild(path: string): { readonly built: string; readonly child: string } {
  const built = mkdtempSync(join(tmpdir(), `palimpsest-${basename(path)}-`))
  for (const folder of READ) symlinkSync(join(ROOT, folder), join(built, folder))
  writeFileSync(join(built, 'package.json'), '{"type": "module", "version": "0.0.0-test"}')
  const compilerOptions = {
    noEmit: false,
    // `npm run lint` checks types; here that would take most of the time.
    noCheck: true,
    rootDir: ROOT,
    outDir: join(built, 'out'),
    typeRoots: [join(ROOT, 'node_modules/@types')],
  }
  const files = [join(ROOT, `${path}.ts`)]
  writeFileSync(
    join(built, 'tsconfig.json'),
    JSON.stringify({ extends: join(ROOT, 'tsconfig.json'), compilerOptions, files, include: [] }),
  )
  execFileSync(join(ROOT, 'node_modules/.bin/tsc'), ['-p', built], { stdio: 'inherit' })
  return { built, child: join(built, `out/${path}.js`) }
}
