import { writeSync } from 'node:fs'
import { join } from 'node:path'
import { assign } from '../../../src/experiment/assign.ts'
import { SqliteSql } from '../../../src/storage/sqlite-sql.ts'
import { experiment, ledgerOf } from '../experiment-data.ts'

/** Records exposures for ever, saying "ack N ARM" after each; run and killed by ledger.test.ts. With a count: says arms only. */
const [dataDir = '', first = '0', dealt] = process.argv.slice(2)
if (dealt !== undefined) {
  const arms = Array.from({ length: Number(dealt) }, (_, unit) => assign(experiment(), `user ${unit}`))
  writeSync(1, `${arms.join('')}\n`)
} else {
  const ledger = await ledgerOf(new SqliteSql(join(dataDir, 'palimpsest.db'), { durable: false }))
  for (let n = Number(first); ; n++) {
    const unit = `user ${n}`
    const arm = assign(experiment(), unit) ?? 0
    await ledger.expose({ experiment: experiment(), unit, arm, completion: `c${n}`, at: n, messages: [] })
    writeSync(1, `ack ${n} ${arm}\n`)
    await new Promise(setImmediate)
  }
}
