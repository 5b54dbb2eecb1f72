import { createHash, timingSafeEqual } from 'node:crypto'
import { type Budgets, NO_BUDGETS, SharedBudgets } from './budgets.ts'
import { type Key, SCOPES } from './key.ts'
import type { KeyStore } from './key-store.ts'
import { KeyView } from './key-view.ts'

/** When keys are asked for. `auto`: as soon as there is one, and wherever others than this machine can reach the gateway. */
export const AUTH = ['auto', 'keys', 'none', 'none-anywhere'] as const
export type Auth = (typeof AUTH)[number]

/** Who may use a gateway, and how much. */
export interface Access {
  /** Brings the keys in memory up to date where that takes no time: before each request. Never throws. */
  current(): Promise<void>
  /** Whether a request must bring a key, now. Where it need not, keys are not looked at. */
  required(): boolean
  /** The key of a token, revoked and expired ones included; null for a token that is none. */
  identify(token: string): Promise<Key | null>
  readonly budgets: Budgets
  close(): Promise<void>
}

/** `now`: milliseconds since the epoch. Throws storage errors where the keys can't be read. */
export async function accessBy(
  store: KeyStore,
  auth: Auth,
  loopback: boolean,
  now: () => number,
  warn: (message: string) => void = () => {},
): Promise<Access & { anyKey(): boolean }> {
  const keys = await KeyView.open(store, warn)
  const budgets = new SharedBudgets(store.database, now, { warn })
  const required = (): boolean => {
    switch (auth) {
      case 'auto':
        return !loopback || keys.any()
      case 'keys':
        return true
      case 'none':
      case 'none-anywhere':
        return false
      default:
        return auth satisfies never
    }
  }
  return {
    current: () => keys.current(),
    required,
    identify: (token) => keys.identify(token),
    anyKey: () => keys.any(),
    budgets,
    close: async () => void (await Promise.all([keys.close(), budgets.close()])),
  }
}

/** One token, known to the process that serves and asks, may do everything; there is no other. */
export function accessByOne(token: string): Access {
  const hash = (text: string) => createHash('sha256').update(text).digest()
  const key: Key = { id: 'own', name: 'this process', tenant: null, scopes: SCOPES, createdAt: 0 }
  return {
    current: async () => {},
    required: () => true,
    identify: async (sent) => (timingSafeEqual(hash(sent), hash(token)) ? key : null),
    budgets: NO_BUDGETS,
    close: async () => {},
  }
}

/** Whether only this machine can reach a server that listens there. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^(::ffff:)?127\.\d+\.\d+\.\d+$/.test(host)
}
