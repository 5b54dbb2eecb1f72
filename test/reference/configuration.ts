import { type SettingEntry, settingEntries, variableOf } from '../../src/config.ts'
import { LIMITS } from '../../src/gateway.ts'
import { jsonSchema } from '../../src/http/openapi/schema.ts'
import { code, kindOf, page, sentence, table } from './markdown.ts'

/** Every setting and every limit, with default and unit. */
export function configurationPage(): string {
  return page(
    'Configuration',
    '`src/config.ts` and `src/gateway.ts`',
    'A flag wins over the environment, the environment over `palimpsest.config.json`, `.yaml` or `.yml` in the working directory, and that over the default. An unknown name is refused.',
    '## Settings',
    table(
      ['in the file, as a flag, in the environment', 'value', ''],
      settingEntries().map((entry) => [
        [entry.name, entry.flag ?? [], entry.variables].flat(2).map(code).join('<br>'),
        [acceptedBy(entry), defaultOf(entry)].filter((part) => part !== '').join('; default: '),
        sentence(entry.help),
      ]),
    ),
    '## Limits',
    'In the file they stand under `limits`; they have no flags.',
    table(
      ['in the file, in the environment', 'unit', 'default', ''],
      Object.entries(LIMITS).map(([name, { value, help }]) => [
        [name, variableOf(name)].map(code).join('<br>'),
        unitOf(name),
        shown(value, name),
        sentence(help),
      ]),
    ),
    'Sizes can be written with KiB, MiB or GiB.',
  )
}

function acceptedBy({ name, schema }: SettingEntry): string {
  const kind = kindOf(jsonSchema(schema))
  return name.endsWith('Bytes') ? 'size' : name.endsWith('Ms') ? kind.replace('whole number', 'milliseconds') : kind
}

function defaultOf({ name, fallback }: SettingEntry): string {
  if ('words' in fallback) return fallback.words
  const { value } = fallback
  if (value === undefined || (Array.isArray(value) && value.length === 0)) return ''
  return typeof value === 'number' ? shown(value, name) : code(String(value))
}

/** The last word of a name, where it is a unit. */
function unitOf(name: string): string {
  const [, last = ''] = /([A-Z][a-z]+)$/.exec(name) ?? []
  const units: Readonly<Record<string, string>> = {
    Bytes: 'bytes',
    Ms: 'milliseconds',
    Chars: 'characters',
    Tokens: 'tokens',
    Levels: 'levels',
  }
  return units[last] ?? (name === 'defaultTemperature' ? '' : 'count')
}

function shown(value: number, name: string): string {
  if (!name.endsWith('Bytes') || value === 0) return String(value)
  const [unit, bytes] = value % 1024 ** 3 === 0 ? ['GiB', 1024 ** 3] : ['MiB', 1024 ** 2]
  return `${Number(value) / Number(bytes)} ${unit}`
}
