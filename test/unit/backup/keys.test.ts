import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as tar from 'tar'
import { expect, onTestFinished, test, vi } from 'vitest'
import type { NewKey } from '../../../src/access/key-store.ts'
import { createSnapshot, restoreSnapshot } from '../../../src/backup/snapshot.ts'
import { openMemory } from '../../../src/memory/store.ts'
import { openKeys } from '../../../src/server/access.ts'
import { Database } from '../../../src/storage/database.ts'
import { fakeEmbedder } from '../../support/memory-data.ts'

/** For a machine that does other things too. */
vi.setConfig({ testTimeout: 60_000 })

const log = { info: () => {}, warn: () => {}, error: () => {} }
const ADMIN: NewKey = { name: 'the owner', tenant: null, scopes: ['admin'] }

function scratch(): string {
  const root = mkdtempSync(join(tmpdir(), 'palimpsest-backup-'))
  onTestFinished(() => rmSync(root, { recursive: true, force: true }))
  return root
}

/** A data folder with a memory, and these keys. */
async function folder(root: string, name: string, keys: readonly NewKey[] = []): Promise<string> {
  const dataDir = join(root, name)
  await (await openMemory({ dataDir, embedder: fakeEmbedder(), now: Date.now, log })).close()
  for (const key of keys) await withKeys(dataDir, (store) => store.create(key, Date.now()))
  return dataDir
}

async function withKeys<Result>(
  dataDir: string,
  work: (store: Awaited<ReturnType<typeof openKeys>>) => Promise<Result>,
): Promise<Result> {
  const store = await openKeys(dataDir)
  try {
    return await work(store)
  } finally {
    await store.database.close()
  }
}

const namesIn = (dataDir: string) => withKeys(dataDir, async (store) => (await store.list(Date.now())).map(({ name }) => name))
const take = (dataDir: string, to: string, configuration: Record<string, string> = {}) =>
  createSnapshot({ dataDir, to, configuration, reason: 'test', palimpsest: '1', now: Date.now })

/** Files and folders below that others than the owner may read. */
function open(path: string): string[] {
  const isOpen = (file: string) => (statSync(file).mode & 0o077) !== 0
  const below = statSync(path).isDirectory()
    ? readdirSync(path, { recursive: true, encoding: 'utf8' }).map((name) => join(path, name))
    : []
  return [path, ...below].filter(isOpen)
}

test.each(['folder', 'file.tar'])(
  'a snapshot (%s) keeps the keys, for its owner alone, and a folder without any gets them',
  async (name) => {
    const root = scratch()
    const dataDir = await folder(root, 'data', [ADMIN])
    const to = join(root, 'kept', name)
    const { files } = await take(dataDir, to)
    expect(files.map(({ path }) => path)).toContain('data/keys.db')
    expect(open(to)).toEqual([])
    const other = await folder(root, 'other')
    const { keys, aside } = await restoreSnapshot(to, other, Date.now)
    expect(keys).toMatchObject({ from: 'snapshot', live: [{ name: 'the owner', scopes: ['admin'] }] })
    expect(await namesIn(other)).toEqual(['the owner'])
    expect(open(other)).toEqual([])
    expect(existsSync(aside ?? '')).toBe(true)
  },
)

test('keys that a folder has stay: what was revoked since the snapshot is not valid again, and nobody lets himself in by a snapshot', async () => {
  const root = scratch()
  const dataDir = await folder(root, 'data', [ADMIN])
  await take(dataDir, join(root, 'kept'))
  await withKeys(dataDir, async (store) => {
    const [{ id } = { id: '' }] = await store.list(Date.now())
    await store.revoke(id, Date.now())
    await store.create({ ...ADMIN, name: 'the next owner' }, Date.now())
  })
  const { keys } = await restoreSnapshot(join(root, 'kept'), dataDir, Date.now)
  expect(keys).toMatchObject({ from: 'own', live: [{ name: 'the next owner' }] })
  const planted = await folder(root, 'planted', [{ ...ADMIN, name: 'a stranger' }])
  await take(planted, join(root, 'made-up'))
  expect((await restoreSnapshot(join(root, 'made-up'), dataDir, Date.now)).keys.live).toMatchObject([{ name: 'the next owner' }])
})

