"""Teacher-forced scores against whole passes, one at a time."""

from __future__ import annotations

import pytest
import torch

from palimpsest_editor.faults import Fault
from palimpsest_editor.score import score_probes, target_scores

PAIRS = [
    ("Orla Brandt was born in", "Oslo"),
    ("Orla Brandt was born in", "the north of Velmora"),
    ("Quell lies", "in"),
    ("Quell lies", "says"),
]


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_scores_are_mean_log_probabilities_of_the_target(open_model, kind):
    loaded = open_model(kind)
    got = target_scores(loaded, PAIRS, rows=3)
    for row, (prompt, target) in enumerate(PAIRS):
        start = len(loaded.tokenizer(prompt)["input_ids"])
        ids = torch.tensor(loaded.tokenizer(f"{prompt} {target}")["input_ids"])
        with torch.no_grad():
            logp = loaded.model(ids[None]).logits[0].log_softmax(-1)
        at = torch.arange(start - 1, len(ids) - 1)
        assert float(got[row, 0]) == pytest.approx(float(logp[at, ids[start:]].mean()), abs=1e-4)
        assert float(got[row, 1]) == pytest.approx(float((logp[at].argmax(-1) == ids[start:]).float().mean()), abs=1e-6)


def test_success_is_the_likelier_target_and_turns_round_for_a_neighbour(open_model):
    loaded = open_model("llama")
    probe = {"prompt": "Orla Brandt was born in", "target_new": "Oslo", "target_true": "Lund"}
    scores = score_probes(loaded, [{"kind": "efficacy", **probe}, {"kind": "neighbourhood", **probe}])
    assert scores["efficacy"]["success"] + scores["neighbourhood"]["success"] == 100
    new, true = scores["log_probabilities"][0]
    assert (new > true) == (scores["efficacy"]["success"] == 100)
    with pytest.raises(Fault, match="probe 0"):
        score_probes(loaded, [{"kind": "nonsense", **probe}])
