import { ERRORS } from '../../src/errors.ts'
import { code, page, table } from './markdown.ts'

/** Every code, with status and remedy. */
export function errorsPage(): string {
  return page(
    'Errors',
    '`src/errors.ts`',
    'Over HTTP an error is `{"error": {"message", "type", "param", "code"}}`, as at OpenAI: `message` says what was expected, what came and what to do, `param` names the field. `type` is `rate_limit_error` for 429, `server_error` from 500 on, else `invalid_request_error`. On the command line the message alone is printed, and the exit code is 1. 499 is never sent: the client is gone.',
    table(
      ['code', 'status', 'what to do'],
      Object.entries(ERRORS).map(([name, { status, remedy }]) => [code(name), String(status), remedy]),
    ),
  )
}
