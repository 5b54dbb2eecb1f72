"""Batches of edits one after another, each on the model as the earlier adapters left it: what each costs the ones before it.

    python bench/sequence.py --base MODEL.gguf --data COUNTERFACT.json --folder OUT --statistics-text TEXT
    [--method memit --batches 10 --edits 50]

After each batch all adapters so far are applied together, and teacher-forced scores are taken of every record edited so far, and of
the first batch alone (its drift). ‖ΔW‖/‖W‖ is of their sum. A second start skips what OUT holds (METHOD-N.json).
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from table import arguments, edit, edit_of, job_of, probes_of, records

from palimpsest_editor.protocol import Reporter, parse_job
from palimpsest_editor.score import KINDS, score_probes
from palimpsest_editor.tasks import norm
from palimpsest_editor.weights.adapter import read_adapter
from palimpsest_editor.weights.loading import LoadedModel, load
from palimpsest_editor.weights.lowrank import LowRankUpdate, applied, merge


def scored(loaded: LoadedModel, updates: list[LowRankUpdate], raw: list[dict[str, Any]]) -> list[float]:
    """Success of efficacy, paraphrase and neighbourhood, per cent."""
    with applied(loaded, updates):
        found = score_probes(loaded, [p for r in raw for p in probes_of(r)], Reporter(io.StringIO()))
    return [found[kind]["success"] for kind in KINDS]


def row(name: str, one: dict[str, Any]) -> str:
    triples = [" / ".join(f"{v:.1f}" for v in one[part]) for part in ("all", "first", "base")]
    return f"| {' | '.join([name, str(one['edits']), *triples, str(one['norm']), str(one['seconds'])])} |"


def main() -> None:
    parser = arguments()
    parser.add_argument("--method", default="memit")
    parser.add_argument("--batches", type=int, default=10, help="of --edits each")
    parser.set_defaults(first=0)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    raw = records(Path(flags.data), flags.first, flags.batches * flags.edits)
    loaded: LoadedModel | None = None
    files: list[str] = []
    print("| batches | edits | all so far | the first batch | all so far, base | ‖ΔW‖/‖W‖ | s |", "|---|---|---|---|---|---|---|", sep="\n")
    for number in range(flags.batches):
        done, name = number * flags.edits, f"{flags.method}-{number}"
        so_far = raw[: done + flags.edits]
        path = Path(flags.folder) / f"{name}.json"
        if not path.exists():
            more = {
                "method": flags.method,
                "adapters": [{"path": file} for file in files],
                "kept": [edit_of(r) for r in raw[:done]] if flags.method == "alphaedit" else [],
            }
            made = edit(flags, name, so_far[done:], json.loads(flags.hparams), **more)
            file = made["adapter"]["gguf"]
            job = parse_job(job_of(flags, name, {"method": None}))
            loaded = loaded or load(job.base, job.cache_dir, Reporter(io.StringIO()), job.device, job.dtype)
            updates = merge([read_adapter(Path(f), loaded.model.config)[0] for f in (*files, file)])
            one = {
                "edits": len(so_far), "file": file, "seconds": made["wall_s"], "norm": round(max(norm(loaded, u)["relative"] for u in updates), 3),
                "all": scored(loaded, updates, so_far), "first": scored(loaded, updates, raw[: flags.edits]),
                "base": scored(loaded, [], so_far),
            }  # fmt: skip
            path.write_text(json.dumps(one, indent=1))
        found = json.loads(path.read_text())
        files.append(found["file"])
        print(row(str(number + 1), found), flush=True)


if __name__ == "__main__":
    main()
