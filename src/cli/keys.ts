import { type Command, Option } from 'commander'
import { z } from 'zod'
import { type Key, SCOPES } from '../access/key.ts'
import { KeyStore } from '../access/key-store.ts'
import { isoDate, parseInstant } from '../edit/instant.ts'
import { PalimpsestError } from '../errors.ts'
import { openKeys } from '../server/access.ts'
import { openDatabase } from '../server/database.ts'
import { count, table } from '../terminal/table.ts'
import { DEFAULT_TENANT, tenant } from '../wire/palimpsest/selection.ts'
import { configOf, withSettings } from './options.ts'

interface Typed {
  readonly json?: boolean
}

interface NewTyped extends Typed {
  readonly name: string
  readonly tenant?: string
  readonly scope: string
  readonly requestsPerMinute?: string
  readonly tokensPerDay?: string
  readonly expires?: string
}

/** What a command prints: `out` is for programs, `note` for whoever looks on. */
interface Said {
  readonly out: string
  readonly note?: string
}

/** `palimpsest keys …`, on the data folder or the database; gateways that run there go by the change within a second. */
export function addKeysCommand(program: Command): void {
  const keys = program.command('keys').description('API keys: who may use the gateway, and how much')
  add(keys, 'create', 'make a key, and show it this once', (store, _args, options: NewTyped, now) => create(store, options, now))
    .addOption(new Option('--name <name>', 'what it is for').makeOptionMandatory())
    .option('--tenant <name>', `the one tenant it acts for; default: ${DEFAULT_TENANT}, or any with the scope admin`)
    .option('--scope <scopes>', `what it may be used for, with commas between: ${SCOPES.join(', ')}`, 'inference')
    .option('--requests-per-minute <number>', 'requests it may make a minute; default: any number')
    .option('--tokens-per-day <number>', 'tokens of prompts and answers, by the calendar day, UTC; default: any number')
    .option('--expires <when>', 'when it ends: 30d, 12h, or ISO 8601; default: never')
  add(keys, 'list', 'keys, oldest first, and the tokens they have used today', list)
  add(keys, 'revoke <id>', 'end a key, now and for good', async (store, [id = ''], _options, now) => {
    const { name } = await store.revoke(id, now)
    return { out: `${id} (${name}) is revoked.` }
  })
}

function add<O extends Typed>(
  parent: Command,
  usage: string,
  description: string,
  action: (store: KeyStore, args: readonly string[], options: O, now: number) => Promise<Said>,
): Command {
  const command = parent.command(usage).description(description).option('--json', 'print JSON')
  withSettings(command, 'dataDir', 'database')
  return command.action(async () => {
    const config = configOf(command)
    const database = openDatabase(config, (message) => process.stderr.write(`${message}\n`))
    const store = database === undefined ? await openKeys(config.dataDir) : await KeyStore.open(database)
    try {
      const { out, note } = await action(store, command.args, command.opts<O>(), Date.now())
      process.stdout.write(`${out}\n`)
      if (note !== undefined) process.stderr.write(`${note}\n`)
    } finally {
      await store.database.close()
    }
  })
}

