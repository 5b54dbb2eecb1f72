import { join } from 'node:path'

/**
 * Where models are kept, for all clones of one user: `PALIMPSEST_HOME`, else the user's cache folder
 * (XDG base directories on Linux, `~/Library/Caches` on macOS).
 */
export function defaultHome(
  environment: Readonly<Record<string, string | undefined>>,
  platform: NodeJS.Platform,
  userFolder: string,
): string {
  if (environment.PALIMPSEST_HOME) return environment.PALIMPSEST_HOME
  if (platform === 'darwin') return join(userFolder, 'Library', 'Caches', 'palimpsest')
  return join(environment.XDG_CACHE_HOME || join(userFolder, '.cache'), 'palimpsest')
}
