import { newToken } from '../../access/key.ts'
import type { Config } from '../../config.ts'
import type { Limits } from '../../gateway.ts'
import { openLog } from '../../server/console-log.ts'
import { startGateway } from '../../server/start.ts'
import type { Local } from './client.ts'

const HOST = '127.0.0.1'

/** A gateway inside this process, at a port of its own and for this process alone, for commands that find none running. */
async function boot(config: Config<Limits>, model: 'configured' | 'none'): Promise<Local> {
  const closing = new AbortController()
  const { token: key } = newToken()
  const running = await startGateway({
    config,
    log: openLog(config.logLevel, [config.upstreamKey, config.hubToken, config.key]),
    model,
    host: HOST,
    port: 0,
    watch: false,
    closing: closing.signal,
    key,
  })
  return {
    url: running.url,
    key,
    close: async () => {
      closing.abort()
      await running.close(0)
    },
  }
}

export const bootWithoutModel = (config: Config<Limits>): Promise<Local> => boot(config, 'none')
export const bootWithModel = (config: Config<Limits>): Promise<Local> => boot(config, 'configured')
