/** As `held_out` in editor/palimpsest_reader/data.py: a tenth of the teams, by name. */
export function heldOut(team: string): boolean {
  const bytes = Buffer.from(team.replace(/[^\p{L}\p{N}_]/gu, '').toLowerCase())
  return bytes.reduce((number, byte) => (number * 256 + byte) % 1_000_003, 0) % 1_000 < 100
}
