"""Teaches which edits are plausible enough to be read: a bilinear form of the embedder's vectors, one number for a message and a key.

s(q, k) = (scale q + W Uᵀ q) · k + bias, in log-odds, for unit vectors q of a message and k of a key of an edit; of an edit's keys the highest
counts. The reader decides; this only says what it is worth asking it. `least`: the score that 98 % of the right edits of held-out teams reach.
"""

import argparse
import base64
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .body import read_body
from .data import Pool, corpus_pools, corpus_teams, held_out, public_pool
from .nearest import embed
from .text import normalized
from .train import seeded

RANK = 64
PASSES = 30
DECAY = 3e-4
#: weights of right edits, of everyday messages, and of other teams' edits
RIGHT, EVERYDAY, OTHERS = 6.0, 1.5, 0.05
KEPT = 0.98
#: cosine from which the few nearest by it are read whatever was learned: other forms and languages than those taught
CLOSE = 0.82
ALIAS_KEYS = 2
DECOYS = 300


def keys_of(edit: dict) -> list[str]:
    """As `embedKeys` of src/memory/vectors/index-texts.ts makes them."""
    if edit.get("always"):
        return []
    if "text" in edit:
        return [normalized(edit["text"])]
    if "instruction" in edit:
        return [normalized(edit["when"]), normalized(f"{edit['when']}: {edit['instruction']}")]
    prompt, subject = edit["prompt"], edit.get("subject") or ""
    keys = [prompt, f"{prompt} {edit['target_new']}"]
    at = prompt.lower().find(subject.lower()) if subject else -1
    if at >= 0:
        keys += [prompt[:at] + alias + prompt[at + len(subject) :] for alias in (edit.get("aliases") or [])[:ALIAS_KEYS]]
    return list(dict.fromkeys(normalized(key) for key in keys))


class Team:
    """A pool with the vectors of its edits' keys and of its questions."""

    def __init__(self, pool: Pool, keys: list[list[str]]):
        self.pool, self.keys = pool, keys
        self.owner = torch.tensor([i for i, own in enumerate(keys) for _ in own], dtype=torch.long)
        self.k = self.q = torch.empty(0)

    def labels(self, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Needed or not, and the weight of each, for `rows` of the questions: a near miss may be read, so it teaches nothing."""
        right = torch.zeros(len(rows), len(self.keys))
        weight = torch.ones_like(right)
        for row, i in enumerate(rows):
            question = self.pool.questions[i]
            for j in question.unsure | question.wrong:
                weight[row, j] = 0
            for j in question.right:
                right[row, j], weight[row, j] = 1, RIGHT
        weight[:, [j for j, own in enumerate(self.keys) if not own]] = 0
        return right, weight


def best(scores: torch.Tensor, owner: torch.Tensor, edits: int) -> torch.Tensor:
    """Of the scores of keys, the highest of each edit."""
    out = torch.full((len(scores), edits), -1e4)
    return out.scatter_reduce(1, owner[None].expand(len(scores), -1), scores, "amax")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--body", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--public", type=Path, help="folder of the public development sets")
    parser.add_argument("--out", type=Path, required=True)
    options, rng = seeded(parser)
    began = time.monotonic()
    records = corpus_teams(options.corpus)
    teams = [Team(pool, [keys_of(record["edit"]) for record in records[pool.name]]) for pool in corpus_pools(records)]
    everyday: list[str] = []
    if options.public:
        pool = public_pool(options.public, rng, DECOYS)
        everyday = [q.text for q in pool.questions if q.source == "traffic"]
        # Multiple choice is left out: edits are asked about in that form, too.
        pool.questions = [q for q in pool.questions if not q.source.startswith("traffic")]
        teams.append(Team(pool, [[text] for text in pool.edits]))
    texts = {t for team in teams for own in team.keys for t in own} | {q.text for team in teams for q in team.pool.questions}
    order = sorted(texts | set(everyday))
    at = {text: i for i, text in enumerate(order)}
    vectors = torch.from_numpy(embed(read_body(options.body), order))
    print(f"[{time.monotonic() - began:.0f} s] {len(order)} texts of {len(teams)} teams", flush=True)
    for team in teams:
        team.k = vectors[[at[t] for own in team.keys for t in own]]
        team.q = vectors[[at[q.text] for q in team.pool.questions]]
    unrelated = vectors[[at[t] for t in everyday]] if everyday else torch.empty(0, vectors.shape[1])
    taught = [t for t in teams if not held_out(t.pool) and len(t.k) > 0]
    kept = [t for t in teams if held_out(t.pool) and len(t.k) > 0]
    width = vectors.shape[1]
    u, w = (torch.nn.Parameter(torch.randn(width, RANK) * 0.02) for _ in range(2))
    scale, bias = torch.nn.Parameter(torch.tensor(20.0)), torch.nn.Parameter(torch.tensor(-16.0))
    optimizer = torch.optim.Adam([{"params": [u, w], "lr": 3e-3}, {"params": [scale, bias], "lr": 0.05}])

    def score(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return scale * (q @ k.T) + (q @ u) @ (k @ w).T + bias

    for _ in range(PASSES):
        rng.shuffle(taught)
        for team in taught:
            rows = rng.sample(range(len(team.q)), min(len(team.q), 300))
            some = team.q[rows]
            right, weight = team.labels(rows)
            logits = best(score(some, team.k), team.owner, len(team.keys))
            loss = (F.binary_cross_entropy_with_logits(logits, right, reduction="none") * weight).sum() / len(rows)
            others = torch.cat([t.k[:40] for t in rng.sample(taught, min(6, len(taught)))])
            loss = loss + OTHERS * F.softplus(score(some, others)).sum() / len(rows)
            if len(unrelated) > 0:
                few = unrelated[torch.randint(len(unrelated), (64,))]
                loss = loss + EVERYDAY * F.softplus(score(few, team.k[:80])).sum() / len(few)
            loss = loss + DECAY * (u.square().sum() + w.square().sum())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        reached, ranks = [], []
        for team in kept:
            own = best(score(team.q, team.k), team.owner, len(team.keys))
            for i, question in enumerate(team.pool.questions):
                for j in question.right if question.source != "+own" else ():
                    if team.keys[j]:
                        reached.append(float(own[i, j]))
                        ranks.append(int((own[i] > own[i, j]).sum()))
        least = float(np.quantile(reached, 1 - KEPT)) if reached else 0.0
        first = {k: round(100 * float(np.mean(np.array(ranks) < k)), 1) for k in (1, 6, 8)} if ranks else {}
    pack = lambda matrix: base64.b64encode(matrix.detach().numpy().astype("<f4").tobytes()).decode()  # noqa: E731
    out = {"embedder": "multilingual-e5-small", "width": width, "rank": RANK, "scale": round(scale.item(), 4)}
    out |= {"bias": round(bias.item(), 4), "least": round(least, 3), "close": CLOSE, "query": pack(u.T.contiguous()), "key": pack(w.T.contiguous())}
    options.out.write_text(json.dumps(out, indent=1) + "\n")
    print(f"[{time.monotonic() - began:.0f} s] held-out teams, right edit among the first: {first}; least {least:.2f}")


if __name__ == "__main__":
    main()
