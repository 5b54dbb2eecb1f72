import { join } from 'node:path'
import { type Access, accessBy, accessByOne, isLoopback } from '../access/access.ts'
import { KeyStore } from '../access/key-store.ts'
import type { Config } from '../config.ts'
import { PalimpsestError } from '../errors.ts'
import type { Limits } from '../gateway.ts'
import type { Logger } from '../logger.ts'
import { guarded } from '../storage/sqlite.ts'

/** Beside the memory, but not within what its lock guards: keys are made and revoked while a gateway runs. */
const FILE = 'keys.db'
/** A gateway waits no longer than this for what the command line writes: no answer goes on meanwhile. */
const BUSY_MS = 50

export function openKeys(dataDir: string, busyMs?: number): KeyStore {
  const file = join(dataDir, FILE)
  return new KeyStore({ file, guarded: (doing, work) => guarded(file, doing, work), ...(busyMs !== undefined && { busyMs }) })
}

export interface OpenAccess {
  readonly access: Access
  close(): void
}

/**
 * Who may use the gateway that listens at `host`; with `token`, whoever sends that alone. `now`: milliseconds since the epoch.
 * Throws `invalid_value` where nobody would be asked for a key though others than this machine can reach it.
 */
export function openAccess(
  { auth, dataDir }: Pick<Config<Limits>, 'auth' | 'dataDir'>,
  { host, token, now, log }: { host: string; token?: string | undefined; now: () => number; log: Logger },
): OpenAccess {
  if (token !== undefined) return { access: accessByOne(token), close: () => {} }
  const loopback = isLoopback(host)
  if (auth === 'none' && !loopback)
    throw new PalimpsestError(
      'invalid_value',
      `With --auth none everybody who reaches ${host} could use and change this gateway. Leave --auth away; behind a proxy that checks who comes, say --auth none-anywhere.`,
      { param: 'auth' },
    )
  const store = openKeys(dataDir, BUSY_MS)
  const access = accessBy(store, auth, loopback, now, (message) => log.warn({}, message))
  if (!access.required() && !loopback)
    log.warn({}, `no key is asked for: everybody who reaches ${host} can use and change this gateway`)
  if (access.required() && !store.any())
    log.warn({}, 'keys are asked for and there is none: make one with palimpsest keys create')
  const close = () => {
    access.budgets.flush()
    store.close()
  }
  return { access, close }
}
