"""How long a job will take, said at its start: the model's speed is measured once, the rest is counting tokens."""

from __future__ import annotations

import time
from typing import Any

import torch

from palimpsest_editor.closed_form.hparams import Hparams
from palimpsest_editor.closed_form.memit import CHAT_KEY_CONTEXTS
from palimpsest_editor.closed_form.statistics import DEFAULT_TOKENS, cached, null_space_name
from palimpsest_editor.protocol import Job
from palimpsest_editor.weights.forward import run_layers
from palimpsest_editor.weights.loading import LoadedModel

PROMPT_TOKENS = 14
"""Tokens of a context with a prompt, about (CounterFact: 9, and 10 of the context in five of six)."""
AFTER_TOKENS = 8
"""Of these, from the subject's last token to the target's end, padding included."""
STEPS, STEPS_LR = 6, 0.5
"""Steps until an edit stops, about, at that rate; the first ones cost the most. At 0.1: some 16, hence a power of 0.6."""
NULL_SPACE_S = 40.0
"""Eigenvectors of a layer of 4,864 inputs, float32, 2 cores."""
BACKWARD = 2.5
"""A step with gradients, in forward passes."""


@torch.no_grad()
def tokens_a_second(loaded: LoadedModel) -> float:
    """Through all layers without the head, measured on 512 tokens after a first pass that warms up."""
    ids = torch.arange(512, device=loaded.device).view(32, 16) % loaded.model.config.vocab_size
    run_layers(loaded, ids[:4], len(loaded.layers))
    began = time.perf_counter()
    run_layers(loaded, ids, len(loaded.layers))
    return ids.numel() / max(time.perf_counter() - began, 1e-6)


def statistics_seconds(job: Job, loaded: LoadedModel, layers: int, lower: float, speed: float) -> float:
    """Second moments of some layers that are not cached: the text (where the model writes it), `lower` of a pass over it, and
    kᵀk."""
    wanted = int(job.statistics.get("tokens", DEFAULT_TOKENS))
    own = 0.0 if job.statistics.get("text") else 12 * wanted / speed
    return own + wanted * lower / speed + wanted * layers * (loaded.inner / 4864) ** 2 / 2000


def plan(job: Job, loaded: LoadedModel, hp: Hparams, statistics_cached: bool) -> dict[str, Any]:
    """Fields of the plan event for MEMIT and its kin: seconds by stage. A guess within a factor of two on a quiet machine."""
    speed = tokens_a_second(loaded)
    edits, rows, depth = len(job.edits), hp.contexts + 1, len(loaded.layers)
    steps = min(hp.steps, STEPS * (STEPS_LR / hp.lr) ** 0.6)
    upper, lower = 1 - hp.layers[-1] / depth, (hp.layers[-1] + 1) / depth
    # Contexts of a key, and the first of each group once more.
    keyed = hp.key_contexts + CHAT_KEY_CONTEXTS + 4 if hp.key_contexts else rows + 1
    stages = {
        "score": 2 * 2 * len(job.probes) * PROMPT_TOKENS * 1.3 / speed,
        "targets": edits * rows * (PROMPT_TOKENS + AFTER_TOKENS * steps * BACKWARD * upper) / speed,
        "layers": len(hp.layers) * edits * keyed * PROMPT_TOKENS * lower / speed
        + len(hp.layers) * (loaded.inner / 4864) ** 3,
    }
    if job.method == "alphaedit" and not cached(job, loaded, hp.layers, null_space_name(hp)):
        stages["null space"] = len(hp.layers) * NULL_SPACE_S * (loaded.inner / 4864) ** 3
    if not statistics_cached:
        stages["statistics"] = statistics_seconds(job, loaded, len(hp.layers), lower, speed)
    listed = [{"stage": name, "estimate_s": round(seconds, 1)} for name, seconds in stages.items()]
    return {"estimate_s": round(sum(stages.values()), 1), "tokens_per_second": round(speed), "stages": listed}
