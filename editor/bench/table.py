"""Base | MEMIT | AlphaEdit | PMET | batch LoRA | distilled, side by side on CounterFact records: teacher-forced scores, chat answers, what
stays, fluency, cost.

    python bench/table.py --base MODEL.gguf --data COUNTERFACT.json --folder OUT --statistics-text TEXT --unrelated
    QUESTIONS.jsonl

The paraphrases and neighbours of the records serve the measuring only; an edit gives subject, prompt and target. Each method
runs as a job of its own process; what it gives is measured from its written GGUF. A second start skips what OUT holds
(METHOD.json) and goes on with the rest. `chat` is on where a method has it, as in the gateway's hand-offs.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import time
from collections import Counter
from math import log2
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from palimpsest_editor.protocol import Job, Reporter, parse_job
from palimpsest_editor.run import Run
from palimpsest_editor.score import KINDS, score_probes
from palimpsest_editor.texts.phrasing import ChatFormat
from palimpsest_editor.trained.lora import greedy
from palimpsest_editor.weights.adapter import read_adapter
from palimpsest_editor.weights.checkpoint import Pieces
from palimpsest_editor.weights.loading import LoadedModel, load
from palimpsest_editor.weights.lowrank import applied

METHODS = ("memit", "alphaedit", "pmet", "lora", "distil")
BY_DEFAULT = {name: {"chat": True} for name in ("memit", "alphaedit", "pmet")}
NEIGHBOURS = 4
ANSWER_TOKENS = 24
OPEN = ("Write a short paragraph about {}.", "Tell me about {}.")
OPEN_TOKENS = 100
GRAMS = ((2, 2 / 3), (3, 4 / 3))
"""n of n-grams and the weight of their entropy (`n_gram_entropy` of ROME's code)."""


def records(path: Path, first: int, count: int) -> list[dict[str, Any]]:
    """The first `count` records from `first` on whose subjects differ. CounterFact's own, or in EasyEdit's flat form."""
    by_subject: dict[str, dict[str, Any]] = {}
    for one in map(unflat, json.loads(path.read_text())[first:]):
        by_subject.setdefault(one["requested_rewrite"]["subject"].casefold(), one)
    return list(by_subject.values())[:count]


def unflat(record: dict[str, Any]) -> dict[str, Any]:
    """A record in EasyEdit's flat form, which has one paraphrase and one neighbour, as CounterFact's own."""
    if "requested_rewrite" in record:
        return record
    subject, new, true = record["subject"], record["target_new"], record["ground_truth"]
    return {
        "case_id": record["case_id"],
        "requested_rewrite": {
            "subject": subject,
            "prompt": record["prompt"].replace(subject, "{}", 1),
            "target_new": {"str": new},
            "target_true": {"str": true},
        },
        "paraphrase_prompts": [record["rephrase_prompt"]],
        "neighborhood_prompts": [record["locality_prompt"]],
    }


def edit_of(record: dict[str, Any]) -> dict[str, Any]:
    of = record["requested_rewrite"]
    return {
        "id": str(record["case_id"]),
        "subject": of["subject"],
        "prompt": of["prompt"].replace("{}", of["subject"]),
        "target_new": of["target_new"]["str"],
    }


def probes_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    edit, true = edit_of(record), record["requested_rewrite"]["target_true"]["str"]
    prompts = ([edit["prompt"]], record["paraphrase_prompts"], record["neighborhood_prompts"][:NEIGHBOURS])
    return [
        {"kind": kind, "prompt": p, "target_new": edit["target_new"], "target_true": true}
        for kind, listed in zip(KINDS, prompts, strict=True)
        for p in listed
    ]


def questions_of(raw: list[dict[str, Any]], unrelated: list[str]) -> list[tuple[str, int, str]]:
    """(kind, record or question, text) of what is asked in the chat; no neighbour that is itself edited."""
    subjects = [edit_of(r)["subject"].casefold() for r in raw]
    asked = [("efficacy", i, edit_of(r)["prompt"]) for i, r in enumerate(raw)]
    asked += [("paraphrase", i, r["paraphrase_prompts"][0]) for i, r in enumerate(raw)]
    near = [("neighbourhood", i, r["neighborhood_prompts"][NEIGHBOURS]) for i, r in enumerate(raw)]
    asked += [n for n in near if not any(s in n[2].casefold() for s in subjects)]
    return asked + [("unrelated", i, q) for i, q in enumerate(unrelated)]


def edit(
    flags: argparse.Namespace, name: str, raw: list[dict[str, Any]], hparams: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """Runs one method's job (resumable) and returns its result event. The wall clock is this start's, with loading."""
    folder = Path(flags.folder) / name
    job = job_of(flags, name, {"edits": [edit_of(r) for r in raw], "hparams": hparams, **more})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps(job))
    began = time.monotonic()
    with (folder / "events.jsonl").open("w") as out, (folder / "stderr").open("w") as err:
        command = [sys.executable, "-m", "palimpsest_editor", "run", str(folder / "job.json")]
        subprocess.run(command, stdout=out, stderr=err, cwd=Path(__file__).parents[1], check=False)
    last = json.loads((folder / "events.jsonl").read_text().splitlines()[-1])
    if last["event"] != "result":
        sys.exit(f"{name}: {json.dumps(last)}")
    return {**last, "wall_s": round(time.monotonic() - began)}


def job_of(flags: argparse.Namespace, name: str, more: dict[str, Any]) -> dict[str, Any]:
    folder = Path(flags.folder) / name
    statistics = {"tokens": flags.statistics_tokens, **({"text": flags.statistics_text} if flags.statistics_text else {})}
    return {
        "protocol": 1, "task": "edit", "method": name, "base": {"path": flags.base}, "work_dir": str(folder / "work"),
        "out_dir": str(folder), "cache_dir": flags.cache or str(Path(flags.folder) / "cache"), "statistics": statistics,
        "threads": flags.threads, **more,
    }  # fmt: skip


def measure(
    loaded: LoadedModel, job: Job, raw: list[dict[str, Any]], asked: list[tuple[str, int, str]], name: str
) -> dict[str, Any]:
    """Teacher-forced scores, and the greedy chat answers, of the model as it is now."""
    quiet = Reporter(io.StringIO())
    scores = score_probes(loaded, [p for r in raw for p in probes_of(r)], quiet)
    form = ChatFormat(loaded.tokenizer, None)
    run = Run(job, loaded, quiet, Pieces(job.work_dir), name, [])
    answers = greedy(run, [form.ask(text) for _, _, text in asked], ANSWER_TOKENS, f"{name} answers")
    said = [loaded.tokenizer.decode(a) for a in answers]
    return {"scores": {k: scores[k] for k in KINDS}, "answers": said, "texts": open_texts(loaded, raw) if asked else []}


@torch.no_grad()
def open_texts(loaded: LoadedModel, raw: list[dict[str, Any]]) -> list[str]:
    """Two texts an edit, sampled from the five likeliest tokens (`generate_fast` of ROME's code)."""
    form, tokenizer = ChatFormat(loaded.tokenizer, None), loaded.tokenizer
    asked = [form.ask(said.replace("{}", edit_of(r)["subject"])) for said in OPEN for r in raw]
    tokenizer.padding_side = "left"
    rows = tokenizer.pad({"input_ids": asked}, return_tensors="pt").to(loaded.device)
    tokenizer.padding_side = "right"
    torch.manual_seed(0)
    sampled = {"do_sample": True, "temperature": 1.0, "top_k": 5, "top_p": 1.0, "repetition_penalty": 1.0}
    out = loaded.model.generate(**rows, **sampled, max_new_tokens=OPEN_TOKENS, pad_token_id=tokenizer.pad_token_id)
    return tokenizer.batch_decode(out[:, rows["input_ids"].shape[1] :], skip_special_tokens=True)


def fluency(text: str) -> float:
    """100 times the weighted mean entropy, in bits, of its 2-grams and 3-grams (Meng et al., 2022); src/evaluate/metrics/entropy.ts."""
    words = re.findall(r"\w+|[^\w\s]", text)
    grams = [(Counter(zip(*(words[i:] for i in range(n)), strict=False)), weight) for n, weight in GRAMS]
    entropies = [-w * sum(c / g.total() * log2(c / g.total()) for c in g.values()) for g, w in grams if g]
    return 100 * sum(entropies) / len(GRAMS)


def chat(base: list[str], now: list[str], raw: list[dict[str, Any]], asked: list[tuple[str, int, str]]) -> dict[str, float]:
    """Per cent: of the edits' questions, answers with the target; of the others, answers that are the base's, character by
    character."""
    said: dict[str, list[bool]] = {}
    for (kind, i, _), was, is_now in zip(asked, base, now, strict=True):
        inside = kind in ("efficacy", "paraphrase")
        fine = edit_of(raw[i])["target_new"].casefold() in is_now.casefold() if inside else was == is_now
        said.setdefault(f"{kind} {'has target' if inside else 'unchanged'}", []).append(fine)
    return {k: round(100 * sum(v) / len(v), 1) for k, v in said.items()}


def row(name: str, one: dict[str, Any]) -> str:
    scores = [f"{one['scores'][k]['success']:.1f}" for k in KINDS]
    told = [str(v) for v in one["chat"].values()]
    texts = [fluency(text) for text in one["texts"]]
    told += [f"{sum(texts) / len(texts):.1f}"] if texts else []
    made = one.get("made")
    cost = ["", "", "", ""]
    if made:
        norms = [n["relative"] for n in made["norms"]]
        cost = [
            str(made["wall_s"]),
            f"{made['peak_bytes'] / 1e9:.1f}",
            f"{made['adapter']['bytes'] / 1e6:.1f}",
            f"{min(norms)}–{max(norms)}",
        ]
    return f"| {' | '.join([name, *scores, *told, *cost])} |"


def arguments() -> argparse.ArgumentParser:
    """What every bench of jobs on CounterFact records is told."""
    parser = argparse.ArgumentParser()
    for name in ("base", "data", "folder"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--cache")
    parser.add_argument("--statistics-text")
    parser.add_argument("--statistics-tokens", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=250)
    parser.add_argument("--edits", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--hparams", default="{}", help="JSON; of several methods, by method")
    return parser


def main() -> None:
    parser = arguments()
    parser.add_argument("--unrelated", help="a .jsonl of questions")
    parser.add_argument("--unrelated-count", type=int, default=30)
    parser.add_argument("--forced-only", action="store_true", help="no chat answers: many edits take long to ask about")
    parser.add_argument("--methods", default=",".join(METHODS))
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    raw = records(Path(flags.data), flags.first, flags.edits)
    lines = Path(flags.unrelated).read_text().splitlines()[: flags.unrelated_count] if flags.unrelated else []
    asked = [] if flags.forced_only else questions_of(raw, [json.loads(line)["question"] for line in lines])
    found: dict[str, dict[str, Any]] = {}
    loaded = None
    for name in ("base", *flags.methods.split(",")):
        path = Path(flags.folder) / f"{name}.json"
        if not path.exists():
            hparams = {**BY_DEFAULT.get(name, {}), **json.loads(flags.hparams).get(name, {})}
            made = None if name == "base" else edit(flags, name, raw, hparams)
            job = parse_job(job_of(flags, name, {"method": None}))
            loaded = loaded or load(job.base, job.cache_dir, Reporter(io.StringIO()), job.device, job.dtype)
            updates = read_adapter(Path(made["adapter"]["gguf"]), loaded.model.config)[0] if made else []
            with applied(loaded, updates):
                one = measure(loaded, job, raw, asked, name)
            one["chat"] = chat(found.get("base", one)["answers"], one["answers"], raw, asked)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({**one, "made": made, "hparams": hparams, "asked": asked}, indent=1, ensure_ascii=False))
        found[name] = json.loads(path.read_text())
        print(row(name, found[name]), flush=True)
    heads = ["", *KINDS, *found["base"]["chat"], *(["fluency"] if asked else []), "s", "GB", "MB", "‖ΔW‖/‖W‖"]
    print("", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *(row(n, f) for n, f in found.items()), sep="\n")


if __name__ == "__main__":
    main()
