/**
 * Vectors for any number of made-up subjects, like those of a real embedder without its time. Some hundred names in each template are
 * embedded for real (once; kept in a file); the vector of a made-up name in a template is the template's mean plus a mixture of two real
 * names' deviations from it, one for each of its words, and something of the name's own, without which any two names of one word would be
 * nearer to each other than real ones are. docs/LOG.md compares the nearest neighbours with those of real edits.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import type { Edit } from '../../src/edit/edit.ts'
import { MASK } from '../../src/edit/edit.ts'
import type { Embedder } from '../../src/engine/engine.ts'

/** A statement and a question of each relation; X is the subject. */
export const RELATIONS: readonly (readonly [statement: string, question: string])[] = [
  ['The mayor of X is', 'Who is the mayor of X?'],
  ['X was founded in', 'When was X founded?'],
  ['The owner of X is', 'Who owns X?'],
  ['X is located in the country of', 'In which country is X?'],
  ['The language of X is', 'What language is spoken in X?'],
  ['X is named after', 'After whom is X named?'],
  ['The director of X is', 'Who directed X?'],
  ['X was born in the city of', 'Where was X born?'],
  ['The profession of X is', 'What does X do for a living?'],
  ['X plays for the team', 'Which team does X play for?'],
  ['The headquarters of X is in', 'Where is the head office of X?'],
  ['X died of', 'What was the cause of death of X?'],
]
const TEMPLATES = RELATIONS.flat()
const FIRST =
  'Anna Boris Clara Dmitri Elena Felix Grace Hassan Irene Jonas Karim Lucia Martin Nadia Oscar Paula Quentin Rosa Stefan Tomoko'
const SECOND =
  'Ackermann Bellini Castle Duarte Eriksen Fontaine Garden Harbour Ivanov Junction Kowalski Lake Moreau Nakamura Okafor Petrov River Sinclair Torres Valley'
const NAMES = FIRST.split(' ').flatMap((first) => SECOND.split(' ').map((second) => `${first} ${second}`))
const SYLLABLES =
  'ba be bi bo da de di do ka ke ki ko la le li lo ma me mi mo na ne ni no ra re ri ro sa se si so ta te ti to va ve vi vo'.split(
    ' ',
  )
/** As `name` writes them; no other word of a template has this shape twice in a row. */
const NAME = /\b([A-Z][aeiou](?:[a-z][aeiou]){2}) ([A-Z][aeiou](?:[a-z][aeiou]){2})\b/g

export const namesIn = (text: string): readonly string[] => text.match(NAME) ?? []

/** How much of a name's deviation is its own. */
const OWN = 0.7

export function random(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
}

function hash(text: string): number {
  let h = 2_166_136_261
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 16_777_619)
  return h >>> 0
}

export function name(i: number): string {
  const draw = random(Math.imul(i + 1, 2_654_435_761))
  const word = () => {
    const text = Array.from({ length: 3 }, () => SYLLABLES[Math.floor(draw() * SYLLABLES.length)]).join('')
    return text.charAt(0).toUpperCase() + text.slice(1)
  }
  return `${word()} ${word()}`
}

const templateOf = (i: number, form: 0 | 1) => RELATIONS[i % RELATIONS.length]?.[form] ?? ''
export const asked = (i: number): string => templateOf(i, 1).replace('X', name(i))
export function edit(i: number): Edit {
  const prompt = templateOf(i, 0).replace('X', name(i))
  const lists = { aliases: [], paraphrases: [], tags: [] }
  return { id: `s${i}`, subject: name(i), prompt, targetNew: name(i + 1), tenant: 'default', ...lists }
}

function unit(vector: Float32Array): Float32Array {
  const length = Math.hypot(...vector) || 1
  return vector.map((x) => x / length)
}

export interface RecipeEmbedder extends Embedder {
  /** Milliseconds spent in it so far: what a selection without embedding does not cost. */
  spentMs(): number
}

