/** Several metrics are several chances to be wrong. */

/** Holm 1979: adjusted p-values; those at most alpha are significant with at most alpha for one false among them, however they depend. */
export function holm(pValues: readonly number[]): number[] {
  const order = pValues.map((p, at) => ({ p, at })).sort((a, b) => a.p - b.p)
  const out = new Array<number>(pValues.length)
  let least = 0
  for (const [rank, { p, at }] of order.entries()) {
    least = Math.min(1, Math.max(least, (pValues.length - rank) * p))
    out[at] = least
  }
  return out
}
