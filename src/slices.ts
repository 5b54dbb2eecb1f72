import { setImmediate as yieldToLoop } from 'node:timers/promises'

/** Worked on between two turns of the event loop: some milliseconds of most work. */
const SLICE = 64

/** What is made of each, in order; everybody else is answered between slices of them. */
export async function inSlices<One, Made>(all: Iterable<One>, make: (one: One, index: number) => Made): Promise<Made[]> {
  const out: Made[] = []
  for (const one of all) {
    if (out.length > 0 && out.length % SLICE === 0) await yieldToLoop()
    out.push(make(one, out.length))
  }
  return out
}
