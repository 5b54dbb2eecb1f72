/** A word, or one mark: NLTK's Treebank tokens but for contractions and quotation marks, which change an entropy in the third digit. */
const TOKEN = /[\p{L}\p{N}\p{M}_]+|[^\s\p{L}\p{N}\p{M}_]/gu

/** Weights of the entropies of 2-grams and 3-grams, in ROME's and EasyEdit's code (`n_gram_entropy`). */
const WEIGHTS: readonly (readonly [n: number, weight: number])[] = [
  [2, 2 / 3],
  [3, 4 / 3],
]

/**
 * How the texts are written whose fluency is measured: sampled from the five likeliest tokens, as in ROME's, MEMIT's and EasyEdit's code
 * (`generate_fast`). Greedy texts of a small model run into loops by chance, edited or not.
 */
export const FLUENCY_SAMPLING = { temperature: 1, topK: 5 } as const

/** Fluency (generation entropy, Meng et al. 2022): 100 × mean(2/3 · H2, 4/3 · H3), Hn = −Σ p log2 p over n-grams. Falls when a text repeats itself. */
export function fluency(text: string): number {
  const tokens = text.match(TOKEN) ?? []
  return (100 * WEIGHTS.reduce((sum, [n, weight]) => sum + weight * entropy(tokens, n), 0)) / WEIGHTS.length
}

function entropy(tokens: readonly string[], n: number): number {
  const counts = new Map<string, number>()
  const total = tokens.length - n + 1
  for (let at = 0; at < total; at++) {
    const gram = tokens.slice(at, at + n).join('\u0000')
    counts.set(gram, (counts.get(gram) ?? 0) + 1)
  }
  return [...counts.values()].reduce((sum, count) => sum - (count / total) * Math.log2(count / total), 0)
}
