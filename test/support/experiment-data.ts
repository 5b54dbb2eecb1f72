import type { Experiment } from '../../src/experiment/experiment.ts'
import { Ledger, type LedgerLimits } from '../../src/experiment/ledger/ledger.ts'
import type { SqlDatabase } from '../../src/storage/sql.ts'

export function experiment(fields: Partial<Experiment> = {}): Experiment {
  return {
    ...{ id: 'e', tenant: 'default', seed: 'e', unit: { by: 'user' }, audience: { tags: [], models: [] }, coverage: 1 },
    arms: [
      { name: 'base', weight: 0.5, serves: { kind: 'base' } },
      { name: 'edited', weight: 0.5, serves: { kind: 'edited', tags: [], withoutBatches: [] } },
    ],
    ...{ metrics: ['target_shown'], guardrails: [], logPrompts: false, alpha: 0.05, plannedUnits: 100 },
    ...{ source: 'test', status: 'running', version: 1, epoch: 1, createdAt: 0 },
    ...fields,
  }
}

export const LEDGER_LIMITS: LedgerLimits = {
  ...{ ledgerAnswers: 100_000, answerFeedback: 2, loggedPrompts: 3, replayPairs: 10, replayQueue: 1_000 },
}

export const ledgerOf = (database: SqlDatabase, limits: Partial<LedgerLimits> = {}) =>
  Ledger.open(database, { ...LEDGER_LIMITS, ...limits })
