#!/usr/bin/env node
// Starts Palimpsest. A clone first installs and builds what is missing; the package comes without scripts/ and has nothing to prepare.
import { existsSync } from 'node:fs'

const prepare = new URL('../scripts/prepare.mjs', import.meta.url)
const ready = !existsSync(prepare) || (await (await import(prepare.href)).prepared())
if (ready) await import('../dist/main.js')
