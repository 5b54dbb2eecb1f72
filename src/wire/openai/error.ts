import { PalimpsestError, type Problem } from '../../errors.ts'

/** OpenAI's error body: all four keys always present (openai-openapi 2.3.0, `Error`). `problems` is ours: the faults of a batch. */
export interface WireError {
  readonly error: {
    readonly message: string
    readonly type: 'invalid_request_error' | 'rate_limit_error' | 'server_error'
    readonly param: string | null
    readonly code: string
    readonly problems?: readonly Problem[]
  }
}

export function wireError({ message: said, status, param, code, problems }: PalimpsestError): WireError {
  const message = status >= 500 || OF_FILES.has(code) ? withoutFolders(said) : said
  return { error: { message, type: typeOf(status), param, code, ...(problems.length > 0 && { problems }) } }
}

/** Refusals that may name files of the gateway's machine. */
const OF_FILES: ReadonlySet<string> = new Set(['adapter_mismatch', 'snapshot_broken', 'folder_in_use'])

/** An absolute path of two names or more; no part of a URL, or of a path within one. */
const PATH = /(?<![\w.:/\\~])(?:\/|[A-Za-z]:[\\/])(?:[^\s'"`,;:()/\\]+[\\/])+([^\s'"`,;:()/\\]*)/g

/** Where files lie on the gateway's machine is its owner's to know: clients are told their names. */
function withoutFolders(message: string): string {
  return message.replace(PATH, (_, name: string) => name || 'a folder')
}

function typeOf(status: number): WireError['error']['type'] {
  if (status === 429) return 'rate_limit_error'
  return status >= 500 ? 'server_error' : 'invalid_request_error'
}

/** Anything thrown, as an error that a user may see. What is not ours becomes `internal` and says nothing of its cause. */
export function presentable(thrown: unknown): PalimpsestError {
  if (thrown instanceof PalimpsestError) return thrown
  return new PalimpsestError(
    'internal',
    'The gateway failed on this request. The fault is ours and is in its log, under the x-request-id of this response.',
    { cause: thrown },
  )
}
