"""Rules taught and asked: those of a trial in our format (`kind` "B", in-scope and near-miss messages), in one adapter.

    python bench/rules.py --base MODEL.gguf --trial TRIAL.jsonl --folder OUT [--method lora]

The first `--taught` messages of each sort are taught (examples) or held (near misses); the rest are only asked. An answer obeys
where it holds a word of each of the rule's `keys` and does not say the rule itself again. Rules without keys, or without near
misses, are left out. As in the gateway, the model is told the instruction alone, without the occasion.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from palimpsest_editor.protocol import Reporter, parse_job
from palimpsest_editor.run import Run
from palimpsest_editor.texts.phrasing import ChatFormat
from palimpsest_editor.trained.lora import greedy
from palimpsest_editor.weights.adapter import read_adapter
from palimpsest_editor.weights.checkpoint import Pieces
from palimpsest_editor.weights.loading import load
from palimpsest_editor.weights.lowrank import applied

ANSWER_TOKENS = 40
OCCASION = re.compile(r"(?:When|If) .+?, ")


def rules_of(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [one for one in lines if one["kind"] == "B" and one["keys"] and one["near_miss"]]


def said(one: dict[str, Any], sort: str) -> list[str]:
    return [m["messages"][-1]["content"] for m in one[sort]]


def parts(one: dict[str, Any]) -> tuple[str, str]:
    """Occasion, empty where it has none of its own, and instruction."""
    whole = f"{one['edit']['prompt']} {one['edit']['target_new']}"
    found = OCCASION.match(whole)
    return (found[0], whole[found.end() :]) if found else ("", whole)


def told(one: dict[str, Any]) -> str:
    return f"Do as this says: {parts(one)[1]}"


def words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def obeys(one: dict[str, Any], answer: str) -> bool:
    echo = any(part and words(part) in words(answer) for part in parts(one))
    return not echo and all(any(word.casefold() in answer.casefold() for word in key) for key in one["keys"])


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("base", "trial", "folder"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--method", default="lora")
    parser.add_argument("--taught", type=int, default=3)
    parser.add_argument("--cache")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--hparams", default="{}")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    folder, rules, n = Path(flags.folder), rules_of(Path(flags.trial)), flags.taught
    edits = [
        {"id": str(i), "kind": "rule", "subject": "", "prompt": one["edit"]["prompt"], "target_new": parts(one)[1],
         "examples": said(one, "in_scope")[:n]}
        for i, one in enumerate(rules)
    ]  # fmt: skip
    job = {
        "protocol": 1, "task": "edit", "method": flags.method, "base": {"path": flags.base}, "work_dir": str(folder / "work"),
        "out_dir": str(folder), "cache_dir": flags.cache or str(folder / "cache"), "threads": flags.threads, "edits": edits,
        "hparams": json.loads(flags.hparams),
        "locality": [{"question": q} for one in rules for q in said(one, "near_miss")[:n]],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "palimpsest_editor", "run", str(folder / "job.json")]
    with (folder / "events.jsonl").open("w") as out:
        subprocess.run(command, stdout=out, cwd=Path(__file__).parents[1], check=False)
    made = json.loads((folder / "events.jsonl").read_text().splitlines()[-1])
    if made["event"] != "result":
        sys.exit(json.dumps(made))
    quiet, parsed = Reporter(io.StringIO()), parse_job({**job, "edits": []})
    loaded = load(parsed.base, parsed.cache_dir, quiet, parsed.device, parsed.dtype)
    form = ChatFormat(loaded.tokenizer, None)
    run = Run(parsed, loaded, quiet, Pieces(parsed.work_dir), "rules", [])
    asked = [(i, "in_scope", k, q) for i, one in enumerate(rules) for k, q in enumerate(said(one, "in_scope"))]
    asked += [(i, "near_miss", k, q) for i, one in enumerate(rules) for k, q in enumerate(said(one, "near_miss"))]

    def answers(name: str, updates: Any, texts: list[str]) -> list[str]:
        with applied(loaded, updates):
            return [
                loaded.tokenizer.decode(a) for a in greedy(run, [form.ask(t) for t in texts], ANSWER_TOKENS, f"{name} answers")
            ]

    base = answers("base", [], [a[3] for a in asked])
    prompted = answers("prompted", [], [f"{a[3]}\n\n{told(rules[a[0]])}" for a in asked])
    own = answers("adapter", read_adapter(Path(made["adapter"]["gguf"]), loaded.model.config)[0], [a[3] for a in asked])
    found: dict[str, list[bool]] = {}
    for (i, sort, k, _), was, prompt, now in zip(asked, base, prompted, own, strict=True):
        part = "taught" if k < n else "unseen"
        if sort == "in_scope":
            for name, answer in (("base", was), ("prompt", prompt), ("adapter", now)):
                found.setdefault(f"obeyed, {part}: {name}", []).append(obeys(rules[i], answer))
        else:
            found.setdefault(f"near misses unchanged, {part}", []).append(was == now)
    figures = {k: f"{sum(v)} of {len(v)}" for k, v in found.items()}
    report = {"rules": len(rules), "method": flags.method, "seconds": made["seconds"], "training": made["training"], **figures}
    (folder / "answers.json").write_text(
        json.dumps(
            [[*a[:4], b, p, o] for a, b, p, o in zip(asked, base, prompted, own, strict=True)], indent=1, ensure_ascii=False
        )
    )
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
