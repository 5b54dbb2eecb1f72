// @ts-check
/** @typedef {{kind: 'same' | 'gone' | 'new', text: string}} Part */

/** Beyond this product of words the two texts are shown whole, one after the other. */
const CELLS = 4_000_000

/**
 * What two texts share and what they do not, by words, in reading order: the longest common subsequence.
 * @param {string} before @param {string} after @returns {Part[]}
 */
export function wordDiff(before, after) {
  const [a, b] = [before, after].map((text) => text.match(/\s+|[^\s]+/g) ?? [])
  if (a === undefined || b === undefined) return []
  if (a.length * b.length > CELLS) return parts([...a.map(gone), ...b.map(fresh)])
  const width = b.length + 1
  const longest = new Uint32Array((a.length + 1) * width)
  const at = (/** @type {number} */ i, /** @type {number} */ j) => longest[i * width + j] ?? 0
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      longest[i * width + j] = a[i] === b[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1))
  /** @type {Part[]} */
  const out = []
  let [i, j] = [0, 0]
  while (i < a.length || j < b.length) {
    const [mine, theirs] = [a[i], b[j]]
    if (mine !== undefined && mine === theirs) {
      out.push({ kind: 'same', text: mine })
      i++
      j++
    } else if (mine !== undefined && (theirs === undefined || at(i + 1, j) >= at(i, j + 1))) {
      out.push(gone(mine))
      i++
    } else if (theirs !== undefined) {
      out.push(fresh(theirs))
      j++
    }
  }
  return parts(out)
}

/** @param {string} text @returns {Part} */
const gone = (text) => ({ kind: 'gone', text })
/** @param {string} text @returns {Part} */
const fresh = (text) => ({ kind: 'new', text })

/** Neighbours of one kind as one. @param {Part[]} all */
function parts(all) {
  /** @type {Part[]} */
  const out = []
  for (const part of all) {
    const last = out.at(-1)
    if (last?.kind === part.kind) last.text += part.text
    else out.push({ ...part })
  }
  return out
}
