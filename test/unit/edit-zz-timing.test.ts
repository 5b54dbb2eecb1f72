import { readFileSync } from 'node:fs'
import { test } from 'vitest'
import { batchHash, parseBatch } from '/work/main/src/edit/batch.ts'
test('t', () => {
  const b = readFileSync('/work/shared/data/counterfact/counterfact-flat-12k.json')
  const ms: number[] = []
  let r
  for (let i = 0; i < 9; i++) { const t = performance.now(); r = parseBatch(b, { tenant: 'default' }); ms.push(Math.round(performance.now() - t)) }
  let t = performance.now(); const h = batchHash(r!.edits); console.log('flat-12k ms', ms.join(' '), 'hash', h, Math.round(performance.now() - t), 'distinct ids', new Set(r!.edits.map(e => e.id)).size)
  const rows = r!.edits.map(e => ({ subject: e.subject, prompt: e.prompt, target_new: e.targetNew }))
  for (let i = 0; i < 3; i++) { const text = 'edits:\n' + rows.map(r => `- subject: ${JSON.stringify(r.subject)}\n  prompt: ${JSON.stringify(r.prompt)}\n  target_new: ${JSON.stringify(r.target_new)}\n`).join(''); t = performance.now(); parseBatch(text, { tenant: 'd' }); console.log('yaml 12k', Math.round(performance.now() - t)) }
  const big = JSON.stringify(Array.from({ length: 200_000 }, (_, i) => ({ ...rows[i % 12000], target_new: `t ${i}` }))); t = performance.now(); parseBatch(big, { tenant: 'd' }); console.log('200k', (big.length / 1e6).toFixed(0) + ' MB', Math.round(performance.now() - t), 'ms', Math.round(process.memoryUsage().rss / 1e6), 'MB rss')
  const bad = JSON.stringify(Array.from({ length: 12000 }, () => ({ subject: 'x', promt: 'y', target: 'z' })), null, 2); t = performance.now(); try { parseBatch(bad, { tenant: 'd' }) } catch (e: any) { console.log(e.message, Math.round(performance.now() - t)) }
}, 60000)
