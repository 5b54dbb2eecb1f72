import type { Config } from '../../config.ts'
import { type ErrorCode, PalimpsestError, type Problem } from '../../errors.ts'
import type { Limits } from '../../gateway.ts'
import { holder } from '../../storage/folder-lock.ts'

/** A gateway spoken to over HTTP, wherever it runs. */
export interface Client {
  /** Without a trailing slash. */
  readonly url: string
  /** True when the gateway runs in this process and goes with it. */
  readonly inProcess: boolean
  /** Sends JSON, reads JSON. Throws the gateway's own error where it answers one, `network` where it cannot be reached. */
  json<T>(method: string, path: string, body?: unknown): Promise<T>
  /** Any request; throws as `json` does. */
  send(path: string, init: RequestInit): Promise<Response>
  close(): Promise<void>
}

export interface ClientOptions {
  /** Tenant of every request. */
  readonly tenant?: string
  /** API key of every request to a gateway that is not this process's own. */
  readonly key?: string | undefined
}

/** A started gateway of this process. */
export interface Local {
  readonly url: string
  /** What it lets in. */
  readonly key?: string
  close(): Promise<void>
}

/** How long a gateway on this machine may take to say that it is there. */
const PROBE_MS = 1_000

/**
 * The running gateway: the one named by `url`; else the one that holds the data folder; else the one at the configured port. Where none
 * runs, `boot` starts one in this process.
 */
export async function connect(config: Config<Limits>, options: ClientOptions, boot: () => Promise<Local>): Promise<Client> {
  const running = await findRunning(config)
  if (running !== null) return client(running.url, { ...(running.isNamed && { key: config.key }), ...options }, null)
  const local = await boot()
  return client(local.url, options, local)
}

export interface Found {
  readonly url: string
  /** By its owner, or by the folder that it holds. Anybody may listen at a port: what is found there is sent no key. */
  readonly isNamed: boolean
}

/** Where a gateway runs that this configuration means, or null. Throws `folder_in_use` when the folder is held by one that does not serve. */
export async function findRunning(config: Pick<Config<Limits>, 'url' | 'dataDir' | 'port'>): Promise<Found | null> {
  if (config.url !== undefined) return { url: config.url.replace(/\/(v1\/?)?$/, ''), isNamed: true }
  const held = holder(config.dataDir)
  if (held !== null && held.url === null)
    throw new PalimpsestError(
      'folder_in_use',
      `Process ${held.pid} holds the data folder ${config.dataDir} and does not serve yet: try again in a moment.`,
    )
  if (held?.url != null) return { url: held.url, isNamed: true }
  const usual = `http://127.0.0.1:${config.port}`
  return config.port !== 0 && (await isGateway(usual)) ? { url: usual, isNamed: false } : null
}

async function isGateway(url: string): Promise<boolean> {
  try {
    const response = await fetch(`${url}/health`, { signal: AbortSignal.timeout(PROBE_MS) })
    // It wants a key: it is one, and will say so to whoever asks it.
    if (response.status === 401) return response.headers.get('www-authenticate')?.includes('"palimpsest"') ?? false
    const health = (await response.json()) as { version?: unknown; memory?: unknown }
    return response.ok && typeof health.version === 'string' && typeof health.memory === 'object'
  } catch {
    return false
  }
}

function authorization(key: string | undefined): Record<string, string> {
  return key === undefined ? {} : { Authorization: `Bearer ${key}` }
}

export function client(url: string, { tenant, key }: ClientOptions, local: Local | null): Client {
  const headers = { ...authorization(local?.key ?? key), ...(tenant !== undefined && { 'Palimpsest-Tenant': tenant }) }
  const send = async (path: string, init: RequestInit) => {
    const response = await reach(url, path, { ...init, headers: { ...headers, ...(init.headers as Record<string, string>) } })
    if (!response.ok) throw await errorOf(response, key === undefined && local === null)
    return response
  }
  return {
    url,
    inProcess: local !== null,
    send,
    json: async <T>(method: string, path: string, body?: unknown) => {
      const init =
        body === undefined ? { method } : { method, body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } }
      return (await (await send(path, init)).json()) as T
    },
    close: async () => local?.close(),
  }
}

async function reach(url: string, path: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url + path, init)
  } catch (cause) {
    if (init.signal?.aborted) throw init.signal.reason
    const why = ((cause as Error).cause as Error | undefined)?.message ?? (cause as Error).message
    throw new PalimpsestError('network', `No gateway answers at ${url} (${why}). Start one with: palimpsest serve`, { cause })
  }
}

async function errorOf(response: Response, isWithoutKey: boolean): Promise<PalimpsestError> {
  const body = await response.text()
  if (response.status === 401 && isWithoutKey) {
    const { origin } = new URL(response.url)
    return new PalimpsestError(
      'invalid_api_key',
      `The gateway at ${origin} asks for a key. One is sent only where it is named: set PALIMPSEST_URL=${origin} or --url, and PALIMPSEST_KEY.`,
    )
  }
  try {
    const { error } = JSON.parse(body) as {
      error: { code: ErrorCode; message: string; param: string | null; problems?: readonly Problem[] }
    }
    return new PalimpsestError(error.code, error.message, { param: error.param, problems: error.problems ?? [] })
  } catch {
    return new PalimpsestError('network', `${response.url} answered ${response.status} and no JSON; is it a Palimpsest gateway?`)
  }
}

/** `?a=b` of the values that are there, or nothing. */
export function query(values: Readonly<Record<string, string | undefined>>): string {
  const given = Object.entries(values).filter((entry): entry is [string, string] => entry[1] !== undefined)
  return given.length === 0 ? '' : `?${new URLSearchParams(given)}`
}
