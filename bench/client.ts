/** How a bench asks a running gateway, and what it makes of its figures. */

/** Sends JSON, or a file's bytes, and reads JSON. Throws with what the gateway said when it refuses. */
export const clientOf =
  (url: string) =>
  async <T>(method: string, path: string, body?: object | Buffer): Promise<T> => {
    const raw = Buffer.isBuffer(body)
    const response = await fetch(`${url}${path}`, {
      method,
      headers: { 'content-type': raw ? 'application/octet-stream' : 'application/json' },
      ...(body && { body: raw ? new Uint8Array(body) : JSON.stringify(body) }),
    })
    const answer = (await response.json()) as T
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${JSON.stringify(answer).slice(0, 500)}`)
    return answer
  }

/** The upper one of two in the middle; NaN of nothing. */
export const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN

/** The value at share `p` of the sorted list; NaN of nothing. */
export const at = (list: readonly number[], p: number): number =>
  list.toSorted((a, b) => a - b)[Math.min(list.length - 1, Math.floor(p * list.length))] ?? Number.NaN
