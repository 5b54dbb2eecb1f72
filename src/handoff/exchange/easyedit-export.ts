/** What EasyEdit (github.com/zjunlp/EasyEdit) reads: requests, hyper-parameters, and a script that runs them. Pure. */
import { stringify } from 'yaml'
import type { Edit } from '../../edit/edit.ts'
import { PalimpsestError } from '../../errors.ts'
import type { Probe } from '../../evaluate/data/probe.ts'
import { isPlaced, refusalOf, subjectIn } from './edit-query.ts'

/** EasyEdit's mark for an old answer that is not known. */
const NO_ANSWER = '<|endoftext|>'

interface ExportRequest {
  readonly prompt: string | readonly string[]
  readonly ground_truth: string | readonly string[]
}

/** One request as `_prepare_requests` makes it (easyeditor/editors/utils.py). */
export interface EasyEditRequest {
  readonly case_id: string
  readonly prompt: string
  readonly subject: string
  readonly target_new: string
  readonly ground_truth: string
  readonly rephrase_prompt: string
  readonly locality: Readonly<Record<string, ExportRequest>>
  readonly portability: Readonly<Record<string, ExportRequest>>
}

/** EasyEdit asserts a subject and a target; throws `invalid_value` naming each edit that is no fact about a subject. */
export function refuseOthers(edits: readonly Edit[]): void {
  const others = edits.filter((edit) => !isPlaced(edit))
  if (others.length > 0)
    throw new PalimpsestError('invalid_value', `EasyEdit takes facts with a subject. ${refusalOf(others)}`, { param: 'edits' })
}

/** null: the prompt does not name the subject, which EasyEdit asserts. `probes`: of the edit's record in a data file. */
export function requestOf(edit: Edit, probes: readonly Probe[]): EasyEditRequest | null {
  const subject = isPlaced(edit) ? subjectIn(edit) : null
  if (subject === null) return null
  const rephrased = probes.find(({ kind }) => kind === 'generalization')?.turns.at(-1) ?? edit.paraphrases[0]
  return {
    case_id: edit.id,
    prompt: edit.prompt.trimEnd(),
    subject,
    target_new: edit.targetNew.trim(),
    ground_truth: edit.targetTrue ?? NO_ANSWER,
    // Every row needs one, or EasyEdit's columns are of unequal length.
    rephrase_prompt: rephrased ?? edit.prompt.trimEnd(),
    locality: grouped(probes.filter(({ kind }) => kind === 'locality')),
    portability: grouped(probes.filter(({ kind }) => kind === 'portability')),
  }
}

function grouped(probes: readonly Probe[]): Record<string, ExportRequest> {
  const sorts = [...new Set(probes.map(({ sub }) => sub))]
  return Object.fromEntries(
    sorts.map((sort) => {
      const some = probes.filter(({ sub, answers }) => sub === sort && answers.length > 0)
      return [
        sort,
        { prompt: some.map(({ turns }) => turns.at(-1) ?? ''), ground_truth: some.map(({ answers }) => answers[0] ?? '') },
      ]
    }),
  )
}

/** At most one edit of a subject in each: two of one batch would collide in MEMIT's keys (MEMIT-Merge, arXiv 2502.07322). */
export function passes(requests: readonly EasyEditRequest[]): EasyEditRequest[][] {
  const out: EasyEditRequest[][] = []
  const seen = new Map<string, number>()
  for (const request of requests) {
    const subject = request.subject.toLowerCase()
    const pass = seen.get(subject) ?? 0
    seen.set(subject, pass + 1)
    out[pass] = [...(out[pass] ?? []), request]
  }
  return out
}

/** Where a model's facts are edited, and how strongly: LLaMA-2-7B as published, the Qwen2.5 models as `editor/palimpsest_editor/closed_form/hparams.py`. */
interface Shape {
  readonly layers: readonly number[]
  readonly last: number
  readonly steps: { readonly memit: number; readonly pmet: number }
  readonly clamp: { readonly memit: number; readonly pmet: number }
  readonly rate: number
  readonly lambda: number
  /** Of fine-tuning, two thirds up. */
  readonly tuned: number
}

