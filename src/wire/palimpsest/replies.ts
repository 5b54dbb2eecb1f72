/** What our own paths answer, for the reference: the fields that every reply has; `test/http/contract/openapi.test.ts` holds replies to it. */
import { z } from 'zod'
import { adapterRecord } from '../../adapters/record.ts'
import { METRICS } from '../../experiment/experiment.ts'

const count = z.int().min(0)
const moment = z.iso.datetime()
const share = z.number().min(0).max(1)

export const listOf = <Item extends z.ZodType>(item: Item) => z.object({ object: z.literal('list'), data: z.array(item) })

/** A page of a longer list. */
export const pageOf = <Item extends z.ZodType>(item: Item) =>
  listOf(item).extend({ has_more: z.boolean(), next_cursor: z.string().nullable(), total: count })

const arm = z.enum(['base', 'edited', 'adapter'])

const applied = z.object({
  id: z.string(),
  subject: z.string(),
  score: share.describe('Probability that the turn needs it.'),
})

const considered = z
  .object({
    ...applied.shape,
    statement: z.string(),
    similarity: z.number().nullable().describe('Cosine of the whole texts; null where the index did not return it.'),
    key: z.string().nullable().describe('Words of the edit that are nearest to the message.'),
    reason: z.string().describe('Why it was taken or refused.'),
    outdated_by: z.string().optional(),
    hop: z.int().min(1),
    via: z.string().nullable(),
    evidence: z.record(z.string(), z.number()).describe("The gate's evidence by name."),
  })
  .meta({ id: 'Considered', description: 'A candidate, and what selection made of it.' })

const turn = z.object({ turn: count.describe('Index of the message.'), cached: z.boolean(), considered: z.array(considered) })

const decomposition = z.object({ calls: count, prompt_tokens: count, completion_tokens: count })

export const provenanceReply = z
  .object({
    arm,
    adapter: z.string().optional(),
    experiment: z.object({}).optional(),
    edits: z.array(applied.extend({ turn: count })).describe('Edits in the prompt.'),
    template: z.string().nullable(),
    memory_version: count,
    tokens_added: z.int(),
    trace: z
      .object({
        id: z.string(),
        turns: z.array(turn),
        prompt_tokens: count,
        cached_tokens: count,
        stages_ms: z.record(z.string(), z.number()),
        decomposition,
      })
      .optional()
      .describe('Where `palimpsest.explain` asks for it.'),
  })
  .meta({ id: 'Provenance', description: 'Which edits made the answer.' })

export const explanationReply = z
  .object({
    object: z.literal('edit.explanation'),
    model: z.string(),
    memory_version: count,
    tokens_added: z.int(),
    adapter: z.string().nullable(),
    template: z.object({}).nullable(),
    turns: z.array(turn),
    decomposition,
    prompt: z.object({ text: z.string(), tokens: z.array(z.int()).nullable() }),
    base: z.object({ text: z.string(), tokens: z.array(z.int()).nullable() }).describe('What the arm `base` would see.'),
  })
  .meta({ id: 'Explanation' })

export const comparisonReply = z
  .object({
    object: z.literal('comparison'),
    arms: z.array(
      z.object({
        arm: z.string(),
        text: z.string(),
        model: z.string(),
        finish_reason: z.string(),
        latency_ms: count,
        prompt_tokens: count,
        completion_tokens: count,
        tokens_added: z.int(),
        edits: z.array(applied),
        adapter: z.string().nullable(),
        template: z.object({}).nullable(),
        turns: z.array(turn),
        prompt: z.string(),
      }),
    ),
    identical: z.boolean(),
  })
  .meta({ id: 'Comparison' })

export const editReply = z
  .object({
    object: z.literal('edit'),
    id: z.string(),
    tenant: z.string(),
    aliases: z.array(z.string()),
    paraphrases: z.array(z.string()),
    tags: z.array(z.string()),
    state: z.enum(['live', 'superseded', 'withdrawn', 'not_yet_valid', 'expired']),
    superseded_by: z.string().optional(),
    batch: z.string(),
    version: count.describe('Of the memory, when it landed.'),
    landed_at: moment,
  })
  .meta({ id: 'HeldEdit', description: "An edit as it is held: beside these, the fields of its kind, in the request's shape." })

