import { resolve } from 'node:path'
import type { Command } from 'commander'
import type { RestoredKeys } from '../backup/keys.ts'
import { createSnapshot, listSnapshots, restoreSnapshot, snapshotPath, snapshotsDir } from '../backup/snapshot.ts'
import type { Config } from '../config.ts'
import { PalimpsestError } from '../errors.ts'
import { configurationOf, defaultSnapshot } from '../server/handoffs.ts'
import { VERSION } from '../server/parts.ts'
import { count, printable, table } from '../terminal/table.ts'
import { configOf, withSettings } from './options.ts'

function keysText({ from, live }: RestoredKeys): string {
  const named = live.map(({ id, name, scopes }) => `  ${id}  ${printable(name)} (${scopes.join(', ')})`)
  switch (from) {
    case 'own':
      return `The API keys are those that the folder had before, ${live.length} of them live; the snapshot's stay in the snapshot.`
    case 'snapshot':
      return [`The API keys are the snapshot's, ${live.length} of them live. Revoke those that you do not know:`, ...named].join(
        '\n',
      )
    case 'none':
      return 'There are no API keys: whoever reaches the gateway on this machine may do everything.'
    default:
      return from satisfies never
  }
}

/** `palimpsest snapshot …`: memory, adapters and configuration, kept and put back. */
export function addSnapshotCommand(program: Command): void {
  const snapshot = program.command('snapshot').description('keep memory, keys, adapters and configuration, and put them back')
  const create = snapshot
    .command('create')
    .description('take one; a gateway may be running')
    .option('--out <path>', 'a folder, or a file that ends in .tar; default: beside the data folder')
  withSettings(create, 'dataDir', 'editsDir')
  create.action(async () => {
    const config = configOf(create)
    refuseDatabase(config)
    const { out } = create.opts<{ out?: string }>()
    const to = out === undefined ? defaultSnapshot(config.dataDir, 'snapshot') : resolve(out)
    const configuration = configurationOf(config)
    const { files } = await createSnapshot({
      dataDir: config.dataDir,
      to,
      configuration,
      reason: 'by hand',
      palimpsest: VERSION,
      now: Date.now,
    })
    const bytes = files.reduce((sum, file) => sum + file.bytes, 0)
    process.stdout.write(`${count(files.length, 'file')}, ${(bytes / 1e6).toFixed(1)} MB: ${to}\n`)
  })
  const restore = snapshot
    .command('restore <snapshot>')
    .description('put one in the place of the data folder, which no gateway may hold; what is there now is kept aside')
  withSettings(restore, 'dataDir')
  restore.action(async (named: string) => {
    const config = configOf(restore)
    refuseDatabase(config)
    const { dataDir } = config
    const { manifest, aside, configuration, keys } = await restoreSnapshot(snapshotPath(named, dataDir), dataDir, Date.now)
    const lines = [
      `${dataDir} is as it was on ${manifest.created} (${manifest.reason}).`,
      keysText(keys),
      ...(aside === null ? [] : [`What was there is kept: ${aside}`]),
      ...(configuration === null ? [] : [`Files of configuration as they were then, to be put back by hand: ${configuration}`]),
    ]
    process.stdout.write(`${lines.join('\n')}\n`)
  })
  const list = snapshot.command('list').description('those beside the data folder, latest first')
  withSettings(list, 'dataDir')
  list.action(async () => {
    const { dataDir } = configOf(list)
    const all = await listSnapshots(snapshotsDir(dataDir))
    const rows = all.map(({ path, manifest, bytes }) => [
      path.slice(snapshotsDir(dataDir).length + 1),
      manifest?.created.slice(0, 19) ?? '',
      `${(bytes / 1e6).toFixed(1)} MB`,
      manifest?.reason ?? (path.endsWith('.tar') ? 'tar file' : 'no manifest'),
    ])
    process.stdout.write(
      `${rows.length === 0 ? `No snapshots in ${snapshotsDir(dataDir)}.` : table(['name', 'taken', 'size>', 'why'], rows)}\n`,
    )
  })
}

/** A snapshot is of a folder. */
function refuseDatabase({ database }: Pick<Config, 'database'>): void {
  if (database === undefined) return
  throw new PalimpsestError(
    'invalid_value',
    'The memory is in PostgreSQL, and a snapshot would not hold it: use pg_dump and pg_restore, as docs/guide/operations.md says.',
    { param: 'database' },
  )
}
