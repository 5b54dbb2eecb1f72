"""Found and false by threshold on files of the trial's shape, reader alone (no names, no gate): to choose between trainings, quickly.

What users get is measured by `palimpsest eval --selection`.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch

from .body import read_body, tokenizer
from .data import Pool, lines
from .network import Reader
from .text import conversation_end, edit_text
from .train import score, with_neighbours

CANDIDATES = 6


def trial_pools(path: Path) -> list[Pool]:
    """A memory for each (kind, language); unrelated messages are asked of every one of their language."""
    groups: dict[tuple[str, str], list[dict]] = {}
    for record in lines(path):
        groups.setdefault((record["kind"], record["language"]), []).append(record)
    pools = []
    for (kind, language), records in groups.items():
        if kind == "U":
            continue
        pool = Pool(f"{kind} {language}")
        for record in records:
            own = pool.add(edit_text(record["edit"]), json.dumps(record["edit"]))
            for sign, items in (("+", record["in_scope"]), ("-", record["near_miss"])):
                for item in items:
                    end = conversation_end([m["content"] for m in item["messages"]])
                    pool.ask(end, {own} if sign == "+" else (), sign + item["type"])
        for record in groups.get(("U", language), []):
            for item in record["near_miss"]:
                pool.ask(conversation_end([m["content"] for m in item["messages"]]), (), "-unrelated")
        pools.append(pool)
    return pools


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--body", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--layers", default="0,1,2,3,4,5,6,7,8,9,10,11")
    parser.add_argument("--thresholds", default="0.3,0.5,0.7,0.85")
    parser.add_argument("--misses", type=int, default=0, help="list so many mistakes at 0.5 of each memory")
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    torch.set_num_threads(2)
    body = read_body(options.body)
    encode = tokenizer(body)
    reader = Reader(body, [int(i) for i in options.layers.split(",")])
    reader.load_state_dict(torch.load(options.state, map_location="cpu")["reader"], strict=False)
    pools = [p for f in options.files for p in trial_pools(f)]
    near = with_neighbours(pools, body)
    for pool, orders in zip(pools, near, strict=True):
        pairs, where = [], []
        for n, (question, order) in enumerate(zip(pool.questions, orders, strict=True)):
            for i in order[:CANDIDATES]:
                pairs.append((question.text, pool.edits[i], 0))
                where.append((n, int(i)))
        chance = 1 / (1 + np.exp(-score(reader, pairs, encode, body)))
        offered = np.mean([bool(q.right & set(o[:CANDIDATES])) for q, o in zip(pool.questions, orders, strict=True) if q.right])
        print(f"== {pool.name}: {len(pool.edits)} edits; right one among the {CANDIDATES} nearest {100 * offered:.1f} %")
        for threshold in map(float, options.thresholds.split(",")):
            taken: dict[int, set[int]] = {}
            for (n, i), p in zip(where, chance, strict=True):
                if p >= threshold:
                    taken.setdefault(n, set()).add(i)
            tally: dict[str, list[int]] = {}
            for n, question in enumerate(pool.questions):
                hit = taken.get(n, set())
                good = bool(hit & question.right) if question.right else bool(hit)
                name = "found" if question.right else ("unrelated" if question.source == "-unrelated" else "false")
                for key in (name, question.source):
                    counts = tally.setdefault(key, [0, 0])
                    counts[0] += good
                    counts[1] += 1
            shown = "  ".join(f"{k} {100 * a / b:.0f} ({b})" for k, (a, b) in sorted(tally.items(), key=lambda x: (len(x[0]) < 4, x[0])))
            print(f"  {threshold:.2f}: {shown}")
        left = options.misses
        best: dict[int, tuple[float, int]] = {}
        for (n, i), p in zip(where, chance, strict=True):
            best[n] = max(best.get(n, (0.0, 0)), (float(p), i))
        for n, question in enumerate(pool.questions):
            own = max([float(p) for (m, i), p in zip(where, chance, strict=True) if m == n and i in question.right] or [0.0])
            wrong = own < 0.5 if question.right else best[n][0] >= 0.5
            if wrong and left > 0:
                left -= 1
                target = pool.edits[next(iter(question.right))] if question.right else pool.edits[best[n][1]]
                print(f"    {question.source} {own if question.right else best[n][0]:.2f} | {question.text[-110:]} | {target[:90]}")
        assert math.isfinite(float(chance.sum()))


if __name__ == "__main__":
    main()
