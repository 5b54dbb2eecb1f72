// A stand-in for llama-server: same arguments, routes and events, no model. Its answer is in the environment (TEXT), its faults too.
import { appendFileSync, existsSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'

const { TEXT = 'one two three', FAULT, LOG, MARK = '', LLAMA_SERVER_ROUTER_PORT: watched } = process.env
const note = (line) => LOG && appendFileSync(LOG, `${line}\n`)
const socket = process.argv[process.argv.indexOf('--host') + 1]
if (watched === undefined) throw new Error('it was not told to watch its parent')
process.stdin.on('end', () => process.exit(1)).resume()
note(`start ${process.pid} ${process.argv.slice(2).join(' ')}`)
if (FAULT === 'no start' || (FAULT === 'no second start' && existsSync(MARK))) {
  process.stderr.write('error: the model is not to its taste\n')
  process.exit(7)
}
/** The fault that happens once: the server that is started after it is sound. */
const once = (fault) => {
  if (FAULT !== fault || existsSync(MARK)) return false
  appendFileSync(MARK, 'x')
  return true
}

let busy = 0
const server = createServer(async (req, res) => {
  if (req.url === '/health') return res.end('{}')
  if (req.url === '/slots') return res.end(JSON.stringify([{ is_processing: busy > 0 }]))
  let body = ''
  for await (const chunk of req) body += chunk
  note(`ask ${body}`)
  if (once('dies at once')) process.exit(3)
  const asked = JSON.parse(body)
  const repacked = !process.argv.includes('--no-repack')
  if (asked.stream !== true) return res.end(JSON.stringify({ content: FAULT === 'rubbish' && repacked ? 'GmbH)s\n' : TEXT }))
  if (asked.prompt.length > 5_000) {
    res.statusCode = 400
    return res.end(JSON.stringify({ error: { message: 'too long for me' } }))
  }
  let gone = false
  res.on('close', () => {
    gone = true
    note('closed')
  })
  const send = (event) => res.write(`data: ${JSON.stringify(event)}\n\n`)
  busy++
  send({ prompt_progress: { total: asked.prompt.length, cache: asked.cache_prompt ? 5 : 0, processed: asked.prompt.length } })
  const words = TEXT.match(/\S+\s*/g)
  let told = 0
  for (const content of words.slice(0, asked.n_predict)) {
    if (gone) break
    await sleep(5)
    if (told === 1 && once('dies midway')) process.exit(4)
    if (told === 1 && FAULT === 'not JSON') res.write('data: {"content": \n\n')
    if (told === 1 && FAULT === 'error event') send({ error: { code: 500, message: 'the cache is full' } })
    if (told === 1 && FAULT === 'hangs' && once('hangs')) await sleep(60_000)
    send({ content, tokens: [1], stop: false, tokens_predicted: ++told })
  }
  busy--
  const whole = told === words.length
  if (!gone) send({ stop: true, stop_type: whole ? 'eos' : 'limit', tokens_predicted: whole ? told + 1 : told })
  res.end()
})
rmSync(socket, { force: true })
server.listen(socket)
