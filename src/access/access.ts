import { createHash, timingSafeEqual } from 'node:crypto'
import { Budgets } from './budgets.ts'
import { type Key, SCOPES } from './key.ts'
import type { KeyStore } from './key-store.ts'

/** When keys are asked for. `auto`: as soon as there is one, and wherever others than this machine can reach the gateway. */
export const AUTH = ['auto', 'keys', 'none', 'none-anywhere'] as const
export type Auth = (typeof AUTH)[number]

/** Who may use a gateway, and how much. */
export interface Access {
  /** Whether a request must bring a key, now. Where it need not, keys are not looked at. */
  required(): boolean
  /** The key of a token, revoked and expired ones included; null for a token that is none. */
  identify(token: string): Key | null
  readonly budgets: Budgets
}

/** `store` is read at every request. `now`: milliseconds since the epoch. */
export function accessBy(
  store: KeyStore,
  auth: Auth,
  loopback: boolean,
  now: () => number,
  warn: (message: string) => void = () => {},
): Access {
  const required = (): boolean => {
    switch (auth) {
      case 'auto':
        return !loopback || store.any()
      case 'keys':
        return true
      case 'none':
      case 'none-anywhere':
        return false
      default:
        return auth satisfies never
    }
  }
  return { required, identify: (token) => store.identify(token), budgets: new Budgets(store, now, warn) }
}

/** One token, known to the process that serves and asks, may do everything; there is no other. */
export function accessByOne(token: string): Access {
  const hash = (text: string) => createHash('sha256').update(text).digest()
  const key: Key = { id: 'own', name: 'this process', tenant: null, scopes: SCOPES, createdAt: 0 }
  const unlimited = new Budgets({ usage: () => undefined, saveUsage: () => {} }, () => 0)
  return {
    required: () => true,
    identify: (sent) => (timingSafeEqual(hash(sent), hash(token)) ? key : null),
    budgets: unlimited,
  }
}

/** Whether only this machine can reach a server that listens there. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^(::ffff:)?127\.\d+\.\d+\.\d+$/.test(host)
}
