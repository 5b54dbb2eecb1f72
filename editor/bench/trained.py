"""Batch LoRA or distillation on CounterFact records, measured: teacher-forced scores, chat answers with the target, and answers out of scope
that stay word for word.

    python bench/trained.py --base MODEL.gguf --data COUNTERFACT.json --method lora --edits 50 --folder /tmp/trained

The paraphrases and neighbours of the records serve the measuring only; the training sees subject, prompt and target.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from palimpsest_editor.adapter import read_adapter
from palimpsest_editor.checkpoint import Pieces
from palimpsest_editor.faults import Fault
from palimpsest_editor.loading import load
from palimpsest_editor.lora import greedy
from palimpsest_editor.lowrank import applied
from palimpsest_editor.methods import Run
from palimpsest_editor.phrasing import ChatFormat
from palimpsest_editor.protocol import Reporter, parse_job, resident_bytes
from palimpsest_editor.tasks import perform


def records(path: Path, count: int, first: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Edits, teacher-forced probes, and the records themselves."""
    raw = json.loads(path.read_text())[first : first + count]
    edits, probes = [], []
    for one in raw:
        of = one["requested_rewrite"]
        new, true = of["target_new"]["str"], of["target_true"]["str"]
        prompt = of["prompt"].replace("{}", of["subject"])
        edits.append({"id": str(one["case_id"]), "subject": of["subject"], "prompt": prompt, "target_new": new})
        for kind, prompts in (
            ("efficacy", [prompt]),
            ("paraphrase", one["paraphrase_prompts"]),
            ("neighbourhood", one["neighborhood_prompts"][:2]),
        ):
            probes += [{"kind": kind, "prompt": p, "target_new": new, "target_true": true} for p in prompts]
    return edits, probes, raw


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("base", "data", "method", "folder"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--cache")
    parser.add_argument("--unrelated", help="a .jsonl of questions")
    parser.add_argument("--edits", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--hparams", default="{}")
    flags = parser.parse_args()
    folder = Path(flags.folder)
    edits, probes, raw = records(Path(flags.data), flags.edits, flags.first)
    job = parse_job({
        "protocol": 1, "task": "edit", "method": flags.method, "base": {"path": flags.base}, "work_dir": str(folder / "work"), "out_dir": str(folder / "out"),
        "cache_dir": flags.cache or str(folder / "cache"), "edits": edits, "hparams": json.loads(flags.hparams), "threads": flags.threads, "probes": probes,
    })  # fmt: skip
    began, used = time.monotonic(), time.process_time()
    reporter = Reporter(sys.stderr)
    try:
        result = perform(job, reporter)
    except Fault as fault:
        sys.exit(f"{fault.code}: {fault.message}. {fault.change}")
    wall, cpu = time.monotonic() - began, time.process_time() - used
    said: dict[str, Any] = {
        "method": flags.method,
        "edits": len(edits),
        "wall_s": round(wall),
        "cpu_s": round(cpu),
        "peak_gb": round(max(reporter.peak_bytes, resident_bytes()) / 1e9, 2),
    }
    said |= {
        "hparams": job.hparams,
        "training": result["training"],
        "transfer": result.get("transfer"),
        "norms": [n["relative"] for n in result["norms"]],
    }
    for when in ("before", "after"):
        said[when] = {k: v for k, v in result["scores"][when].items() if isinstance(v, dict)}
    print(json.dumps(said), flush=True)
    said["chat"] = chat(job, raw, edits, result["adapter"]["gguf"], flags)
    (folder / "figures.json").write_text(json.dumps({**said, "stages": result["stages"], "bytes": result["adapter"]["bytes"]}, indent=1))
    print(json.dumps(said["chat"]))


@torch.no_grad()
def chat(job: Any, raw: list[dict[str, Any]], edits: list[dict[str, Any]], adapter: str, flags: argparse.Namespace) -> dict[str, Any]:
    """Greedy chat answers of the base and of the base with the adapter read back from its file."""
    loaded = load(job.base, job.cache_dir, Reporter(io.StringIO()), job.device, job.dtype)
    form = ChatFormat(loaded.tokenizer, job.hparams.get("chat"))
    unrelated = (
        [json.loads(line)["question"] for line in Path(flags.unrelated).read_text().splitlines()[: len(edits)]] if flags.unrelated else []
    )
    asked = {
        "efficacy": [e["prompt"] for e in edits],
        "paraphrase": [one["paraphrase_prompts"][0] for one in raw],
        "neighbourhood": [one["neighborhood_prompts"][2] for one in raw],
        "unrelated": unrelated,
    }
    subjects = [e["subject"].casefold() for e in edits]
    prompts = [(kind, i, text) for kind, texts in asked.items() for i, text in enumerate(texts)]
    ids = [form.ask(text) for _, _, text in prompts]
    pieces = Pieces(job.cache_dir / "answers")
    base = greedy(Run(job, loaded, Reporter(io.StringIO()), pieces, "base", []), ids, flags.tokens, "base answers")
    with applied(loaded, read_adapter(Path(adapter), loaded.model.config)[0]):
        edited = greedy(Run(job, loaded, Reporter(io.StringIO()), Pieces(job.work_dir), adapter, []), ids, flags.tokens, "edited answers")
    said: dict[str, Any] = {}
    moved = []
    for kind in asked:
        at = [
            n
            for n, (k, _, text) in enumerate(prompts)
            if k == kind and (kind in ("efficacy", "paraphrase") or not any(s in text.casefold() for s in subjects))
        ]
        if not at:
            continue
        if kind in ("efficacy", "paraphrase"):
            has = [edits[prompts[n][1]]["target_new"].casefold() in loaded.tokenizer.decode(edited[n]).casefold() for n in at]
            said[f"{kind} has target"] = round(100 * sum(has) / len(has), 1)
        else:
            same = [base[n] == edited[n] for n in at]
            said[f"{kind} identical"] = round(100 * sum(same) / len(same), 1)
            moved += [
                (prompts[n][2], loaded.tokenizer.decode(base[n]), loaded.tokenizer.decode(edited[n])) for n in at if base[n] != edited[n]
            ]
    for text, was, now in moved[:8]:
        print(f"moved: {text!r}\n  base   {was!r}\n  edited {now!r}", file=sys.stderr)
    return said


if __name__ == "__main__":
    main()
