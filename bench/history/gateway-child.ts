import { writeSync } from 'node:fs'
import { Postgres } from '../../src/storage/postgres/postgres.ts'
import { serve } from '../../test/http/fakes.ts'

/** One of several gateways over a PostgreSQL, as `palimpsest serve` opens it, but over stand-ins for models. Started and killed by cluster.ts. */
const [dataDir = '', url = ''] = process.argv.slice(2)
const database = new Postgres({ url, warn: () => {} })
try {
  const served = await serve({ dataDir, database })
  writeSync(1, `  URL ${served.base}/v1\n`)
} catch (error) {
  // Its message alone, as the command line has it: what is behind it may be long.
  writeSync(2, `${error}\n`)
  process.exit(1)
}
