"""HalluEditBench's questions put to edited models, beside the edit in the prompt: paraphrase, yes, no, choice, locality.

    python bench/hallucinations.py --base MODEL.gguf --data QUESTIONS.jsonl --folder OUT [--methods memit,lora --edits 30]

A line is an edit with its `in_scope` questions by `type` and its `near_miss` ones (locality). Edits are taken at equal distances,
since lines are sorted by topic; one whose subject had one before is passed over. What is right:
- a paraphrase's answer has the target;
- "yes" and "no" begin with that word, or say what is so: the target unnegated, and for "no" a negation too;
- a choice begins with the target's letter, or has the target and no other choice;
- of locality the answer is the base's, character by character.
What follows ("hop") has no answer to compare with, and is left out. A second start skips what OUT holds (METHOD.json).
After HalluEditBench (Huang et al., 2025, arXiv:2410.16251), whose judge is a model; ours is not.
"""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from table import ANSWER_TOKENS, BY_DEFAULT, arguments, edit, job_of

from palimpsest_editor.protocol import Reporter, parse_job
from palimpsest_editor.run import Run
from palimpsest_editor.texts.phrasing import ChatFormat
from palimpsest_editor.trained.lora import greedy
from palimpsest_editor.weights.adapter import read_adapter
from palimpsest_editor.weights.checkpoint import Pieces
from palimpsest_editor.weights.loading import load
from palimpsest_editor.weights.lowrank import applied

CHOICE = re.compile(r"\b([A-D])\. (.+?)(?= +[A-D]\. |$)")
TOLD = "{}\n\nYour answer must state this:\n- {}"


def records(path: Path, count: int) -> list[dict[str, Any]]:
    """Of each an edit as CounterFact has it, and its questions by type."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    by_subject: dict[str, dict[str, Any]] = {}
    for number in range(0, len(lines), max(1, len(lines) // (count + 5))):
        one = lines[number]
        subject, prompt, target = (one["edit"][k] for k in ("subject", "prompt", "target_new"))
        rewrite = {"subject": subject, "prompt": prompt.replace(subject, "{}"), "target_new": {"str": target}}
        asked = {q["type"]: q["messages"][-1]["content"] for q in [*one["in_scope"], *one["near_miss"]] if q["type"] != "hop"}
        by_subject.setdefault(subject.casefold(), {"case_id": number, "requested_rewrite": rewrite, "asked": asked})
    return list(by_subject.values())[:count]


def is_right(kind: str, question: str, target: str, answer: str, base: str) -> bool:
    said, wanted = answer.strip().casefold(), target.casefold()
    if kind == "locality":
        return answer == base
    if kind in ("yes", "no"):
        first, negated = re.match(r"(yes|no)\b", said), re.search(r"\bnot\b", said) is not None
        if first:
            return first[1] == kind
        return wanted in said and not negated if kind == "yes" else wanted in said or negated
    if kind == "para":
        return wanted in said
    choices = {letter.casefold(): text.casefold() for letter, text in CHOICE.findall(question)}
    letter = re.match(r"([a-d])\b", said)
    if letter:
        return wanted in choices.get(letter[1], "")
    return [text for text in choices.values() if text in said] == [wanted]


def main() -> None:
    parser = arguments()
    parser.set_defaults(edits=30)
    parser.add_argument("--methods", default="memit,lora")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    raw, folder = records(Path(flags.data), flags.edits), Path(flags.folder)
    asked = [(r["requested_rewrite"], kind, q) for r in raw for kind, q in r["asked"].items()]
    loaded = None
    base: list[str] = []
    print("| | paraphrase | yes | no | choice | locality |", "|---|---|---|---|---|---|", sep="\n")
    for name in ("base", "prompt", *flags.methods.split(",")):
        path = folder / f"{name}.json"
        if not path.exists():
            made = None if name in ("base", "prompt") else edit(flags, name, raw, BY_DEFAULT.get(name, {}))
            job = parse_job(job_of(flags, name, {"method": None}))
            loaded = loaded or load(job.base, job.cache_dir, Reporter(io.StringIO()), job.device, job.dtype)
            form = ChatFormat(loaded.tokenizer, None)
            texts = [q for _, _, q in asked]
            if name == "prompt":
                told = [f"{r['prompt'].replace('{}', r['subject'])} {r['target_new']['str']}." for r, _, _ in asked]
                # The gate keeps locality's questions from the edit, so they are asked without it.
                texts = [q if k == "locality" else TOLD.format(q, t) for (_, k, q), t in zip(asked, told, strict=True)]
            with applied(loaded, read_adapter(Path(made["adapter"]["gguf"]), loaded.model.config)[0] if made else []):
                run = Run(job, loaded, Reporter(io.StringIO()), Pieces(job.work_dir), name, [])
                answers = greedy(run, [form.ask(text) for text in texts], ANSWER_TOKENS, f"{name} answers")
            path.parent.mkdir(parents=True, exist_ok=True)
            said = [loaded.tokenizer.decode(a, skip_special_tokens=True) for a in answers]
            path.write_text(json.dumps({"said": said, "made": made}, indent=1, ensure_ascii=False))
        said = json.loads(path.read_text())["said"]
        base = base or said
        found: dict[str, list[bool]] = {}
        for (rewrite, kind, q), now, was in zip(asked, said, base, strict=True):
            found.setdefault(kind, []).append(is_right(kind, q, rewrite["target_new"]["str"], now, was))
        shares = [f"{100 * sum(found[k]) / len(found[k]):.1f}" for k in ("para", "yes", "no", "mc", "locality")]
        print(f"| {' | '.join([name, *shares])} |", flush=True)


if __name__ == "__main__":
    main()