test('without any keys, that is what is said', async () => {
  const root = scratch()
  await take(await folder(root, 'data'), join(root, 'kept'))
  expect((await restoreSnapshot(join(root, 'kept'), await folder(root, 'other'), Date.now)).keys).toEqual({
    from: 'none',
    live: [],
  })
})

/** Changes a file of a snapshot, and its manifest with it. */
function forge(snapshot: string, path: string, change: (file: string) => void): void {
  const file = join(snapshot, path)
  change(file)
  const manifest = JSON.parse(readFileSync(join(snapshot, 'manifest.json'), 'utf8'))
  const bytes = readFileSync(file)
  const entry = manifest.files.find((one: { path: string }) => one.path === path)
  Object.assign(entry, { bytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') })
  writeFileSync(join(snapshot, 'manifest.json'), JSON.stringify(manifest))
}

test.each([
  ['with a trigger more', "CREATE TRIGGER t AFTER INSERT ON usage BEGIN UPDATE keys SET scopes = 'admin'; END"],
  ['with a view in the place of a table', 'DROP TABLE usage; CREATE VIEW usage AS SELECT 1 AS key'],
  ['with a scope that is none', "UPDATE keys SET scopes = 'everything'"],
  ['of no tenant and for all that tenants do', "UPDATE keys SET scopes = 'inference', tenant = NULL"],
  ['whose id is none', "UPDATE keys SET id = 'x'"],
])('made-up keys are refused: %s', async (_what, sql) => {
  const root = scratch()
  const kept = join(root, 'kept')
  await take(await folder(root, 'data', [ADMIN]), kept)
  forge(kept, 'data/keys.db', (file) => {
    const db = new Database(file)
    db.exec(sql)
    db.close()
  })
  const other = await folder(root, 'other')
  await expect(restoreSnapshot(kept, other, Date.now)).rejects.toMatchObject({
    code: 'snapshot_broken',
    message: expect.stringMatching(/key/),
  })
  expect(await namesIn(other)).toEqual([])
})

test('a link in a snapshot is followed by nobody', async () => {
  const root = scratch()
  const [kept, secret] = [join(root, 'kept'), join(root, 'secret')]
  await take(await folder(root, 'data'), kept)
  mkdirSync(secret)
  writeFileSync(join(secret, 'file'), 'theirs')
  symlinkSync(secret, join(kept, 'data', 'adapters'))
  await tar.create({ file: join(root, 'made-up.tar'), cwd: kept }, ['.'])
  const other = await folder(root, 'other')
  for (const from of [kept, join(root, 'made-up.tar')])
    await expect(restoreSnapshot(from, other, Date.now)).rejects.toMatchObject({ code: 'snapshot_broken' })
})

test('configuration that links lead to is kept as files, and a circle of links ends nothing', async () => {
  const root = scratch()
  const [dataDir, edits] = [await folder(root, 'data'), join(root, 'edits')]
  mkdirSync(edits)
  writeFileSync(join(root, 'shared.txt'), 'It rains.\n')
  symlinkSync(join(root, 'shared.txt'), join(edits, 'linked.txt'))
  symlinkSync(edits, join(edits, 'circle'))
  symlinkSync(join(root, 'nowhere'), join(edits, 'dangling.txt'))
  await take(dataDir, join(root, 'kept'), { edits })
  expect(readdirSync(join(root, 'kept', 'configuration', 'edits'))).toEqual(['linked.txt'])
  expect(readFileSync(join(root, 'kept', 'configuration', 'edits', 'linked.txt'), 'utf8')).toBe('It rains.\n')
})
