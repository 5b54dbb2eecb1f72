import type { Gateway } from '../../gateway.ts'
import type { Completed, Observer } from '../request/request-context.ts'

/** One log line for each request: ids, counts and times. Text only with `logPrompts`; never headers, in which keys travel. */
export function requestLog({ log, logPrompts = false }: Gateway): Observer {
  return (completed) => log.info({ ...line(completed), ...(logPrompts && words(completed)) }, 'request')
}

function line({ id, method, route, status, ms, error, call, key, traces }: Completed): object {
  const [trace] = traces
  const sum = (key: 'completionTokens') => traces.reduce((total, one) => total + one[key], 0)
  return {
    request: id,
    method,
    route,
    status,
    ms: rounded(ms),
    ...(error && { error }),
    ...(key && { key: key.id }),
    ...(call && { operation: call.operation, model: call.model, stream: call.stream }),
    ...(trace && {
      arm: trace.arm,
      edits: trace.applied.map((applied) => applied.id),
      ...(trace.adapter !== null && { adapter: trace.adapter }),
      promptTokens: trace.promptTokens,
      cachedTokens: trace.tokensCached,
      completionTokens: sum('completionTokens'),
      finish: traces.map(({ finishReason }) => finishReason ?? null),
      stagesMs: Object.fromEntries(Object.entries(trace.stagesMs).map(([stage, ms]) => [stage, rounded(ms)])),
    }),
  }
}

function rounded(ms: number): number {
  return Math.round(ms * 10) / 10
}

function words({ call, traces }: Completed): object {
  return {
    ...(call?.request && ('messages' in call.request ? { messages: call.request.messages } : { prompt: call.request.prompt })),
    answers: traces.map(({ text }) => text?.join('') ?? ''),
  }
}