export const editWithHistoryReply = z.object({
  ...editReply.shape,
  history: z.array(z.object({ version: count, at: moment, kind: z.string(), batch: z.string() })).describe('Oldest first.'),
})

/** Of every answer to a write of the memory. */
export const writtenReply = {
  palimpsest: z.object({
    memory_version: count.describe(
      'Send it as `Palimpsest-At-Least` with a request that must see this change, on whichever node.',
    ),
  }),
}

export const editChangeReply = z.object({ ...editWithHistoryReply.shape, ...writtenReply })

const counts = z.object({
  edits: count,
  added: count,
  revised: count,
  restored: count.describe('Withdrawn before, and live again since it was posted again.'),
  unchanged: count,
  superseded: count,
  duplicates: count,
  conflicts: count,
})

export const landingReply = z
  .object({
    object: z.literal('edit.batch'),
    id: z.string(),
    dry_run: z.boolean(),
    replayed: z.boolean().describe('The same batch landed before; nothing changed.'),
    version: count,
    palimpsest: writtenReply.palimpsest.optional().describe('Absent of a dry run.'),
    counts,
    format: z.string().optional().describe('Of a dry run.'),
    first_edits: z.array(z.object({})).optional(),
    report: z
      .object({
        counts: z.object({}),
        findings: z.array(z.object({ kind: z.string(), message: z.string() })),
        pairs_compared: count,
        pairs_left: count,
        fault: z.string().nullable(),
      })
      .optional(),
    results: z.array(
      z.object({
        index: count,
        id: z.string(),
        outcome: z.enum(['added', 'revised', 'restored', 'unchanged']),
        state: z.string(),
        supersedes: z.array(z.string()),
        duplicate_of: z.string().nullable(),
        conflicts_with: z.array(z.string()),
      }),
    ),
  })
  .meta({ id: 'Landing', description: 'What a batch did; of a dry run, what it would do.' })

export const progressLine = z
  .object({ object: z.enum(['edit.batch.progress', 'edit.batch.check', 'edit.batch']) })
  .meta({ id: 'ProgressLine', description: '`indexed` or `checked`, and `total`; the last line is the Landing.' })

export const batchReply = z
  .object({ object: z.literal('edit.batch'), id: z.string(), landed_at: moment, source: z.string(), edits: count, live: count })
  .meta({ id: 'Batch' })

export const batchChangeReply = z.object({
  ...batchReply.shape,
  withdrawn: count.optional(),
  restored: count.optional(),
  version: count,
  ...writtenReply,
})

export const adapterReply = z
  .object({
    object: z.literal('adapter'),
    ...adapterRecord.shape,
    loaded: z.boolean(),
    promoted: z.boolean(),
    disagrees: z.array(z.unknown()).describe('Its edits that have been superseded, withdrawn or revised since it was made.'),
  })
  .meta({ id: 'Adapter' })

const metricResult = z.object({
  metric: z.string().describe(`One of ${Object.keys(METRICS).join(', ')}, or \`label:NAME\`, \`number:NAME\`.`),
  kind: z.string(),
  arm: z.string(),
  difference: z.number().nullable(),
  confidence_sequence: z.array(z.number().nullable()).nullable().describe('Valid whenever it is looked at.'),
  fixed_interval: z.array(z.number().nullable()).nullable(),
  e_value: z.number().nullable(),
  adjusted_p: z.number().nullable(),
  significant: z.boolean(),
})

