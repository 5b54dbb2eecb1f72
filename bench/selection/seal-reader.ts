/** Makes the reader's GGUF of its weights and of the body, and writes down its length and checksum: `npm run seal:reader`, after each training. */

import { createHash } from 'node:crypto'
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { convert, READER_WEIGHTS } from '../../src/models/packages/packages.ts'

const { body } = parseArgs({ options: { body: { type: 'string' } } }).values
if (body === undefined) throw new Error('Expected --body FILE, the 4-bit file of multilingual-e5-small.')
const made = `${READER_WEIGHTS}.gguf`
await convert('reader', [body], made)
const seal = { bytes: statSync(made).size, sha256: createHash('sha256').update(readFileSync(made)).digest('hex') }
rmSync(made)
writeFileSync(READER_WEIGHTS.replace(/safetensors$/, 'json'), `${JSON.stringify(seal)}\n`)
console.log(seal)
