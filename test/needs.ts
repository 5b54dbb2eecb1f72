import { describe } from 'vitest'

/**
 * A suite that needs what a machine may lack: where it is lacking, its tests are skipped, and its name says what to do about it, which
 * `npm test` repeats at its end.
 */
export function needing(there: boolean, mend: string) {
  return (name: string, options: { readonly timeout?: number }, tests: () => void) =>
    describe.runIf(there)(there ? name : `${name} [skipped: ${mend}]`, options, tests)
}

export const MODELS = 'no model is in ~/.cache/palimpsest/models; "npm test" fetches them (PALIMPSEST_HOME unset)'
export const SERVER =
  'no model or llama-server; "npm test" sets both up with git, cmake, make and a C++ compiler (Debian: apt install git cmake make g++)'
export const DATA = 'no benchmark files; set PALIMPSEST_TEST_DATA to their folder'
