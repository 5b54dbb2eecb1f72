// A rule of textlint: no sentence is longer than so many words. The rules that are published count characters.
import { SentenceSplitterSyntax, splitAST } from 'sentence-splitter'

const SENTENCE_WORDS = 25

/** A stretch with a letter or a digit is a word, and so is a piece of code. */
function wordsOf(node, codeWords) {
  if (node.type === 'Code') return codeWords
  if (node.children !== undefined) return node.children.reduce((sum, child) => sum + wordsOf(child, codeWords), 0)
  return node.type === 'Str' ? node.value.split(/[\s–—/]+/).filter((part) => /[\p{L}\p{N}]/u.test(part)).length : 0
}

export default function sentenceWords({ Syntax, RuleError, report, locator }) {
  /** Of a table's cell, which often lists names, the code is not counted. */
  const check = (codeWords) => (node) => {
    for (const sentence of splitAST(node).children) {
      if (sentence.type !== SentenceSplitterSyntax.Sentence) continue
      const words = wordsOf(sentence, codeWords)
      if (words <= SENTENCE_WORDS) continue
      const start = sentence.range[0] - node.range[0]
      report(
        node,
        new RuleError(`The sentence has ${words} words, and ${SENTENCE_WORDS} are allowed: make two of it.`, {
          padding: locator.range([start, start + 1]),
        }),
      )
    }
  }
  return { [Syntax.Paragraph]: check(1), [Syntax.Header]: check(1), [Syntax.TableCell ?? 'TableCell']: check(0) }
}
