/**
 * Every error a user can meet, with its HTTP status and what to do about it. Statuses are RFC 9110's and those that OpenAI uses for the same
 * faults; 499 is never sent (the client is gone). The one renderer (`src/app.ts`) turns an error into OpenAI's shape
 * `{error: {message, type, param, code}}`; the command line prints `message` alone. Sentences say what was expected, what came, and what to do.
 */
export const ERRORS = {
  invalid_json: { status: 400, remedy: 'Send well-formed JSON in UTF-8; the message says where it breaks.' },
  invalid_value: { status: 400, remedy: 'Change the field in `param` to what the message expects.' },
  missing_field: { status: 400, remedy: 'Add the field in `param`.' },
  unknown_field: { status: 400, remedy: 'Remove the field in `param`, or correct its spelling.' },
  unsupported_field: { status: 400, remedy: 'Leave the field in `param` out, or give it a value that the message names.' },
  unsupported_media_type: { status: 415, remedy: 'Send `Content-Type: application/json`, or a type that the route lists.' },
  context_length_exceeded: { status: 400, remedy: 'Shorten the conversation, or start with a larger `--context-tokens`.' },
  request_too_large: { status: 413, remedy: 'Send less at a time, or raise the limit that the message names.' },
  model_not_found: { status: 404, remedy: 'Name a model of `GET /v1/models`.' },
  template_not_found: { status: 400, remedy: 'Name a template of `GET /health`.' },
  edit_not_found: { status: 404, remedy: "List the tenant's edits with `GET /v1/edits`." },
  adapter_not_found: { status: 404, remedy: "List the tenant's adapters with `GET /v1/adapters`." },
  adapter_mismatch: { status: 400, remedy: 'Register an adapter that was made for the served model file.' },
  adapter_conflict: { status: 409, remedy: "Choose another id, or change the adapter's state first; the message says which." },
  handoff_not_found: { status: 404, remedy: "List the tenant's hand-offs with `GET /v1/handoffs`." },
  handoff_conflict: { status: 409, remedy: "Wait for the other hand-off, or take a step that this one's state allows." },
  handoff_failed: { status: 500, remedy: "Read the job's `fault`; `palimpsest doctor` checks the editor." },
  snapshot_broken: { status: 500, remedy: 'Restore another snapshot.' },
  batch_not_found: { status: 404, remedy: "List the tenant's batches with `GET /v1/batches`." },
  experiment_not_found: { status: 404, remedy: 'List them with `GET /v1/experiments` or `GET /v1/rollouts`.' },
  evaluation_not_found: { status: 404, remedy: 'List the reports with `GET /v1/evaluations`.' },
  evaluation_broken: { status: 500, remedy: 'Make the report anew with `palimpsest eval`.' },
  response_not_found: { status: 404, remedy: 'Send the whole conversation: only the latest responses are kept.' },
  route_not_found: { status: 404, remedy: 'Check the path; the base URL of OpenAI clients ends in `/v1`.' },
  method_not_allowed: { status: 405, remedy: 'Use a method of the header `Allow`.' },
  origin_refused: {
    status: 403,
    remedy:
      'Open the gateway under its own address, or name the host with `--hosts`, or the origin of a page with `--allow-origin`.',
  },
  invalid_api_key: { status: 401, remedy: 'Send `Authorization: Bearer pk_…` with a key that is neither revoked nor expired.' },
  insufficient_permissions: { status: 403, remedy: 'Use a key with the scope and the tenant that the message names.' },
  rate_limit_exceeded: { status: 429, remedy: 'Wait for the seconds in `Retry-After`.' },
  insufficient_quota: { status: 429, remedy: 'Wait for the next day (UTC), or make a key with a larger `--tokens-per-day`.' },
  invalid_batch: { status: 400, remedy: 'Correct the lines in `problems` and send the whole batch again.' },
  template_broken: { status: 500, remedy: 'Correct the template file that the message names.' },
  queue_full: { status: 429, remedy: 'Wait for the seconds in `Retry-After`, or raise `--queue-limit`.' },
  storage_full: { status: 507, remedy: 'Free space on the disk of the data folder.' },
  storage_failed: { status: 500, remedy: 'Check the disk and the permissions of the data folder.' },
  storage_unavailable: {
    status: 503,
    remedy: 'Wait for the seconds in `Retry-After`; `GET /health` says whether the database is reached.',
  },
  folder_in_use: { status: 500, remedy: 'Stop the other process that holds the data folder, or choose another folder.' },
  model_file: { status: 500, remedy: 'Fetch the model again; `palimpsest doctor` checks it.' },
  network: { status: 502, remedy: 'Check the connection, or the address to listen on; the message says which.' },
  upstream_failed: { status: 502, remedy: 'Look at the server behind the gateway; `GET /health` has its last fault.' },
  engine_failed: { status: 500, remedy: "Send the request again; the log has the engine's fault." },
  engine_unavailable: { status: 503, remedy: 'Wait until a server or the engine is back, then send the request again.' },
  shutting_down: { status: 503, remedy: 'Send the request again in a moment, or to another node.' },
  cancelled: { status: 499, remedy: 'None: the client closed the connection.' },
  internal: { status: 500, remedy: 'Report the fault with the log lines of this `x-request-id`.' },
} as const satisfies Readonly<Record<string, { readonly status: number; readonly remedy: string }>>

export type ErrorCode = keyof typeof ERRORS

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
    this.status = ERRORS[code].status
    this.param = detail.param ?? null
    this.retryAfterSeconds = detail.retryAfterSeconds
    this.problems = detail.problems ?? []
  }
}
