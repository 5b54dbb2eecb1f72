"""The frozen factor A of a keyed adapter: one row a subject, so that the adapter answers where a subject is named and nowhere
else.

A is MEMIT's own (Meng et al., 2023, arXiv:2210.07229, eq. 14): A = Kᵀ(λC + KKᵀ)⁻¹, K the subjects' keys (what enters the matrix
at the subject's last token, a mean over contexts, a chat turn among them), C the second moments of what enters it on ordinary
text. Each row is scaled to answer 1 to its own key. Of all rows that do, C⁻¹k's has the least mean square on the text, so what
an edit's column of B does elsewhere is small whatever training makes of it: the scope comes from the keys and is not left to a
penalty on a few held rows. AlphaEdit (Fang et al., 2024, arXiv:2410.02355) bounds it by C's null space instead. Departure from
both: B is not solved for but trained, in several layers at once, on whatever rows a method has (chat answers, a teacher's
distributions).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from palimpsest_editor.closed_form.least_squares import factor
from palimpsest_editor.closed_form.statistics import second_moments
from palimpsest_editor.run import Run
from palimpsest_editor.texts.contexts import chat_keys, contexts
from palimpsest_editor.texts.phrasing import ChatFormat
from palimpsest_editor.texts.requests import EditRequest, encode
from palimpsest_editor.trained.training_hparams import TrainingHparams
from palimpsest_editor.weights.checkpoint import fingerprint
from palimpsest_editor.weights.forward import keys_at_subjects


def scaled(a: Tensor, keys: Tensor) -> Tensor:
    """Rows of `a` (S × inputs) scaled so that each answers 1 to the key of the same row of `keys`."""
    return a / (a * keys).sum(1, keepdim=True)


def subject_keys(run: Run, edits: Sequence[EditRequest], hp: TrainingHparams, chat: ChatFormat) -> dict[int, Tensor]:
    """S × inputs by layer, S distinct subjects (case aside) in their order: two edits of one subject would have one key twice."""
    texts = contexts(run.loaded, hp.contexts, hp.context_tokens, run.job.seed)
    texts += [] if chat.template is None else [chat.template]
    subjects = list(dict.fromkeys(e.subject.casefold() for e in edits))
    owner = torch.tensor([subjects.index(e.subject.casefold()) for e in edits for _ in texts], device=run.loaded.device)
    coded = [encode(run.loaded.tokenizer, t, e.prompt, e.subject) for e in edits for t in texts]
    keys, _ = keys_at_subjects(run.loaded, coded, hp.layers, hp.modules[0])
    count = torch.bincount(owner, minlength=len(subjects))[:, None]
    return {n: torch.zeros(len(subjects), k.shape[1], device=k.device).index_add_(0, owner, k) / count for n, k in keys.items()}


def key_factors(run: Run, edits: Sequence[EditRequest], hp: TrainingHparams, chat: ChatFormat) -> dict[tuple[int, str], Tensor]:
    """A by matrix; {} where the job wants none (`keys` false). Each layer is a piece that survives a kill."""
    if not hp.keys:
        return {}
    moments = second_moments(run.job, run.loaded, run.reporter, hp.layers)
    keys: dict[int, Tensor] = {}
    held: dict[int, Tensor] = {}
    made = {}
    for number, layer in enumerate(hp.layers):
        run.reporter.progress("keys", number, len(hp.layers))

        def compute(layer: int = layer) -> dict[str, Tensor]:
            if not keys:
                keys.update(subject_keys(run, edits, hp, chat))
                held.update(chat_keys(run.loaded, hp.layers, hp.modules[0]))
            a = factor(keys[layer].double(), moments.moment(layer), hp.mom2_weight, held=held.get(layer))
            return {"a": scaled(a, keys[layer])}

        named = fingerprint(run.key, str(hp), moments.key)
        made[layer, hp.modules[0]] = run.pieces.piece(f"keys-{layer}", named, compute)["a"].to(run.loaded.device)
    run.reporter.progress("keys", len(hp.layers), len(hp.layers))
    return made