async function create(store: KeyStore, typed: NewTyped, now: number): Promise<Said> {
  const name = typedAs(
    '--name',
    z
      .string()
      .trim()
      .regex(/^[^\p{C}]{1,64}$/u, { error: '1 to 64 printable characters' }),
    typed.name,
  )
  const scope = z.enum(SCOPES, { error: `${SCOPES.join(', ')}, with commas between` })
  const scopes = [...new Set(typed.scope.split(',').map((one) => typedAs('--scope', scope, one.trim())))]
  const admin = scopes.includes('admin')
  if (admin && typed.tenant !== undefined)
    throw new PalimpsestError(
      'invalid_value',
      'A key with the scope admin may name any tenant: leave --tenant or that scope away.',
    )
  const limit = (flag: string, value: string | undefined) =>
    value === undefined
      ? undefined
      : typedAs(
          flag,
          z.coerce.number().pipe(z.int({ error: 'a whole number above 0' }).min(1, { error: 'a whole number above 0' })),
          value,
        )
  const requestsPerMinute = limit('--requests-per-minute', typed.requestsPerMinute)
  const tokensPerDay = limit('--tokens-per-day', typed.tokensPerDay)
  const fields = {
    name,
    scopes,
    tenant: admin ? null : typedAs('--tenant', tenant, typed.tenant ?? DEFAULT_TENANT),
    ...(requestsPerMinute !== undefined && { requestsPerMinute }),
    ...(tokensPerDay !== undefined && { tokensPerDay }),
    ...(typed.expires !== undefined && { expiresAt: endOf(typed.expires, now) }),
  }
  const { key, token } = await store.create(fields, now)
  if (typed.json) return { out: JSON.stringify({ ...wire(key, now), token }, null, 2) }
  return { out: token, note: `This is key ${key.id} (${name}). It is shown this once: only a hash of it is kept.` }
}

function typedAs<T>(flag: string, schema: z.ZodType<T>, value: unknown): T {
  const read = schema.safeParse(value)
  if (read.success) return read.data
  throw new PalimpsestError(
    'invalid_value',
    `Expected ${flag} to be ${read.error.issues[0]?.message}, got ${JSON.stringify(value)}.`,
  )
}

const UNIT_MS: Readonly<Record<string, number>> = { d: 86_400_000, h: 3_600_000, m: 60_000 }

function endOf(written: string, now: number): number {
  const [, number, unit = ''] = /^(\d{1,5})([dhm])$/.exec(written.trim()) ?? []
  const at = number === undefined ? parseInstant(written) : now + Number(number) * (UNIT_MS[unit] ?? 0)
  if (typeof at === 'string') throw new PalimpsestError('invalid_value', `--expires: ${at}. Or say how long: 30d, 12h, 90m.`)
  if (at <= now) throw new PalimpsestError('invalid_value', `--expires: ${written} is over already.`)
  return Math.round(at)
}

async function list(store: KeyStore, _args: readonly string[], { json }: Typed, now: number): Promise<Said> {
  const keys = await store.list(now)
  if (json)
    return { out: JSON.stringify({ data: keys.map((key) => ({ ...wire(key, now), tokens_today: key.tokensUsed })) }, null, 2) }
  const rows = keys.map((key) => [
    ...[key.id, key.name, key.tenant ?? 'any', key.scopes.join(','), stateOf(key, now)],
    ...[key.requestsPerMinute?.toLocaleString('en') ?? '', key.tokensPerDay?.toLocaleString('en') ?? ''],
    ...[key.tokensUsed.toLocaleString('en'), isoDate(key.createdAt).slice(0, 10)],
    key.expiresAt === undefined ? '' : isoDate(key.expiresAt).slice(0, 16),
  ])
  const heading = ['id', 'name', 'tenant', 'scopes', 'state', 'a minute>', 'a day>', 'today>', 'made', 'expires']
  return { out: rows.length === 0 ? 'No keys yet.' : `${table(heading, rows)}\n${count(rows.length, 'key')}` }
}

function stateOf({ revokedAt, expiresAt }: Key, now: number): 'live' | 'revoked' | 'expired' {
  if (revokedAt !== undefined) return 'revoked'
  return expiresAt !== undefined && expiresAt <= now ? 'expired' : 'live'
}

function wire(key: Key, now: number) {
  return {
    id: key.id,
    name: key.name,
    tenant: key.tenant,
    scopes: key.scopes,
    state: stateOf(key, now),
    requests_per_minute: key.requestsPerMinute ?? null,
    tokens_per_day: key.tokensPerDay ?? null,
    created_at: isoDate(key.createdAt),
    expires_at: key.expiresAt === undefined ? null : isoDate(key.expiresAt),
    revoked_at: key.revokedAt === undefined ? null : isoDate(key.revokedAt),
  }
}
