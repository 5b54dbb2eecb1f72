"""Teacher-forced scores as ROME and MEMIT have them (Meng et al., 2022, §3.4; 2023, §5.2): which of two targets is likelier.

A probe is `{kind, prompt, target_new, target_true?}`. `efficacy` and `paraphrase` succeed where P(new) > P(true); `neighbourhood`
where P(true) > P(new). P is exp of the mean log-probability a token, so that a longer target is not less likely for its length
alone. `match` is EasyEdit's rewrite accuracy: the share of the wanted target's tokens that are the likeliest at their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from palimpsest_editor.faults import Fault
from palimpsest_editor.protocol import Reporter
from palimpsest_editor.texts.requests import tokens
from palimpsest_editor.weights.forward import pad, run_layers
from palimpsest_editor.weights.loading import LoadedModel

KINDS = ("efficacy", "paraphrase", "neighbourhood")


@torch.no_grad()
def target_scores(
    loaded: LoadedModel, pairs: Sequence[tuple[str, str]], reporter: Reporter | None = None, stage: str = "score", rows: int = 64
) -> Tensor:
    """(prompt, target) -> mean log-probability a target token and the share of them that is the argmax; N × 2, float32."""
    fed, wanted = _rows(loaded, pairs)
    longest_last = sorted(fed, key=len)
    out = torch.zeros(len(pairs), 2)
    for done in range(0, len(longest_last), rows):
        if reporter is not None:
            reporter.progress(stage, done, len(longest_last))
        part = longest_last[done : done + rows]
        states = run_layers(loaded, pad(part, loaded.tokenizer.pad_token_id, loaded.device), len(loaded.layers))
        spots = [(row, place, pair, token) for row, ids in enumerate(part) for pair in fed[ids] for place, token in wanted[pair]]
        row, place, pair, token = (torch.tensor(x) for x in zip(*spots, strict=True))
        logits = loaded.model.lm_head(loaded.model.model.norm(states[row, place])).float().cpu()
        share = torch.tensor([1 / len(wanted[p]) for p in pair.tolist()])
        logp = logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(-1)
        out[:, 0].index_add_(0, pair, logp * share)
        out[:, 1].index_add_(0, pair, (logits.argmax(-1) == token).float() * share)
    if reporter is not None:
        reporter.progress(stage, len(longest_last), len(longest_last))
    return out


def _rows(
    loaded: LoadedModel, pairs: Sequence[tuple[str, str]]
) -> tuple[dict[tuple[int, ...], list[int]], list[list[tuple[int, int]]]]:
    """The distinct token rows to feed with the pairs that read them, and for each pair its (place, target token)s.

    A target's last token is read, never fed: two targets of one token each share the row of their prompt.
    """
    fed: dict[tuple[int, ...], list[int]] = {}
    wanted = []
    for index, (prompt, target) in enumerate(pairs):
        text = prompt.rstrip()
        ids, spans = tokens(loaded.tokenizer, [(text, True), (f" {target.strip()}", False)])
        start = max(1, next(i for i, (_, end) in enumerate(spans) if end > len(text)))
        fed.setdefault(tuple(ids[:-1]), []).append(index)
        wanted.append([(t - 1, ids[t]) for t in range(start, len(ids))])
    return fed, wanted


def score_probes(
    loaded: LoadedModel, probes: Sequence[dict[str, Any]], reporter: Reporter | None = None, stage: str = "score"
) -> dict[str, Any]:
    """Share of successes (per cent) by kind, with counts and `match`; and the log-probabilities of each probe, in their order."""
    for index, probe in enumerate(probes):
        if (
            probe.get("kind") not in KINDS
            or not isinstance(probe.get("prompt"), str)
            or not isinstance(probe.get("target_new"), str)
        ):
            raise Fault("malformed_job", f"probe {index} lacks kind, prompt or target_new", f"kind is one of {', '.join(KINDS)}")
    with_true = [i for i, p in enumerate(probes) if p.get("target_true")]
    pairs = [(p["prompt"], p["target_new"]) for p in probes] + [
        (probes[i]["prompt"], probes[i]["target_true"]) for i in with_true
    ]
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
    result["log_probabilities"] = [
        [round(float(n), 4), None if t != t else round(float(t), 4)] for n, t in zip(new[:, 0], true[:, 0], strict=True)
    ]
    return result