const LLAMA2_7B: Shape = {
  layers: [4, 5, 6, 7, 8],
  last: 31,
  steps: { memit: 25, pmet: 20 },
  clamp: { memit: 4, pmet: 1 },
  rate: 0.5,
  lambda: 15_000,
  tuned: 21,
}
const QWEN: Shape = {
  layers: [1, 2, 3, 4, 5],
  last: 23,
  steps: { memit: 30, pmet: 30 },
  clamp: { memit: 0.75, pmet: 1 },
  rate: 0.1,
  lambda: 2_000,
  tuned: 16,
}

export function shapeOf(model: string): Shape {
  if (/qwen2.*0\.5b/i.test(model)) return QWEN
  if (/qwen2.*1\.5b/i.test(model)) return { ...QWEN, last: 27, tuned: 18 }
  return LLAMA2_7B
}

type Hparams = Readonly<Record<string, unknown>>

/** Modules of a LLaMA-like model, as EasyEdit names them. */
const MODULES = {
  rewrite_module_tmp: 'model.layers.{}.mlp.down_proj',
  layer_module_tmp: 'model.layers.{}',
  mlp_module_tmp: 'model.layers.{}.mlp',
  attn_module_tmp: 'model.layers.{}.self_attn',
  ln_f_module: 'model.norm',
  lm_head_module: 'lm_head',
}

/** Methods that solve for the weights (MEMIT and its kin). */
function closedForm(shape: Shape): Readonly<Record<string, Hparams>> {
  const closed = {
    stats_dir: './data/stats',
    layers: [...shape.layers],
    layer_selection: 'all',
    fact_token: 'subject_last',
    v_loss_layer: shape.last,
    v_lr: shape.rate,
    kl_factor: 0.0625,
    mom2_adjustment: true,
    mom2_update_weight: shape.lambda,
    ...MODULES,
    mom2_dataset: 'wikipedia',
    mom2_n_samples: 100_000,
    mom2_dtype: 'float32',
  }
  const memit = { ...closed, clamp_norm_factor: shape.clamp.memit, v_num_grad_steps: shape.steps.memit, v_weight_decay: 1e-3 }
  const nullSpace = { P_loc: './null_space_project.pt', nullspace_threshold: 2e-2, L2: 1 }
  return {
    MEMIT: memit,
    'MEMIT-FE': memit,
    PMET: {
      ...closed,
      clamp_norm_factor: shape.clamp.pmet,
      v_num_grad_steps: shape.steps.pmet,
      v_weight_decay: 0.5,
      nll_loss_factor: 1,
      rewrite_module_tmps: ['model.layers.{}.mlp.down_proj'],
      mlp_module_tmp: 'model.layers.{}.mlp.down_proj',
      attn_module_tmp: 'model.layers.{}.self_attn.o_proj',
    },
    EMMET: { ...memit, mom2_update_weight: 1, update_norm_lambda: 0, emmet_lambda: 0.1 },
    AlphaEdit: { ...memit, v_lr: 0.1, v_weight_decay: 0.5, clamp_norm_factor: 0.75, ...nullSpace },
  }
}

