import type { Schema } from '../../storage/migrate.ts'

/**
 * What the ledger keeps. The order of rows is SQLite's `rowid`, which PostgreSQL has as a column. `ledger_state` has one row: `changes` counts
 * changes of experiments without a gap, `answers` the answers kept; whoever changes an experiment holds the row until it is written.
 */
export const LEDGER_SCHEMA: Schema = {
  port: 'experiments',
  oldestReader: 1,
  steps: [
    {
      // The first tables are those of files that had no versions yet.
      sqlite: [
        'CREATE TABLE IF NOT EXISTS experiments (key TEXT NOT NULL UNIQUE, body TEXT NOT NULL) STRICT',
        `CREATE TABLE IF NOT EXISTS experiment_events (
          experiment TEXT NOT NULL, at INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL
        ) STRICT`,
        'CREATE INDEX IF NOT EXISTS experiment_events_of ON experiment_events (experiment)',
        `CREATE TABLE IF NOT EXISTS exposures (
          experiment TEXT NOT NULL, version INTEGER NOT NULL, unit TEXT NOT NULL, arm INTEGER NOT NULL, epoch INTEGER NOT NULL,
          at INTEGER NOT NULL, PRIMARY KEY (experiment, version, unit)
        ) STRICT, WITHOUT ROWID`,
        `CREATE TABLE IF NOT EXISTS answers (
          id TEXT NOT NULL UNIQUE, experiment TEXT NOT NULL, version INTEGER NOT NULL, unit TEXT NOT NULL, arm INTEGER NOT NULL,
          at INTEGER NOT NULL, finished INTEGER NOT NULL DEFAULT 0, latency_ms REAL, prompt_tokens INTEGER, completion_tokens INTEGER,
          error INTEGER, refusal INTEGER, target_shown INTEGER, asked_again INTEGER
        ) STRICT`,
        'CREATE INDEX IF NOT EXISTS answers_of ON answers (experiment, version, unit)',
        `CREATE TABLE IF NOT EXISTS feedback (
          completion TEXT NOT NULL, id TEXT NOT NULL, at INTEGER NOT NULL, score REAL, label TEXT, numbers TEXT NOT NULL,
          negative INTEGER NOT NULL, PRIMARY KEY (completion, id)
        ) STRICT, WITHOUT ROWID`,
        `CREATE TABLE IF NOT EXISTS experiment_prompts (
          experiment TEXT NOT NULL, at INTEGER NOT NULL, messages TEXT NOT NULL
        ) STRICT`,
        'CREATE INDEX IF NOT EXISTS experiment_prompts_of ON experiment_prompts (experiment)',
        `CREATE TABLE IF NOT EXISTS pairs (
          experiment TEXT NOT NULL, version INTEGER NOT NULL, prompt TEXT NOT NULL, body TEXT NOT NULL,
          UNIQUE (experiment, version, prompt)
        ) STRICT`,
        // What many gateways need beside them.
        'ALTER TABLE experiments ADD COLUMN changed INTEGER NOT NULL DEFAULT 0',
        'CREATE INDEX experiments_changed ON experiments (changed)',
        'CREATE TABLE ledger_state (id INTEGER PRIMARY KEY, changes INTEGER NOT NULL, answers INTEGER NOT NULL) STRICT',
        'INSERT INTO ledger_state (id, changes, answers) VALUES (1, 0, 0)',
        `CREATE TABLE rollout_stages (
          experiment TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (experiment, version)
        ) STRICT`,
        `CREATE TABLE replays (
          experiment TEXT NOT NULL, version INTEGER NOT NULL, prompt TEXT NOT NULL, origin TEXT NOT NULL, messages TEXT NOT NULL,
          judge TEXT, holder TEXT, held_until INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,
          UNIQUE (experiment, version, prompt)
        ) STRICT`,
        'CREATE TABLE experiment_leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, held_until INTEGER NOT NULL) STRICT',
      ],
      postgres: [
        `CREATE TABLE experiments (
          rowid BIGINT GENERATED ALWAYS AS IDENTITY, key TEXT PRIMARY KEY, body TEXT NOT NULL, changed BIGINT NOT NULL
        )`,
        'CREATE INDEX experiments_changed ON experiments (changed)',
        `CREATE TABLE experiment_events (
          rowid BIGINT GENERATED ALWAYS AS IDENTITY, experiment TEXT NOT NULL, at BIGINT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
          PRIMARY KEY (experiment, rowid)
        )`,
        `CREATE TABLE exposures (
          experiment TEXT NOT NULL, version INTEGER NOT NULL, unit TEXT NOT NULL, arm INTEGER NOT NULL, epoch INTEGER NOT NULL,
          at BIGINT NOT NULL, PRIMARY KEY (experiment, version, unit)
        )`,
        `CREATE TABLE answers (
          id TEXT PRIMARY KEY, experiment TEXT NOT NULL, version INTEGER NOT NULL, unit TEXT NOT NULL, arm INTEGER NOT NULL,
          at BIGINT NOT NULL, finished INTEGER NOT NULL DEFAULT 0, latency_ms DOUBLE PRECISION, prompt_tokens INTEGER,
          completion_tokens INTEGER, error INTEGER, refusal INTEGER, target_shown INTEGER, asked_again INTEGER
        )`,
        'CREATE INDEX answers_of ON answers (experiment, version, unit)',
        `CREATE TABLE feedback (
          completion TEXT NOT NULL, id TEXT NOT NULL, at BIGINT NOT NULL, score DOUBLE PRECISION, label TEXT, numbers TEXT NOT NULL,
          negative INTEGER NOT NULL, PRIMARY KEY (completion, id)
        )`,
        `CREATE TABLE experiment_prompts (
          rowid BIGINT GENERATED ALWAYS AS IDENTITY, experiment TEXT NOT NULL, at BIGINT NOT NULL, messages TEXT NOT NULL,
          PRIMARY KEY (experiment, rowid)
        )`,
        `CREATE TABLE pairs (
          rowid BIGINT GENERATED ALWAYS AS IDENTITY, experiment TEXT NOT NULL, version INTEGER NOT NULL, prompt TEXT NOT NULL,
          body TEXT NOT NULL, PRIMARY KEY (experiment, version, prompt)
        )`,
        'CREATE TABLE ledger_state (id INTEGER PRIMARY KEY, changes BIGINT NOT NULL, answers BIGINT NOT NULL)',
        'INSERT INTO ledger_state (id, changes, answers) VALUES (1, 0, 0)',
        `CREATE TABLE rollout_stages (
          experiment TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (experiment, version)
        )`,
        `CREATE TABLE replays (
          rowid BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE, experiment TEXT NOT NULL, version INTEGER NOT NULL, prompt TEXT NOT NULL,
          origin TEXT NOT NULL, messages TEXT NOT NULL, judge TEXT, holder TEXT, held_until BIGINT NOT NULL DEFAULT 0,
          attempts INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (experiment, version, prompt)
        )`,
        'CREATE TABLE experiment_leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, held_until BIGINT NOT NULL)',
      ],
    },
  ],
}
