import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** The package's own folder, from src, from dist, and from the benches' dist-bench. */
export const PACKAGE_ROOT = rootAbove(import.meta.dirname)

function rootAbove(folder: string): string {
  const above = dirname(folder)
  return existsSync(join(folder, 'package.json')) || above === folder ? folder : rootAbove(above)
}
