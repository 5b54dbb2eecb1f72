import { setImmediate as yieldToLoop } from 'node:timers/promises'

/** Worked on between two turns of the event loop. By time, not by number: a turn may be long where others work in slices, too, and an edit too. */
const SLICE_MS = 4
/** A list up to this long is done in one turn; a longer one leaves the next turn to others at once. */
const SHORT = 64

/** What is made of each, in order; everybody else is answered between slices. */
export async function inSlices<One, Made>(all: Iterable<One>, make: (one: One, index: number) => Made): Promise<Made[]> {
  const out: Made[] = []
  let until = performance.now() + SLICE_MS
  for (const one of all) {
    if (out.length === SHORT || performance.now() >= until) {
      await yieldToLoop()
      until = performance.now() + SLICE_MS
    }
    out.push(make(one, out.length))
  }
  return out
}
