"""Teacher-forced scores as ROME and MEMIT have them (Meng et al., 2022, §3.4; 2023, §5.2): which of two targets is likelier.

A probe is `{kind, prompt, target_new, target_true?}`. `efficacy` and `paraphrase` succeed where P(new) > P(true); `neighbourhood`
where P(true) > P(new). P is exp of the mean log-probability a token, so that a longer target is not less likely for its length alone.
`match` is EasyEdit's rewrite accuracy: the share of the wanted target's tokens that are the likeliest at their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from palimpsest_editor.faults import Fault
from palimpsest_editor.forward import pad, run_layers
from palimpsest_editor.loading import LoadedModel
from palimpsest_editor.protocol import Reporter

KINDS = ("efficacy", "paraphrase", "neighbourhood")


@torch.no_grad()
def target_scores(loaded: LoadedModel, pairs: Sequence[tuple[str, str]], reporter: Reporter | None = None, stage: str = "score", rows: int = 64) -> Tensor:
    """(prompt, target) -> mean log-probability a target token and the share of them that is the argmax; N × 2, float32."""
    tokenizer = loaded.tokenizer
    coded = []
    for prompt, target in pairs:
        text = prompt.rstrip()
        whole = tokenizer(f"{text} {target.strip()}", return_offsets_mapping=True)
        start = next(i for i, (_, b) in enumerate(whole["offset_mapping"]) if b > len(text))
        coded.append((whole["input_ids"], max(start, 1)))
    order = sorted(range(len(coded)), key=lambda i: len(coded[i][0]))
    out = torch.zeros(len(coded), 2)
    for done in range(0, len(order), rows):
        if reporter is not None:
            reporter.progress(stage, done, len(order))
        index = order[done : done + rows]
        ids = pad([coded[i][0] for i in index], tokenizer.pad_token_id, loaded.device)
        states = run_layers(loaded, ids, len(loaded.layers))
        places = [(row, t) for row, i in enumerate(index) for t in range(coded[i][1], len(coded[i][0]))]
        row, at = (torch.tensor(x, device=ids.device) for x in zip(*places, strict=True))
        logits = loaded.model.lm_head(loaded.model.model.norm(states[row, at - 1])).float()
        wanted = ids[row, at]
        logp = logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(-1)
        best = (logits.argmax(-1) == wanted).float()
        counts = torch.zeros(len(index)).index_add_(0, row.cpu(), torch.ones(len(places)))
        for column, values in enumerate((logp, best)):
            out[torch.tensor(index), column] = torch.zeros(len(index)).index_add_(0, row.cpu(), values.cpu()) / counts
    if reporter is not None:
        reporter.progress(stage, len(order), len(order))
    return out


def score_probes(loaded: LoadedModel, probes: Sequence[dict[str, Any]], reporter: Reporter | None = None, stage: str = "score") -> dict[str, Any]:
    """Share of successes (per cent) by kind, with counts and `match`; and the log-probabilities of each probe, in their order."""
    for index, probe in enumerate(probes):
        if probe.get("kind") not in KINDS or not isinstance(probe.get("prompt"), str) or not isinstance(probe.get("target_new"), str):
            raise Fault("malformed_job", f"probe {index} lacks kind, prompt or target_new", f"kind is one of {', '.join(KINDS)}")
    with_true = [i for i, p in enumerate(probes) if p.get("target_true")]
    pairs = [(p["prompt"], p["target_new"]) for p in probes] + [(probes[i]["prompt"], probes[i]["target_true"]) for i in with_true]
    scores = target_scores(loaded, pairs, reporter, stage)
    new, true = scores[: len(probes)], torch.full((len(probes), 2), float("nan"))
    if with_true:
        true[torch.tensor(with_true)] = scores[len(probes) :]
    result: dict[str, Any] = {}
    for kind in KINDS:
        at = [i for i in with_true if probes[i]["kind"] == kind]
        if not at:
            continue
        picked = torch.tensor(at)
        wanted, other = (true, new) if kind == "neighbourhood" else (new, true)
        success = (wanted[picked, 0] > other[picked, 0]).float().mean()
        match = wanted[picked, 1].mean()
        result[kind] = {"success": round(100 * float(success), 2), "match": round(100 * float(match), 2), "probes": len(at)}
    result["log_probabilities"] = [[round(float(n), 4), None if t != t else round(float(t), 4)] for n, t in zip(new[:, 0], true[:, 0], strict=True)]
    return result
