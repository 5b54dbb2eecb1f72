/**
 * Every error a user can meet. The one renderer (`src/app.ts`) turns it into OpenAI's shape
 * `{error: {message, type, param, code}}`; the command line prints `message` alone.
 * Sentences say what was expected, what came, and what to do.
 */
export type ErrorCode =
  | 'invalid_json'
  | 'invalid_value'
  | 'missing_field'
  | 'unknown_field'
  | 'unsupported_field'
  | 'unsupported_media_type'
  | 'context_length_exceeded'
  | 'request_too_large'
  | 'model_not_found'
  | 'template_not_found'
  | 'edit_not_found'
  | 'adapter_not_found'
  | 'adapter_mismatch'
  | 'adapter_conflict'
  | 'handoff_not_found'
  | 'handoff_conflict'
  | 'handoff_failed'
  | 'snapshot_broken'
  | 'batch_not_found'
  | 'experiment_not_found'
  | 'evaluation_not_found'
  | 'evaluation_broken'
  | 'response_not_found'
  | 'route_not_found'
  | 'method_not_allowed'
  | 'origin_refused'
  | 'invalid_api_key'
  | 'insufficient_permissions'
  | 'rate_limit_exceeded'
  | 'insufficient_quota'
  | 'invalid_batch'
  | 'template_broken'
  | 'queue_full'
  | 'rate_limited'
  | 'storage_full'
  | 'storage_failed'
  | 'folder_in_use'
  | 'model_file'
  | 'network'
  | 'upstream_failed'
  | 'engine_failed'
  | 'engine_unavailable'
  | 'shutting_down'
  | 'cancelled'
  | 'internal'

/** HTTP status of each code: RFC 9110 and the statuses OpenAI uses for the same faults. 499 is never sent (the client is gone). */
const STATUS: Readonly<Record<ErrorCode, number>> = {
  invalid_json: 400,
  invalid_value: 400,
  missing_field: 400,
  unknown_field: 400,
  unsupported_field: 400,
  unsupported_media_type: 415,
  context_length_exceeded: 400,
  request_too_large: 413,
  model_not_found: 404,
  template_not_found: 400,
  edit_not_found: 404,
  adapter_not_found: 404,
  adapter_mismatch: 400,
  adapter_conflict: 409,
  handoff_not_found: 404,
  handoff_conflict: 409,
  handoff_failed: 500,
  snapshot_broken: 500,
  batch_not_found: 404,
  experiment_not_found: 404,
  evaluation_not_found: 404,
  evaluation_broken: 500,
  response_not_found: 404,
  route_not_found: 404,
  method_not_allowed: 405,
  origin_refused: 403,
  invalid_api_key: 401,
  insufficient_permissions: 403,
  rate_limit_exceeded: 429,
  insufficient_quota: 429,
  invalid_batch: 400,
  template_broken: 500,
  queue_full: 429,
  rate_limited: 429,
  storage_full: 507,
  storage_failed: 500,
  folder_in_use: 500,
  model_file: 500,
  network: 502,
  upstream_failed: 502,
  engine_failed: 500,
  engine_unavailable: 503,
  shutting_down: 503,
  cancelled: 499,
  internal: 500,
}

/** One fault found in a batch or a file. `line` is 1-based; absent when the input was not line-oriented. */
export interface Problem {
  readonly file?: string
  readonly line?: number
  /** 0-based position of the record in the batch. */
  readonly index?: number
  /** Dotted path of the field in the record, as the user wrote it. */
  readonly field: string | null
  readonly message: string
}

export interface ErrorDetail {
  /** The request field at fault, in the wire's own spelling. */
  readonly param?: string | null
  readonly retryAfterSeconds?: number
  readonly problems?: readonly Problem[]
  readonly cause?: unknown
}

export class PalimpsestError extends Error {
  override readonly name = 'PalimpsestError'
  readonly code: ErrorCode
  readonly status: number
  readonly param: string | null
  readonly retryAfterSeconds: number | undefined
  readonly problems: readonly Problem[]

  constructor(code: ErrorCode, message: string, detail: ErrorDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause })
    this.code = code
    this.status = STATUS[code]
    this.param = detail.param ?? null
    this.retryAfterSeconds = detail.retryAfterSeconds
    this.problems = detail.problems ?? []
  }
}
