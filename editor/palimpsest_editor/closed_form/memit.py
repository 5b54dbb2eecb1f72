"""MEMIT: Mass-Editing Memory in a Transformer (Meng, Sen Sharma, Andonian, Belinkov, Bau; ICLR 2023, arXiv:2210.07229).

Targets z = h + δ at the last edited layer (targets.py); then for each layer l in order, with keys K and what is left of the way
R = z − h measured anew, ΔW = (R / (L − i)) · Kᵀ(λC + KKᵀ)⁻¹.

Departures from the paper and its code:
1. The targets of a chunk of edits are optimised together, and an edit stops by its own loss (the code optimises one after
  another).
2. The update stays in its factors, B = R/(L − i) and A = Kᵀ(λC + KKᵀ)⁻¹, of rank at most the number of edits: it is an adapter.
   During the editing it runs beside the matrix, which is never written.
3. C comes from text of the user's or of the model's own (statistics.py), not from 100,000 Wikipedia articles; λ is set to suit.
4. Contexts are sampled from the model at temperature 1 from its 50 likeliest tokens; there are as many as `contexts` says.
5. Cholesky with a small ridge, in place of a general solve.
6. δ may be lengthened once it is found (`gain`), and a key be a mean over more contexts than δ was found with (`key_contexts`):
   what a short, slowly found δ lacks in paraphrases comes back so at less cost to neighbours than by a δ found in long strides
   (docs/LOG.md). A chat then has a key of its own beside it, with the same residual: K has two columns an edit, ΔW the same rank.
7. The prompts' earlier tokens are computed once (forward.py): exact, not an approximation.
8. A chat's own tokens are held: their keys H join the sum, λC + HHᵀ + KKᵀ (contexts.chat_keys; `hold_chat` false leaves them
   out).
9. ‖ΔW‖ of a layer may be bounded by a share of ‖W‖ (`norm_bound`); what that leaves of the way falls to the layers after it.
10. The KL of "{subject} is a" is KL(p₀ ‖ p_δ), the papers' and the code's is KL(p_δ ‖ p₀); the code measures it at the subject's
   last token, not behind the prompt, and stops by the whole loss. An EasyEdit file asks for the code's way in all three
   (targets.py). Beside EasyEdit's own code ΔW then has a cosine of 1.0 (docs/results/hand-off.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from palimpsest_editor.closed_form.hparams import Hparams, hparams
from palimpsest_editor.closed_form.least_squares import factor
from palimpsest_editor.closed_form.statistics import second_moments
from palimpsest_editor.closed_form.targets import optimise
from palimpsest_editor.run import Run
from palimpsest_editor.texts.contexts import chat_keys, chat_turn, contexts
from palimpsest_editor.texts.requests import EditRequest, Encoded, encode
from palimpsest_editor.weights.forward import keys_at_subjects
from palimpsest_editor.weights.lowrank import LowRankUpdate, applied

CHAT_KEY_CONTEXTS = 5
"""Texts before the prompt in a chat."""


def chunked_targets(
    run: Run, edits: Sequence[EditRequest], texts: Sequence[str], hp: Hparams, places: dict[str, tuple[str, float]], name: str
) -> dict[str, torch.Tensor]:
    """δ of all edits of a batch, a chunk of similar length at a time; each chunk is a piece that survives a kill."""
    tokenizer = run.loaded.tokenizer
    coded = [encode(tokenizer, "{}", e.prompt, e.subject, e.target_new) for e in edits]
    order = sorted(range(len(edits)), key=lambda i: len(coded[i].ids) - coded[i].subject_last)
    parts: list[dict[str, torch.Tensor]] = []
    for start in range(0, len(order), hp.chunk_edits):
        chunk = [edits[i] for i in order[start : start + hp.chunk_edits]]

        def compute(chunk: list[EditRequest] = chunk, start: int = start) -> dict[str, torch.Tensor]:
            return optimise(run.loaded, chunk, texts, hp, places, run.reporter, (start, len(order)))

        parts.append(run.pieces.piece(f"{name}-{start}", run.key, compute))
        run.reporter.progress("targets", min(start + hp.chunk_edits, len(order)), len(order))
    back = torch.argsort(torch.tensor(order))
    return {k: torch.cat([p[k] for p in parts])[back].to(run.loaded.device) for k in parts[0]}


Groups = Sequence[Sequence[str]]
"""Contexts over which a key is a mean, by group; the first of a group has no text before the prompt."""
Solve = Callable[[int, Tensor, Tensor | None], Tensor]
"""(layer, K transposed, keys of a chat's own tokens transposed) -> A, so that ΔW = R·A."""


def least_squares(run: Run, hp: Hparams) -> Solve:
    """MEMIT's and PMET's A."""
    moments = second_moments(run.job, run.loaded, run.reporter, hp.layers)
    kind = torch.float64 if hp.solve_dtype == "float64" else torch.float32

    def solve(layer: int, keys: Tensor, held: Tensor | None) -> Tensor:
        return factor(keys.to(kind), moments.moment(layer), hp.mom2_weight, hp.ridge, kind, held)

    return solve


def mean_keys(keys: Tensor, edits: int, bare_share: float = 0.0) -> Tensor:
    """Keys of edits × contexts rows, the bare prompt's first, as one mean row an edit; the bare one weighs `bare_share` where
    that is given."""
    rows = keys.view(edits, -1, keys.shape[1])
    if bare_share == 0 or rows.shape[1] == 1:
        return rows.mean(1)
    return bare_share * rows[:, 0] + (1 - bare_share) * rows[:, 1:].mean(1)


def bounded(a: Tensor, b: Tensor, most: float) -> Tensor:
    """`b` (outputs × rank), shortened where ‖b·a‖ (Frobenius) is above `most`."""
    norm = torch.einsum("ij,ij->", (b.T @ b).double(), (a @ a.T).double()).clamp(min=0).sqrt()
    return b * float((most / norm.clamp(min=1e-30)).clamp(max=1))


def spread(
    run: Run, edits: Sequence[EditRequest], groups: Groups, hp: Hparams, delta: torch.Tensor, name: str, solve: Solve
) -> list[LowRankUpdate]:
    """The updates of all layers. `delta`: N × hidden, how far what leaves the last layer (hp.residual "layer") or its
    feed-forward ("mlp") is to move, from where it is before this batch. Each group of contexts gives an edit a key of its own;
    all of an edit's keys are to bring about the same residual, so the rank stays N."""
    loaded = run.loaded
    coded = in_contexts(run, edits, groups)
    firsts = [one for rows, group in zip(coded, groups, strict=True) for one in rows[:: len(group)]]
    _, start = keys_at_subjects(loaded, firsts, hp.layers[-1:], hp.module)
    target = start[hp.residual] + hp.gain * delta.repeat(len(groups), 1)
    made: list[LowRankUpdate] = []
    for index, layer in enumerate(hp.layers):
        run.reporter.progress("layers", index, len(hp.layers), layer=layer)

        def compute(layer: int = layer, index: int = index) -> dict[str, torch.Tensor]:
            with applied(loaded, made):
                keys = keys_of_edits(run, coded, len(edits), [layer], hp)[layer]
                held = chat_keys(loaded, [layer], hp.module) if hp.hold_chat else {}
                _, now = keys_at_subjects(loaded, firsts, hp.layers[-1:], hp.module)
            left = len(hp.layers) - index
            way = (target - now[hp.residual]).view(len(groups), len(edits), -1).mean(0)
            a = solve(layer, keys, held.get(layer)).view(len(groups), len(edits), -1).sum(0)
            b = (way / (left if hp.spread == "linear" else left**0.5)).T.float().contiguous()
            if hp.norm_bound > 0:
                b = bounded(a, b, hp.norm_bound * float(loaded.module(layer, hp.module).weight.float().norm()))
            return {"a": a, "b": b}

        found = run.pieces.piece(f"{name}-layer-{layer}", run.key, compute)
        made.append(LowRankUpdate(layer, hp.module, found["a"], found["b"]))
    run.reporter.progress("layers", len(hp.layers), len(hp.layers))
    return made


def in_contexts(run: Run, edits: Sequence[EditRequest], groups: Groups) -> list[list[Encoded]]:
    """For each group, every edit in each of its contexts."""
    return [[encode(run.loaded.tokenizer, c, e.prompt, e.subject) for e in edits for c in group] for group in groups]


def keys_of_edits(
    run: Run, coded: Sequence[Sequence[Encoded]], edits: int, layers: Sequence[int], hp: Hparams
) -> dict[int, Tensor]:
    """K transposed by layer: a mean key an edit for each group, group after group."""
    found = [keys_at_subjects(run.loaded, rows, layers, hp.module)[0] for rows in coded]
    return {layer: torch.cat([mean_keys(keys[layer], edits, hp.key_bare_share) for keys in found]) for layer in layers}


def key_contexts(run: Run, hp: Hparams, texts: list[str]) -> Groups:
    """The contexts of the targets, or more (they cost no gradients); and those of a chat for themselves, since of a mean over all
    a chat is the least part."""
    if not hp.key_contexts:
        return [texts]
    plain = contexts(run.loaded, hp.key_contexts, hp.context_tokens, run.job.seed)
    chat = [turn.replace("{}", text) for turn in chat_turn(run.loaded) for text in plain[: 1 + CHAT_KEY_CONTEXTS]]
    return [plain, chat] if chat else [plain]


def memit(run: Run, edits: Sequence[EditRequest], number: int) -> list[LowRankUpdate]:
    """One batch; every subject occurs once in it (requests.batches)."""
    hp = hparams(run.loaded, "memit", run.job.hparams)
    texts = contexts(run.loaded, hp.contexts, hp.context_tokens, run.job.seed, hp.chat)
    found = chunked_targets(run, edits, texts, hp, {"mlp": ("layer", hp.weight_decay)}, f"targets-{number}")
    return spread(run, edits, key_contexts(run, hp, texts), hp, found["mlp"], f"batch-{number}", least_squares(run, hp))
