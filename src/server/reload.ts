import { type Config, type SettingName, settingEntries } from '../config.ts'
import type { Gateway, Limits } from '../gateway.ts'
import type { EditFolder } from '../memory/files/watcher.ts'
import { readCalibration } from '../selection/gate.ts'
import { declareFiles } from './experiments.ts'
import type { Weights } from './models.ts'

/** Settings that a running gateway takes over when its configuration is read again. */
const RELOADED: ReadonlySet<string> = new Set<SettingName>([
  ...(['hosts', 'logLevel', 'logPrompts', 'threshold', 'graceMs', 'drainMs'] as const),
  ...([
    'upstreams',
    'upstreamModel',
    'upstreamKey',
    'upstreamConnectMs',
    'upstreamFirstByteMs',
    'upstreamBetweenBytesMs',
  ] as const),
])
/** Limits that something was sized by at the start. */
const SIZED_BY: ReadonlySet<keyof Limits> = new Set(['ledgerAnswers', 'replayQueue', 'runningExperiments', 'responseStoreBytes'])

/** Names of what differs: secrets are among the values. */
export interface Differences {
  readonly taken: readonly string[]
  /** What a gateway takes over at its start only. */
  readonly left: readonly string[]
}

interface Reloadable {
  /** As it is now. */
  readonly config: Config<Limits>
  readonly gateway: Gateway
  readonly weights: Weights
  readonly folder: EditFolder
  /** Makes the interface anew: what read a limit when it was made has the latest then. Requests under way go on in the old one. */
  readonly serve: () => void
}

/** Takes over another configuration, and reads the files of edits, templates and experiments again. Throws where it cannot be taken over. */
export function reloaderOf({ config, gateway, weights, folder, serve }: Reloadable) {
  let current = config
  return async (next: Config<Limits>): Promise<Differences> => {
    const differences = differencesOf(current, next)
    await weights.reload(next)
    takeOver(gateway, next)
    serve()
    gateway.templates.reload()
    await folder.reload()
    await declareFiles(next.experimentsDir, gateway)
    current = next
    return differences
  }
}

function differencesOf(before: Config<Limits>, after: Config<Limits>): Differences {
  const differs = (one: unknown, other: unknown) => JSON.stringify(one) !== JSON.stringify(other)
  const settings = settingEntries()
    .map(({ name }) => name as SettingName)
    .filter((name) => differs(before[name], after[name]))
  const limits = (Object.keys(before.limits) as (keyof Limits)[]).filter((name) => before.limits[name] !== after.limits[name])
  return {
    taken: [...settings.filter((name) => RELOADED.has(name)), ...limits.filter((name) => !SIZED_BY.has(name))],
    left: [...settings.filter((name) => !RELOADED.has(name)), ...limits.filter((name) => SIZED_BY.has(name))],
  }
}

type Writable<T> = { -readonly [Name in keyof T]: T[Name] }

/**
 * Changes the gateway in place, since every part of it holds it: a request under way may see a new limit, and none is broken off. Throws
 * `invalid_value` for a threshold that is none, before anything is changed.
 */
function takeOver(gateway: Gateway, config: Config<Limits>): void {
  const { hosts, logPrompts, limits, threshold } = config
  const calibration = readCalibration(undefined, threshold)
  const kept = Object.fromEntries(Object.entries(limits).filter(([name]) => !SIZED_BY.has(name as keyof Limits)))
  Object.assign(gateway.limits, kept)
  Object.assign<Writable<Gateway>, Partial<Gateway>>(gateway, { hosts, logPrompts, calibration })
}
