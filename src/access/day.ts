export const DAY_MS = 86_400_000

/** Days since the epoch, UTC. */
export const dayOf = (now: number): number => Math.floor(now / DAY_MS)