export const experimentReply = z
  .object({
    object: z.enum(['experiment', 'rollout']),
    id: z.string(),
    tenant: z.string(),
    status: z.string(),
    batch: z.string().optional(),
    outcome: z.string().optional(),
    stage: count.optional(),
    arms: z.array(z.object({ name: z.string(), weight: z.number() })),
    unit: z.string(),
    coverage: z.number(),
    metrics: z.array(z.string()),
    guardrails: z.array(z.object({ kind: z.string() })),
    alpha: z.number(),
    planned_units: count,
    log_prompts: z.boolean(),
    version: count,
    created_at: moment,
    ended_at: moment.nullable(),
    shipped: z.string().nullable(),
  })
  .meta({ id: 'Experiment', description: 'An experiment; a rollout is one whose arms are without and with a batch.' })

export const experimentResultReply = z
  .object({
    ...experimentReply.shape,
    result: z.object({
      arms: z.array(z.object({ arm: z.string(), exposures: count, answers: count, unfinished: count })),
      sample_ratio: z.object({ mismatch: z.boolean(), p_value: z.number().nullable() }),
      blocked: z.unknown(),
      ledger_full: z.boolean(),
      metrics: z.array(metricResult),
    }),
    standing: z.array(z.object({ arm: z.string() })),
    over_time: z.array(z.object({ at: moment })).optional(),
    events: z.array(z.object({ at: moment, kind: z.string() })),
  })
  .meta({ id: 'ExperimentResult' })

export const planReply = z.object({
  object: z.literal('experiment.plan'),
  kind: z.enum(['proportion', 'paired', 'mean']),
  alpha: z.number(),
  power: z.number(),
  one_look: z.number().nullable().describe('Units, looked at once.'),
  looks_at_will: z.number().nullable().describe('Units, looked at whenever one likes.'),
})

export const replayReply = z.object({
  object: z.literal('experiment.replay'),
  waiting: count,
  preempted: count,
  arms: z.array(z.object({ arm: z.string(), pairs: count, failed: count, changed: count })),
  changed: z.array(z.object({ origin: z.string() })),
})

export const replayAcceptedReply = z.object({ object: z.literal('experiment.replay'), accepted: count, left_out: z.int() })

export const feedbackReply = z.object({
  object: z.literal('feedback'),
  completion_id: z.string(),
  id: z.string(),
  outcome: z.string(),
})

export const deletedReply = (object: string) => z.object({ object: z.literal(object), id: z.string(), deleted: z.literal(true) })

export const recentReply = listOf(
  z.object({
    seq: count,
    id: z.string(),
    at: moment,
    route: z.string(),
    status: z.int(),
    ms: z.number(),
    error: z.string().nullable(),
    model: z.string().nullable(),
    stream: z.boolean(),
    arm: arm.nullable(),
    edits: z.array(applied),
    template: z.string().nullable(),
    prompt_tokens: count,
    cached_tokens: count,
    tokens_added: z.int(),
    completion_tokens: count,
    first_piece_ms: z.number().nullable(),
    stages_ms: z.record(z.string(), z.number()),
  }),
).extend({ latest: count, prompts_kept: z.boolean() })

export const aliveReply = z.object({ status: z.enum(['ok', 'catching_up', 'shutting_down']) })

export const healthReply = aliveReply.extend({
  version: z.string(),
  uptime_seconds: count,
  model: z.object({
    name: z.string(),
    family: z.string(),
    device: z.string(),
    threads: count,
    context_tokens: count,
  }),
  load: z.object({ slots: count, busy: count, queued: count, queue_limit: count }),
  memory: z.object({
    version: count.describe('Last change, of all tenants, that is applied here.'),
    tenants: count,
    indexed: count,
    pending: count,
    log: z.object({
      state: z
        .enum(['sole', 'listening', 'polling', 'away'])
        .describe(
          'How changes by other nodes come in: `sole`, there are none; `away`, they cannot, and edits are answered from memory.',
        ),
      seen: count.describe('Last change that is known of; more than `version` while this node is behind.'),
      last_contact: moment,
      fault: z.string().nullable().optional(),
    }),
  }),
  templates: z.object({ names: z.array(z.string()) }),
})
