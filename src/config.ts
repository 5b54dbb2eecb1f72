/**
 * Flags, environment and an optional file to one frozen Config. The only reader of the environment.
 * Precedence: flag, then environment, then `palimpsest.config.json|yaml|yml` in the working directory, then the default.
 */
import { existsSync, readFileSync } from 'node:fs'
import { availableParallelism, homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { parse as parseYaml } from 'yaml'
import type { z } from 'zod'
import { AUTH } from './access/access.ts'
import { bytes, fraction, httpUrl, names, number, oneOf, origins, orNone, text, truth, upstreamServers } from './config-values.ts'
import { unknownField } from './edit/spelling.ts'
import { PalimpsestError } from './errors.ts'
import { defaultHome } from './models/cache-folder.ts'
import { PACKAGE_ROOT } from './package-root.ts'
import { MULTI_HOP } from './request.ts'

const FILES = ['palimpsest.config.json', 'palimpsest.config.yaml', 'palimpsest.config.yml'] as const
const PREFIX = 'PALIMPSEST_'
const MIB = 1024 * 1024

const ENGINES = ['auto', 'embedded', 'server'] as const

type Env = Readonly<Record<string, string | undefined>>

/** Where the process runs: what defaults and relative paths depend on. */
interface Place {
  readonly env: Env
  readonly cwd: string
  readonly platform: NodeJS.Platform
}

interface Setting<T> {
  readonly schema: z.ZodType<T>
  readonly fallback: (place: Place) => T
  readonly help: string
  /** The flag's value as help shows it, `''` for a switch; absent: no flag, only environment and file. */
  readonly flag?: string
  /** Names other programs gave it in the environment; ours comes first. */
  readonly also?: readonly string[]
  /** Resolved against the working directory. */
  readonly path?: true
  /** The default in words, where it depends on the machine. */
  readonly otherwise?: string
}

const setting = <T>(
  schema: z.ZodType<T>,
  fallback: T | ((place: Place) => T),
  help: string,
  more: Partial<Setting<T>> = {},
): Setting<T> => ({
  schema,
  fallback: typeof fallback === 'function' ? (fallback as (place: Place) => T) : () => fallback,
  help,
  ...more,
})

/** Every setting, by its name in Config and in the file; `--data-dir` and `PALIMPSEST_DATA_DIR` are `dataDir`. */
const SETTINGS = {
  host: setting(text, '127.0.0.1', 'address to listen on', { flag: '<address>' }),
  port: setting(number(0, 65_535), 8_080, 'port to listen on; 0 takes a free one', { flag: '<number>', also: ['PORT'] }),
  url: setting(orNone(httpUrl), undefined, 'address of a running gateway, for the commands that talk to one', { flag: '<url>' }),
  hosts: setting(names, [] as string[], 'further names under which a gateway on loopback may be addressed, with commas between', {
    flag: '<names>',
  }),
  allowOrigin: setting(
    origins,
    [] as string[],
    'origins of web pages that may use the gateway from a browser, with commas between; *: any, while keys are asked for',
    { flag: '<origins>' },
  ),
  auth: setting(
    oneOf(AUTH),
    'auto',
    'who may use the gateway: auto (keys, once there is one or others can reach it), keys, none (from this machine only), none-anywhere',
    { flag: '<who>' },
  ),
  key: setting(orNone(text), undefined, 'API key for the commands that talk to a running gateway'),
  home: setting(
    text,
    ({ env, platform }) => defaultHome(env, platform, homedir()),
    'folder in which model files are kept, shared by all clones',
    { flag: '<folder>', path: true, otherwise: "`palimpsest` in the user's cache folder" },
  ),
  dataDir: setting(text, '.data', 'folder of the edit log and its indexes', { flag: '<folder>', path: true }),
  database: setting(
    orNone(text),
    undefined,
    'PostgreSQL that several gateways share, as postgres://user:password@host:port/name; default: files in the data folder',
    { flag: '<url>', also: ['PALIMPSEST_DATABASE_URL'] },
  ),
  databaseConnections: setting(number(1, 1_000), 8, 'connections to PostgreSQL that one gateway opens at most; one more listens'),
  editsDir: setting(text, 'edits', 'folder whose files of edits are loaded and watched', { flag: '<folder>', path: true }),
  experimentsDir: setting(text, 'experiments', 'folder whose files of experiments are declared at start', { path: true }),
  reportsDir: setting(
    text,
    'reports',
    'folder of reports of evaluations: `palimpsest eval` writes there, the console shows them',
    {
      flag: '<folder>',
      path: true,
    },
  ),
  templatesDir: setting(text, join(PACKAGE_ROOT, 'templates'), 'folder of prompt templates', {
    flag: '<folder>',
    path: true,
    otherwise: "the package's own",
  }),
  model: setting(orNone(text), undefined, 'model to serve: a name, a .gguf file, or the URL of an OpenAI-compatible server', {
    flag: '<model>',
  }),
  models: setting(names, [] as string[], 'further models, loaded when asked for: names or .gguf files, with commas between', {
    flag: '<models>',
  }),
  modelMemoryBytes: setting(orNone(bytes), undefined, 'memory for all models together; default: what is free at the start', {
    flag: '<size>',
  }),
  engine: setting(
    oneOf(ENGINES),
    'auto',
    'what runs a model file: embedded (in this process), server (llama-server as a child process), auto (server where it is built)',
    { flag: '<which>' },
  ),
  build: setting(truth, true, 'do not build the faster engine in the background where there is none yet', { flag: '' }),
  upstreamModel: setting(orNone(text), undefined, 'model to ask for at the server behind --model URL', { flag: '<name>' }),
  upstreamKey: setting(orNone(text), undefined, 'API key for the server behind --model URL'),
  upstreams: setting(
    upstreamServers,
    [],
    'several OpenAI-compatible servers as the model, with commas between; URL*3 is given three times the conversations',
    { flag: '<urls>' },
  ),
  upstreamConnectMs: setting(number(1, 3_600_000), 5_000, 'time for a connection to a server', { flag: '<ms>' }),
  upstreamFirstByteMs: setting(number(1, 3_600_000), 120_000, "time until a server's answer begins", { flag: '<ms>' }),
  upstreamBetweenBytesMs: setting(number(1, 3_600_000), 60_000, 'longest silence of a server in its answer', { flag: '<ms>' }),
  upstreamHealthMs: setting(number(0, 3_600_000), 10_000, 'time between two looks at whether a server lives; 0: none', {
    flag: '<ms>',
  }),
  embedder: setting(orNone(text), undefined, 'embedding model: a name or a .gguf file', { flag: '<model>' }),
  hubEndpoint: setting(orNone(httpUrl), undefined, 'address of the model hub', { also: ['HF_ENDPOINT'] }),
  hubToken: setting(orNone(text), undefined, 'token for the model hub', { also: ['HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN'] }),
  python: setting(text, 'python3', 'Python with pip, for models that come as Python packages'),
  handoffPython: setting(
    orNone(text),
    undefined,
    'Python that has what the parameter editor needs; default: the environment that `palimpsest handoff setup` makes',
  ),
  gpu: setting(
    oneOf(['auto', 'off', 'cuda', 'metal', 'vulkan']),
    'auto',
    'where to run the model: auto, off, cuda, metal or vulkan',
    { flag: '<device>' },
  ),
  threads: setting(
    number(1, 1_024),
    () => availableParallelism(),
    'threads of the model; more than there are free cores makes it crawl',
    { flag: '<number>', otherwise: 'as many as there are cores' },
  ),
  contextTokens: setting(number(256, 1_048_576), 4_096, 'tokens of context in each slot', { flag: '<number>' }),
  slots: setting(number(1, 256), 4, 'conversations answered at the same time', { flag: '<number>' }),
  queueLimit: setting(number(0, 100_000), 64, 'requests that may wait for a slot before 429 is answered', { flag: '<number>' }),
  template: setting(orNone(text), undefined, "template that renders the edits; default: that of the model's family", {
    flag: '<name>',
  }),
  threshold: setting(
    orNone(fraction(0, 1)),
    undefined,
    'score from which the gate lets an edit through, 0 to 1; default: as calibrated',
    { flag: '<score>' },
  ),
  multiHop: setting(
    oneOf(MULTI_HOP),
    'chain',
    'questions that describe what they ask about: off, chain (from edit to edit) or model (the model is asked for what no edit states)',
    { flag: '<how>' },
  ),
  savedCacheBytes: setting(
    bytes,
    0,
    'disk for caches of conversations that lost their slot, kept over restarts (they tell what was asked); 0: none',
    { flag: '<size>' },
  ),
  embedCacheBytes: setting(bytes, 32 * MIB, 'memory for embeddings of recent questions'),
  selectionCacheBytes: setting(bytes, 32 * MIB, 'memory for the edits found for recent turns'),
  watch: setting(truth, true, 'do not follow changes in the folders of edits and templates', { flag: '' }),
  logLevel: setting(
    oneOf(['silent', 'error', 'warn', 'info', 'debug']),
    'warn',
    'silent, error, warn, info or debug; info has one line a request',
    { flag: '<level>' },
  ),
  logPrompts: setting(truth, false, 'write conversations and answers to the log and to spans', {}),
  drainMs: setting(
    number(0, 3_600_000),
    0,
    'time for which a gateway told to stop (SIGTERM) still takes requests, while /readyz answers 503; SIGINT leaves it out',
    { flag: '<ms>' },
  ),
  graceMs: setting(number(0, 3_600_000), 10_000, 'time for running requests to end when the gateway stops', { flag: '<ms>' }),
}

export type SettingName = keyof typeof SETTINGS
type Settings = { readonly [Name in SettingName]: (typeof SETTINGS)[Name] extends Setting<infer T> ? T : never }

/** Everything that can be chosen from outside. Paths are absolute; times in milliseconds, sizes in bytes. */
export interface Config<Limits = Readonly<Record<string, number>>> extends Settings {
  readonly limits: Limits
  /** The file that was read, if there was one. */
  readonly file: string | null
  /** The environment as it was, for programs that are started from here: theirs to read, not ours. */
  readonly environment: Env
}

export interface ConfigSources<Limits> {
  /** By setting name, as typed; only those that were given. */
  readonly flags: Readonly<Record<string, unknown>>
  /** Defaults of the limits, whose names are settings too (in the file under `limits`). */
  readonly limits: Limits
  readonly env?: Env
  readonly cwd?: string
  readonly platform?: NodeJS.Platform
}

/** Throws `invalid_value` or `unknown_field` for the first fault, naming the flag, variable or key at fault. */
export function readConfig<Limits extends { readonly [Name in keyof Limits]: number }>(
  sources: ConfigSources<Limits>,
): Config<Limits> {
  const place: Place = {
    env: sources.env ?? process.env,
    cwd: sources.cwd ?? process.cwd(),
    platform: sources.platform ?? process.platform,
  }
  const limitNames = Object.keys(sources.limits)
  refuseUnknownVariables(place.env, [
    ...Object.entries(SETTINGS as Record<string, Setting<unknown>>).flatMap(variablesOf),
    ...limitNames.map(variableOf),
  ])
  const file = readFile(place.cwd)
  const fileLimits = inFile(file, 'limits', limitNames)
  inFile(file, null, [...Object.keys(SETTINGS), 'limits'])
  const settings = Object.entries(SETTINGS as Record<string, Setting<unknown>>).map(([name, wanted]) => {
    const found = lookUp(name, wanted.also ?? [], place.env, sources.flags, file?.values ?? {}, file?.path)
    const value = found === undefined ? wanted.fallback(place) : checked(wanted.schema, found)
    return [name, wanted.path && typeof value === 'string' ? absolute(value, place.cwd) : value]
  })
  const limits = Object.entries<number>(sources.limits).map(([name, fallback]) => {
    const found = lookUp(name, [], place.env, {}, fileLimits, file?.path)
    return [
      name,
      found === undefined ? fallback : checked(name.endsWith('Bytes') ? bytes : fraction(0, Number.MAX_SAFE_INTEGER), found),
    ]
  })
  return Object.freeze({
    ...Object.fromEntries(settings),
    limits: Object.freeze(Object.fromEntries(limits)),
    file: file?.path ?? null,
    environment: place.env,
  }) as Config<Limits>
}

/** The flag of a setting as the command line declares it (`--port <number>`, `--no-watch`), and its help; null where it has none. */
export function flagOf(name: SettingName): { readonly flags: string; readonly help: string } | null {
  const { flag, help } = (SETTINGS as Record<string, Setting<unknown>>)[name] as Setting<unknown>
  if (flag === undefined) return null
  return { flags: flag === '' ? `--no-${kebab(name)}` : `--${kebab(name)} ${flag}`, help }
}

/** A setting as the reference lists it. */
export interface SettingEntry {
  readonly name: string
  readonly variables: readonly string[]
  readonly flag: string | null
  readonly help: string
  readonly schema: z.ZodType
  /** The default; a text in words where it depends on the machine. */
  readonly fallback: { readonly value: unknown } | { readonly words: string }
}

/** Every setting, for the reference. */
export function settingEntries(): readonly SettingEntry[] {
  const place: Place = { env: {}, cwd: '/', platform: 'linux' }
  return Object.entries(SETTINGS as Record<string, Setting<unknown>>).map(
    ([name, { also = [], help, schema, otherwise, fallback }]) => ({
      name,
      variables: variablesOf([name, { also }]),
      help,
      schema,
      flag: flagOf(name as SettingName)?.flags ?? null,
      fallback: otherwise === undefined ? { value: fallback(place) } : { words: otherwise },
    }),
  )
}

/** The variables of the environment that set it, ours first. */
function variablesOf([name, { also = [] }]: readonly [string, Pick<Setting<unknown>, 'also'>]): readonly string[] {
  return [variableOf(name), ...also]
}

/** The variable of the environment that sets a limit. */
export function variableOf(name: string): string {
  return PREFIX + kebab(name).replaceAll('-', '_').toUpperCase()
}

interface Found {
  readonly value: unknown
  /** What the user wrote it as: `--port`, `PORT`, or the key and its file. */
  readonly as: string
}

function lookUp(
  name: string,
  also: readonly string[],
  env: Env,
  flags: Readonly<Record<string, unknown>>,
  file: Readonly<Record<string, unknown>>,
  path: string | undefined,
): Found | undefined {
  if (flags[name] !== undefined) return { value: flags[name], as: `--${kebab(name)}` }
  const variable = [variableOf(name), ...also].find((key) => (env[key] ?? '').trim() !== '')
  if (variable !== undefined) return { value: env[variable], as: variable }
  return file[name] === undefined || file[name] === null ? undefined : { value: file[name], as: `\`${name}\` in ${path}` }
}

function checked(schema: z.ZodType, { value, as }: Found): unknown {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  throw new PalimpsestError(
    'invalid_value',
    `Expected ${as} to be ${parsed.error.issues[0]?.message}, got ${JSON.stringify(value)}.`,
    { param: as },
  )
}

/** A slip in a variable's name would otherwise pass unseen. PALIMPSEST_TEST_… are the tests' own. */
function refuseUnknownVariables(env: Env, variables: readonly string[]): void {
  const stray = Object.keys(env).find(
    (key) => key.startsWith(PREFIX) && !key.startsWith(`${PREFIX}TEST_`) && !variables.includes(key),
  )
  if (stray === undefined) return
  const hint = unknownField(stray, variables).replace(/^unknown field/, 'Unknown environment variable')
  throw new PalimpsestError(
    'unknown_field',
    `${hint.replace(/; the fields are .*/, '')}${hint.endsWith('?') ? '' : '. Unset it.'}`,
    { param: stray },
  )
}

interface ConfigFile {
  readonly path: string
  readonly values: Readonly<Record<string, unknown>>
}

function readFile(cwd: string): ConfigFile | undefined {
  const [path, second] = FILES.map((name) => join(cwd, name)).filter((candidate) => existsSync(candidate))
  if (path === undefined) return undefined
  if (second !== undefined)
    throw new PalimpsestError('invalid_value', `There are two configuration files, ${path} and ${second}: keep one.`)
  const values = parsed(path)
  if (isObject(values)) return { path, values }
  throw new PalimpsestError('invalid_value', `Expected ${path} to hold an object of settings, such as {"port": 8081}.`)
}

function parsed(path: string): unknown {
  try {
    const content = readFileSync(path, 'utf8')
    return path.endsWith('.json') ? JSON.parse(content) : (parseYaml(content) ?? {})
  } catch (error) {
    throw new PalimpsestError('invalid_value', `${path} can't be read: ${(error as Error).message}`, { cause: error })
  }
}

/** The keys of the file, or of the object at its key `within`; an unknown one is refused by name. */
function inFile(
  file: ConfigFile | undefined,
  within: string | null,
  known: readonly string[],
): Readonly<Record<string, unknown>> {
  if (file === undefined) return {}
  const values = within === null ? file.values : (file.values[within] ?? {})
  if (!isObject(values)) throw new PalimpsestError('invalid_value', `Expected \`${within}\` in ${file.path} to be an object.`)
  const stray = Object.keys(values).find((key) => !known.includes(key))
  if (stray === undefined) return values
  throw new PalimpsestError(
    'unknown_field',
    `${file.path}: ${unknownField(stray, known)}${within === null ? '' : ` (under \`${within}\`)`}`,
    { param: stray },
  )
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const kebab = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
const absolute = (path: string, cwd: string): string => resolve(cwd, path.replace(/^~(?=\/|$)/, homedir()))
