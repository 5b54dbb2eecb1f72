"""PMET: Precise Model Editing in a Transformer (Li, Li, Song, Yang, Ma, Yu; AAAI 2024, arXiv:2308.08742).

Optimises δ at the outputs of attention and feed-forward of the last edited layer together, so that attention may carry what is
not knowledge of the subject; only the feed-forward's is written, and what is left of it is spread by √(L − i).

Departures: those of memit.py; besides, `attention_decay` times the decay holds attention's δ, which is thrown away; and
`residual` says where what is left is measured. Its code's easing (`ease`, targets.py) is done for an EasyEdit file alone. The target
goes on after a space; EasyEdit's PMET adds one to GPT models alone, so that a byte-level tokenizer reads "inOslo".
"""

from __future__ import annotations

from collections.abc import Sequence

from palimpsest_editor.closed_form.hparams import hparams
from palimpsest_editor.closed_form.memit import chunked_targets, key_contexts, least_squares, spread
from palimpsest_editor.run import Run
from palimpsest_editor.texts.contexts import contexts
from palimpsest_editor.texts.requests import EditRequest
from palimpsest_editor.weights.lowrank import LowRankUpdate


def pmet(run: Run, edits: Sequence[EditRequest], number: int) -> list[LowRankUpdate]:
    """One batch; every subject occurs once in it (requests.batches)."""
    hp = hparams(run.loaded, "pmet", run.job.hparams)
    texts = contexts(run.loaded, hp.contexts, hp.context_tokens, run.job.seed, hp.chat)
    attention = ("self_attn.o_proj", hp.weight_decay * hp.attention_decay)
    places = {"mlp": ("mlp", hp.weight_decay), "self_attn.o_proj": attention}
    found = chunked_targets(run, edits, texts, hp, places, f"targets-{number}")
    return spread(run, edits, key_contexts(run, hp, texts), hp, found["mlp"], f"batch-{number}", least_squares(run, hp))
