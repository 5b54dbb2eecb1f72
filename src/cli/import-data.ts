import { resolve } from 'node:path'
import type { Command } from 'commander'
import { importData } from '../backup/data-import.ts'
import { PalimpsestError } from '../errors.ts'
import { Postgres } from '../storage/postgres/postgres.ts'
import { count } from '../terminal/table.ts'
import { configOf, withSettings } from './options.ts'

/** `palimpsest import-data DIR`: from one gateway's folder to a database for many. */
export function addImportDataCommand(program: Command): void {
  const command = program
    .command('import-data <dir>')
    .description('move the data folder of one gateway into an empty PostgreSQL for many; the folder stays')
  withSettings(command, 'database')
  command.action(async (dir: string) => {
    const { database: url, databaseConnections: connections } = configOf(command)
    if (url === undefined)
      throw new PalimpsestError('missing_field', 'Name the database: --database postgres://user:password@host:port/name.', {
        param: 'database',
      })
    const warn = (message: string) => void process.stderr.write(`${message}\n`)
    const database = new Postgres({ url, connections, warn })
    try {
      const { moved, left } = await importData({ dataDir: resolve(dir), database, now: Date.now, warn })
      const lines = [
        ...[...moved].map(([what, rows]) => `${what}: ${count(rows, 'row')}`),
        ...left.map((file) => `Not moved: ${file}`),
        `Moved into ${database.name}. The folder ${resolve(dir)} stays.`,
      ]
      process.stdout.write(`${lines.join('\n')}\n`)
    } finally {
      await database.close()
    }
  })
}