/** Methods that train by gradient. */
function trained(shape: Shape, hfModel: string): Readonly<Record<string, Hparams>> {
  const tuning = { max_length: 40, weight_decay: 0, kl_factor: 0, norm_constraint: false }
  const lora = { rank: 8, lora_alpha: 32, lora_dropout: 0.1, target_modules: ['q_proj', 'v_proj'] }
  const quantized = { quantization_bit: 4, double_quant: true, quant_type: 'nf4' }
  const batches = { token: 'mask', batch_size_once: 10, editor_batch_size: 1024, silent: false, half: true }
  const model = { model_class: 'AutoModelForCausalLM', tokenizer_class: 'AutoTokenizer', tokenizer_name: hfModel }
  return {
    FT: {
      ...tuning,
      ...MODULES,
      layers: [shape.tuned],
      num_steps: 25,
      lr: 5e-4,
      objective_optimization: 'target_new',
      rewrite_module_tmp: 'model.layers.{}.mlp.down_proj.weight',
    },
    LoRA: { ...tuning, ...lora, lora_type: 'lora', layers: [], num_steps: 70, lr: 5e-3 },
    QLoRA: {
      lora_type: 'lora',
      lora_r: 8,
      lora_alpha: 32,
      lora_dropout: 0.1,
      target_modules: lora.target_modules,
      num_steps: 70,
      max_length: 40,
      lr: 5e-3,
      weight_decay: 0,
      ...quantized,
    },
    DPO: { ...tuning, ...lora, lora_type: 'lora', layers: [], num_steps: 7, lr: 5e-5, alpha: 0.99, beta: 0.1 },
    ULTRAEDIT: {
      ...model,
      results_dir: './results',
      inner_params: [11, 12, 13, 14, 15].map((n) => `model.layers.${Math.round((n / 31) * shape.last)}.mlp.gate_proj`),
      dropout: 0,
      no_grad_layers: null,
      lr: 1e-6,
      ...batches,
    },
  }
}

/**
 * Hyper-parameters by file name, with EasyEdit's own field names and its published values for LLaMA-2-7B; `batch_size` is set, as the default of
 * 1 edits nothing in a batch. MEND, SERAC, KE and CALINET are on its batch list, too, but need an editor of their own trained first; CORE is left out.
 */
export function hparamsFiles(model: string, hfModel: string, batchSize: number): ReadonlyMap<string, string> {
  const shape = shapeOf(model)
  const common = { model_name: hfModel, device: 0, batch_size: batchSize, model_parallel: false }
  const all = { ...closedForm(shape), ...trained(shape, hfModel) }
  return new Map(Object.entries(all).map(([name, values]) => [name, stringify({ alg_name: name, ...common, ...values })]))
}

/** Runs the passes one after the other on one model and keeps what was changed, in the form that `handoff import` reads. */
export const SCRIPT = `"""Edits a model with EasyEdit and saves the change alone. Usage: python run.py MEMIT [OUT]"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

import easyeditor
from easyeditor import BaseEditor

HERE = Path(__file__).parent
CLASSES = {
    "MEMIT": "MEMITHyperParams", "MEMIT-FE": "MEMITFEHyperParams", "PMET": "PMETHyperParams", "EMMET": "EMMETHyperParams",
    "AlphaEdit": "AlphaEditHyperParams", "FT": "FTHyperParams", "LoRA": "LoRAHyperParams", "QLoRA": "QLoRAHyperParams",
    "DPO": "DPOHyperParams", "ULTRAEDIT": "UltraEditHyperParams",
}


def columns(rows, field):
    """{sort: {prompt: [one slot an edit], ground_truth: [...]}}; an edit without that sort has None."""
    sorts = sorted({sort for row in rows for sort in row[field]})
    slots = {s: [row[field].get(s) for row in rows] for s in sorts}
    return {s: {k: [x and x[k] for x in of] for k in ("prompt", "ground_truth")} for s, of in slots.items()}


def main(method, out):
    hparams = getattr(easyeditor, CLASSES[method]).from_hparams(str(HERE / "hparams" / f"{method}.yaml"))
    editor = BaseEditor.from_hparams(hparams)
    before = {name: weight.detach().cpu().clone() for name, weight in editor.model.named_parameters()}
    edited = editor.model
    for rows in json.loads((HERE / "requests.json").read_text(encoding="utf-8")):
        more = {"target_neg": [r["ground_truth"] for r in rows]} if method == "DPO" else {}
        metrics, edited, _ = editor.batch_edit(
            prompts=[r["prompt"] for r in rows],
            target_new=[r["target_new"] for r in rows],
            ground_truth=[r["ground_truth"] for r in rows],
            subject=[r["subject"] for r in rows],
            rephrase_prompts=[r["rephrase_prompt"] for r in rows],
            locality_inputs=columns(rows, "locality"),
            portability_inputs=columns(rows, "portability"),
            # Without it every batch is undone before the next, and the model that comes back is the base.
            sequential_edit=True,
            **more,
        )
        (out / "metrics.jsonl").open("a").writelines(json.dumps(m, default=str) + "\\n" for m in metrics)
    if hasattr(edited, "peft_config"):
        edited.save_pretrained(out / "peft")
        print(f"palimpsest handoff import {out / 'peft'}")
        return
    now = dict(edited.named_parameters())
    deltas = {n: (now[n].detach().cpu().float() - w.float()).contiguous() for n, w in before.items() if not torch.equal(now[n].detach().cpu(), w)}
    if not deltas:
        raise SystemExit("No weight has changed: see the traps in README.md")
    save_file(deltas, out / "deltas.safetensors")
    print(f"palimpsest handoff import {out / 'deltas.safetensors'}")


if __name__ == "__main__":
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else HERE / "out")
    folder.mkdir(parents=True, exist_ok=True)
    main(sys.argv[1], folder)
`

