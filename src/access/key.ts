import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'

/** What a key may be used for. None includes another. */
export const SCOPES = ['inference', 'edits', 'admin'] as const
export type Scope = (typeof SCOPES)[number]

/** What is known of an API key, beside its secret. */
export interface Key {
  /** Names the key in lists and logs; no secret. */
  readonly id: string
  readonly name: string
  /** The one tenant that it acts for; null, for keys with the scope `admin` only: whichever a request names. */
  readonly tenant: string | null
  readonly scopes: readonly Scope[]
  readonly requestsPerMinute?: number
  /** Of prompts and answers together, by the calendar day, UTC. */
  readonly tokensPerDay?: number
  /** Milliseconds since the epoch. */
  readonly createdAt: number
  readonly expiresAt?: number
  readonly revokedAt?: number
}

/** What is kept of a secret: enough to know it again. */
export interface Digest {
  readonly salt: Uint8Array
  readonly hash: Uint8Array
}

const ID_BYTES = 8
const SECRET_BYTES = 32
const SALT_BYTES = 16
const TOKEN = /^pk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})$/

/** `pk_<id>_<secret>`, with 256 random bits in the secret. */
export function newToken(): { readonly id: string; readonly secret: string; readonly token: string } {
  const id = randomBytes(ID_BYTES).toString('hex')
  const secret = randomBytes(SECRET_BYTES).toString('base64url')
  return { id, secret, token: `pk_${id}_${secret}` }
}

/** The two parts of a token; null where it has not the form of one. */
export function parseToken(token: string): { readonly id: string; readonly secret: string } | null {
  const [, id, secret] = TOKEN.exec(token) ?? []
  return id === undefined || secret === undefined ? null : { id, secret }
}

/** What keys look like wherever they come from: in an `Authorization` header, or by the prefix that providers give them. */
const KEYS = /(\b(?:Bearer|Basic)\s+)[^\s"\\]+|\b(?:sk|hf|pk)[-_][A-Za-z0-9_-]{8,}/gi

/** The text with whatever looks like a key struck out, ours or a provider's. */
export function withoutKeyShapes(text: string): string {
  return text.replace(KEYS, (_, scheme: string | undefined) => `${scheme ?? ''}[key]`)
}

/**
 * HMAC-SHA256 under a salt of the key's own. Not scrypt: slowness guards what people choose, and nobody can try 2^256 secrets however fast
 * each try is; but every request pays for the hash, and slow ones would let a flood of wrong keys keep the process busy.
 */
export function digestOf(secret: string, salt: Uint8Array = randomBytes(SALT_BYTES)) {
  return { salt, hash: createHmac('sha256', salt).update(secret).digest() } satisfies Digest
}

/** What unknown ids are compared with, so that they take as long as known ones. */
const NOBODY = digestOf(randomBytes(SECRET_BYTES).toString('base64url'))

/** Whether the secret is the one; in a time that says neither how much of it is right nor whether there is a digest at all. */
export function matches(secret: string, digest: Digest | undefined): boolean {
  const { salt, hash } = digest ?? NOBODY
  return timingSafeEqual(digestOf(secret, salt).hash, hash) && digest !== undefined
}
