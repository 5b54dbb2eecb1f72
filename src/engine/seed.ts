/** llama.cpp takes this seed for "draw one yourself". */
const RESERVED_SEED = 0xffff_ffff

/** llama.cpp has seeds of 32 bits. The upper half of 64 is folded into the lower, so that every bit counts and a small seed stays as it is. */
export function foldedSeed(seed: number | bigint): number {
  const bits = BigInt.asUintN(64, BigInt(seed))
  return Number((bits >> 32n) ^ BigInt.asUintN(32, bits)) % RESERVED_SEED
}
