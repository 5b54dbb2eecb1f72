/** A request of the soak's clients. */

/** Resolves to the status once the answer has been read whole; rejects where there is none. */
export type Send = (path: string, body?: unknown, type?: string, signal?: AbortSignal) => Promise<number>

export function sender(url: string, token: string): Send {
  return async (path, body, type = 'application/json', signal) => {
    const response = await fetch(url + path, {
      method: body === undefined ? 'GET' : 'POST',
      headers: { authorization: `Bearer ${token}`, ...(body !== undefined && { 'content-type': type }) },
      ...(body !== undefined && { body: typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body) }),
      ...(signal && { signal }),
    })
    await response.text()
    return response.status
  }
}
