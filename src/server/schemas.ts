import { ACCESS_SCHEMA } from '../access/schema.ts'
import { ADAPTER_SCHEMA } from '../adapters/shared-store.ts'
import { LEDGER_SCHEMA } from '../experiment/ledger/schema.ts'
import { HANDOFF_SCHEMA } from '../handoff/shared-jobs.ts'
import { RESPONSES_SCHEMA } from '../http/reply/response-store.ts'
import { LOG_SCHEMA } from '../memory/log/edit-log.ts'
import { EMBEDDINGS_SCHEMA } from '../memory/vectors/embedding-table.ts'
import { LEADERS_SCHEMA } from '../storage/leader.ts'
import type { Schema } from '../storage/migrate.ts'

/** Of every port that a gateway keeps in a database which it shares. */
export const SHARED_SCHEMAS: readonly Schema[] = [
  ...[LOG_SCHEMA, EMBEDDINGS_SCHEMA, LEDGER_SCHEMA, ACCESS_SCHEMA],
  ...[RESPONSES_SCHEMA, ADAPTER_SCHEMA, HANDOFF_SCHEMA, LEADERS_SCHEMA],
]
