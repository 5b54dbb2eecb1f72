/** "PLMP": the first of two numbers, so that no other program in the same database means the same lock. */
const OURS = 0x504c4d50
/** Of locks whose second number comes from a name. */
const NAMED = OURS + 1

/** What is one gateway's at a time: to change tables, and to write the edit log. */
const SECOND = { tables: 1, log: 2 } as const

/** Waits until nobody else holds it; held until the transaction ends. For PostgreSQL, as is the next. */
export function lockStatement(what: keyof typeof SECOND): string {
  return `SELECT pg_advisory_xact_lock(${OURS}, ${SECOND[what]})`
}

/** `held` is 1 where nobody else held the lock of this name; then held until the transaction ends. */
export const TRY_NAMED_LOCK = `SELECT CAST(pg_try_advisory_xact_lock(${NAMED}, hashtext(?)) AS INTEGER) AS held`