export function readmeText(model: string, hfModel: string, edits: number, passCount: number, leftOut: readonly string[]): string {
  return `# ${edits} edits of ${model} for EasyEdit

Made by \`palimpsest handoff export --to easyedit\`. EasyEdit: https://github.com/zjunlp/EasyEdit (field names and values after its hparams as of July 2026).

\`\`\`sh
git clone https://github.com/zjunlp/EasyEdit && pip install -r EasyEdit/requirements.txt
PYTHONPATH=EasyEdit python run.py MEMIT          # or PMET, LoRA, …: any file in hparams/
palimpsest handoff import out/deltas.safetensors --id from-easyedit --edits-of requests.json
\`\`\`

- \`requests.json\`: ${passCount} pass${passCount === 1 ? '' : 'es'} of requests; in each at most one edit of a subject.
- \`hparams/*.yaml\`: \`model_name\` is \`${hfModel}\`: point it at the Hugging Face folder of the very model that is served. Its path must hold the
  family's name in lower case (\`llama\`, \`qwen2\`), by which EasyEdit chooses how to load it.
${leftOut.length > 0 ? `- Left out, as their prompt does not name their subject: ${leftOut.join(', ')}.\n` : ''}
## Known traps

- **\`batch_size\` is 1 by default and absent from the MEMIT and PMET files there**: nothing is then edited in a batch. It is set here to the largest pass.
- **\`sequential_edit=False\` hands back the base model**: each batch is undone before the next (EasyEdit issues 627, 465). \`run.py\` sets it.
- **Second moments are not shipped** (issues 240, 665). For LLaMA-2-7B they take about 40 hours of one GPU over 100,000 articles; a few tenths of a per
  cent of that text give much the same (arXiv 2506.04226): lower \`mom2_n_samples\`.
- **PMET on LLaMA**: old versions encode a \`<s>\` in front of the target (issues 247, 250); its author took λ 6,000 for LLaMA-2, not 15,000.
- **LoRA is AdaLoRA there** unless \`lora_type: lora\` is set; an AdaLoRA's third factor is not read back by \`handoff import\`.
- **One rephrase an edit survives** (issue 551), and one slot of each sort of locality.
- **MEMIT and PMET wear a model out** when edits come one at a time (issues 236, 47): use few, large batches.
- **Scores of different evaluation types do not compare**: its default is teacher-forced on raw text, without a chat template.
- **Memory**: MEMIT on LLaMA-2-7B takes about 33 GB of a GPU there, fine-tuning 60.
- MEND, SERAC, KE and CALINET are on its batch list and are not exported: each needs an editor trained beforehand. CORE is not exported either.
`
}
