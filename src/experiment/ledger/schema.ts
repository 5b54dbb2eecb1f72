/** The ledger's tables, beside the edit log's in one file. A change of shape is a table of a new name. */
export const LEDGER_SCHEMA = `
  CREATE TABLE IF NOT EXISTS experiments (key TEXT NOT NULL UNIQUE, body TEXT NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS experiment_events (
    experiment TEXT NOT NULL, at INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS experiment_events_of ON experiment_events (experiment);
  CREATE TABLE IF NOT EXISTS exposures (
    experiment TEXT NOT NULL, version INTEGER NOT NULL, unit TEXT NOT NULL, arm INTEGER NOT NULL, epoch INTEGER NOT NULL,
    at INTEGER NOT NULL, PRIMARY KEY (experiment, version, unit)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS answers (
    id TEXT NOT NULL UNIQUE, experiment TEXT NOT NULL, version INTEGER NOT NULL, unit TEXT NOT NULL, arm INTEGER NOT NULL,
    at INTEGER NOT NULL, finished INTEGER NOT NULL DEFAULT 0, latency_ms REAL, prompt_tokens INTEGER, completion_tokens INTEGER,
    error INTEGER, refusal INTEGER, target_shown INTEGER, asked_again INTEGER
  ) STRICT;
  CREATE INDEX IF NOT EXISTS answers_of ON answers (experiment, version, unit);
  CREATE TABLE IF NOT EXISTS feedback (
    completion TEXT NOT NULL, id TEXT NOT NULL, at INTEGER NOT NULL, score REAL, label TEXT, numbers TEXT NOT NULL,
    negative INTEGER NOT NULL, PRIMARY KEY (completion, id)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS experiment_prompts (experiment TEXT NOT NULL, at INTEGER NOT NULL, messages TEXT NOT NULL) STRICT;
  CREATE INDEX IF NOT EXISTS experiment_prompts_of ON experiment_prompts (experiment);
  CREATE TABLE IF NOT EXISTS pairs (
    experiment TEXT NOT NULL, version INTEGER NOT NULL, prompt TEXT NOT NULL, body TEXT NOT NULL,
    UNIQUE (experiment, version, prompt)
  ) STRICT;
`