/** `real` embeds what the recipe rests on: some 10,000 short texts the first time, then only what `file` lacks. */
export async function recipeEmbedder(real: () => Promise<Embedder>, file: string): Promise<RecipeEmbedder> {
  const { dimensions, known, save, embed } = await realVectors(real, file)
  const deviations = new Map<string, { mean: Float32Array; of: Float32Array[] }>()
  for (const template of TEMPLATES) {
    const vectors = await embed(NAMES.map((n) => template.replace('X', n)))
    const mean = new Float32Array(dimensions)
    for (const v of vectors) for (let d = 0; d < dimensions; d++) mean[d] = (mean[d] ?? 0) + (v[d] ?? 0) / vectors.length
    deviations.set(template, { mean, of: vectors.map((v) => v.map((x, d) => x - (mean[d] ?? 0))) })
  }
  save()
  const plain = deviations.get(TEMPLATES[0] ?? '')
  const vectorOf = async (text: string): Promise<Float32Array> => {
    const had = known.get(text)
    if (had !== undefined) return had
    const names = [...text.matchAll(NAME)]
    const skeleton = text.replace(NAME, 'X')
    const template = TEMPLATES.find((t) => skeleton === t || skeleton === `${t} X`)
    const own = template === undefined ? undefined : deviations.get(template)
    const centre = own?.mean ?? (await embed([skeleton.replaceAll('X', MASK)]))[0] ?? new Float32Array(dimensions)
    const sum = Float32Array.from(centre)
    for (const [at, [, first = '', second = '']] of names.entries()) {
      const { of } = own ?? plain ?? { of: [] }
      const [a, b] = [hash(first), hash(`.${second}`)]
      const [one, other] = [of[a % of.length], of[b % of.length]]
      const angle = Math.PI / 6 + (((a ^ b) % 1_024) / 1_024) * (Math.PI / 6)
      const weight = (at === 0 ? 1 : 0.5) * Math.sqrt(1 - OWN ** 2)
      const [cos, sin] = [weight * Math.cos(angle), weight * Math.sin(angle)]
      for (let d = 0; d < dimensions; d++) sum[d] = (sum[d] ?? 0) + cos * (one?.[d] ?? 0) + sin * (other?.[d] ?? 0)
      // Uniform numbers of variance 1/12; the deviation's length is about that of `one`.
      const draw = random(a ^ Math.imul(b, 31))
      const scale = ((at === 0 ? 1 : 0.5) * OWN * Math.hypot(...(one ?? []))) / Math.sqrt(dimensions / 12)
      for (let d = 0; d < dimensions; d++) sum[d] = (sum[d] ?? 0) + scale * (draw() - 0.5)
    }
    return unit(sum)
  }
  let spent = 0
  return {
    ...{ name: 'recipe', dimensions, maxTokens: 512, close: async () => save(), spentMs: () => spent },
    async embed(texts) {
      const start = performance.now()
      const vectors: Float32Array[] = []
      for (const text of texts) vectors.push(await vectorOf(text))
      spent += performance.now() - start
      return vectors
    },
  }
}

/** Vectors of a real embedder, opened only when one is missing in the file. */
async function realVectors(open: () => Promise<Embedder>, file: string) {
  const known = new Map<string, Float32Array>()
  if (existsSync(file)) {
    const kept = JSON.parse(readFileSync(file, 'utf8')) as Record<string, string>
    for (const [text, bytes] of Object.entries(kept))
      known.set(text, new Float32Array(new Uint8Array(Buffer.from(bytes, 'base64')).buffer))
  }
  let embedder: Embedder | undefined
  let fresh = 0
  const save = () => {
    if (fresh === 0) return
    const rows = Array.from(known, ([text, v]) => [text, Buffer.from(v.buffer, v.byteOffset, v.byteLength).toString('base64')])
    writeFileSync(file, JSON.stringify(Object.fromEntries(rows)))
    fresh = 0
  }
  const embed = async (texts: readonly string[]): Promise<Float32Array[]> => {
    const missing = texts.filter((text) => !known.has(text))
    if (missing.length > 0) {
      embedder ??= await open()
      for (const [i, vector] of (await embedder.embed(missing, 'query')).entries()) known.set(missing[i] ?? '', vector)
      fresh += missing.length
    }
    return texts.map((text) => known.get(text) ?? new Float32Array())
  }
  return { dimensions: 384, known, save, embed }
}
