import { type EditFolder, type FolderOptions, openFolder } from '../memory/files/watcher.ts'
import { Leader } from '../storage/leader.ts'
import type { SqlDatabase } from '../storage/sql.ts'

/** The folder of edits; where gateways share a database, one of them follows it, so that their copies of it do not undo each other. */
export function openEditFolder(options: FolderOptions, database: SqlDatabase | undefined): Promise<EditFolder> {
  return database === undefined ? openFolder(options) : followedByOne(options, database)
}

async function followedByOne(options: FolderOptions, database: SqlDatabase): Promise<EditFolder> {
  let folder: EditFolder | undefined
  const leader = await Leader.open({
    name: 'edits folder',
    database,
    lead: async () => {
      folder = await openFolder(options)
    },
    yields: async () => {
      const left = folder
      folder = undefined
      await left?.close()
    },
    warn: (message) => options.log.warn({}, message),
  })
  return {
    problems: () => folder?.problems() ?? [],
    counts: () => folder?.counts() ?? [],
    reload: async () => folder?.reload(),
    close: () => leader.close(),
  }
}
