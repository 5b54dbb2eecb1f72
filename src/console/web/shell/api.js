// @ts-check
// The gateway's API as the pages use it. Errors are thrown as ApiError; a key, where one is needed, is asked for once a tab.

/** What went wrong, as the gateway says it: `problems` name fields. */
export class ApiError extends Error {
  /** @param {number} status @param {{message?: string, code?: string, param?: string | null, problems?: {field: string | null, message: string, index?: number, line?: number}[]}} body */
  constructor(status, body) {
    super(body.message ?? `The gateway answered with status ${status}.`)
    this.status = status
    this.code = body.code ?? ''
    this.param = body.param ?? null
    this.problems = body.problems ?? []
  }
}

const KEY = 'palimpsest-key'

/** Asks the user for a key; resolves to null where none is given. The shell puts its dialog here. @type {{ask: () => Promise<string | null>}} */
export const keys = { ask: async () => null }

/** @type {Promise<string | null> | null} */
let asking = null
/** The address at which no key was given: that page does not ask again, however often it polls. @type {string | null} */
let declined = null

/**
 * @param {string} path
 * @param {{method?: string, body?: unknown, headers?: Record<string, string>, signal?: AbortSignal}} [options] `body`: sent as JSON, or as it is where it is text or a Blob
 * @returns {Promise<Response>} one whose status is 2xx
 */
export async function request(path, { method, body, headers = {}, signal } = {}) {
  const raw = typeof body === 'string' || body instanceof Blob
  /** @type {string | null} */
  let key = null
  const send = () => {
    key = sessionStorage.getItem(KEY)
    return fetch(path, {
      method: method ?? (body === undefined ? 'GET' : 'POST'),
      headers: {
        ...(body !== undefined && !raw && { 'Content-Type': 'application/json' }),
        ...(key && { Authorization: `Bearer ${key}` }),
        ...headers,
      },
      ...(body !== undefined && { body: raw ? body : JSON.stringify(body) }),
      ...(signal && { signal }),
    })
  }
  const reached = async () => {
    try {
      return await send()
    } catch (error) {
      if (signal?.aborted) throw error
      throw new ApiError(0, { message: 'The gateway cannot be reached. Is it still running?', code: 'unreachable' })
    }
  }
  let response = await reached()
  if (response.status === 401 && (await newKey(key))) response = await reached()
  if (response.ok) return response
  const text = await response.text()
  let said = {}
  try {
    said = JSON.parse(text).error ?? {}
  } catch {
    // Not the gateway's own words: a proxy's page, say.
  }
  throw new ApiError(response.status, said)
}

/** Whether there is another key by now than the one that was refused; asks for it where there is none. @param {string | null} refused */
async function newKey(refused) {
  if (sessionStorage.getItem(KEY) !== refused) return true
  if (declined === location.hash) return false
  asking ??= keys.ask().finally(() => {
    asking = null
  })
  const key = await asking
  declined = key ? null : location.hash
  if (key) sessionStorage.setItem(KEY, key)
  return key !== null
}

/** The same, read as JSON. @param {string} path @param {Parameters<typeof request>[1]} [options] @returns {Promise<any>} */
export async function json(path, options) {
  return (await request(path, options)).json()
}

/**
 * The objects of an event stream (`data: {…}`) as they come.
 * @param {Response} response @returns {AsyncGenerator<any, void>}
 */
export async function* events(response) {
  for await (const line of lines(response)) {
    if (!line.startsWith('data:')) continue
    const data = line.slice(5).trim()
    if (data === '[DONE]') return
    const value = JSON.parse(data)
    if (value.error) throw new ApiError(response.status, value.error)
    yield value
  }
}

/** The lines of a response as they come (NDJSON, event streams). @param {Response} response @returns {AsyncGenerator<string, void>} */
export async function* lines(response) {
  if (response.body === null) return
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  try {
    for (;;) {
      const { done, value } = await reader.read()
      const parts = (rest + (value ?? '')).split('\n')
      rest = done ? '' : (parts.pop() ?? '')
      for (const part of parts) if (part !== '') yield part
      if (done) return
    }
  } finally {
    reader.cancel().catch(() => {})
  }
}
