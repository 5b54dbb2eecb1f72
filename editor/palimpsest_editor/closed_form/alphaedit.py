"""AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models (Fang, Jiang, Wang, Ma, Jie, Wang, He, Chua; ICLR
2025, arXiv:2410.02355).

Targets and layers are MEMIT's. The update is projected onto the null space of what the layer is to keep: P = UUᵀ, U the
eigenvectors of C = E[k₀k₀ᵀ] whose eigenvalues are below `nullspace_threshold` (2e-2 in the paper). With the keys K of the batch
and those of former batches K_p,

    ΔW = R Kᵀ P (K_p K_pᵀ P + K Kᵀ P + l2 · I)⁻¹,

so that what C has seen keeps its output, and so do the edits before.

Departures from the paper and its code:
1. The update stays in its factors. With G = P[H K_p K], the rows of its A are those of (GᵀG + l2 · I)⁻¹Gᵀ that belong to K: the
   same matrix (push-through identity), by a system as large as the keys are many, not as large as the layer is wide.
2. C comes from less text (statistics.py). Directions of small eigenvalues are then partly directions that the text missed.
3. K_p are the keys of the edits before as the model has them now: of this job's earlier batches, and of `kept`, the edits of
   earlier adapters. An edit whose subject is in the batch is not kept, since it is to change.
4. A chat's own tokens H are kept too (`hold_chat` false leaves them out).
5. With `nullspace_share` that share of the eigenvectors is taken, whatever their eigenvalues. These differ a hundredfold from
   layer to layer: of the 0.5B's, 2e-2 leaves 4,005 of 4,864 in layer 1 and 182 in layer 2, where ΔW then was 2.5 ‖W‖.
6. The departures of memit.py on targets, contexts and `gain`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from palimpsest_editor.closed_form.hparams import Hparams, hparams
from palimpsest_editor.closed_form.memit import Groups, chunked_targets, in_contexts, key_contexts, keys_of_edits, spread
from palimpsest_editor.closed_form.statistics import Moments, null_space_name, second_moments
from palimpsest_editor.faults import Fault
from palimpsest_editor.run import Run
from palimpsest_editor.texts.contexts import contexts
from palimpsest_editor.texts.requests import EditRequest
from palimpsest_editor.weights.checkpoint import fingerprint
from palimpsest_editor.weights.lowrank import LowRankUpdate


def projected_factor(keys: Tensor, basis: Tensor, l2: float, kept: Tensor | None = None) -> Tensor:
    """A = Kᵀ P (K_p K_pᵀ P + K Kᵀ P + l2 · I)⁻¹, so that ΔW = R·A.

    `keys`: K transposed, N × inputs. `basis`: U transposed, D × inputs, orthonormal rows, P = UUᵀ. `kept`: K_p transposed, M ×
    inputs. Returns N × inputs, float32. Raises Fault("nan").
    """
    u = basis.double()
    within = (keys if kept is None else torch.cat([kept, keys])).double() @ u.T
    gram = within @ within.T
    gram.diagonal().add_(l2)
    lower, fault = torch.linalg.cholesky_ex(gram)
    if int(fault) != 0 or not torch.isfinite(lower.diagonal()).all():
        raise Fault("nan", "The keys' Gram matrix is not positive definite", "Raise hparams.l2")
    wanted = torch.eye(len(within), dtype=gram.dtype, device=gram.device)[:, -len(keys) :]
    return (torch.cholesky_solve(wanted, lower).T @ within @ u).float().contiguous()


def null_space(moment: Tensor, threshold: float, share: float = 0.0) -> Tensor:
    """Eigenvectors of C (inputs × inputs) as rows, D × inputs: the `share` of them with the smallest eigenvalues, or with 0 those
    below `threshold`. Raises Fault("malformed_job") for none."""
    values, vectors = torch.linalg.eigh(moment)
    many = int(share * len(values)) if share else int((values < threshold).sum())
    if many == 0:
        raise Fault(
            "malformed_job",
            f"No eigenvalue of C is below hparams.nullspace_threshold {threshold:g}; the smallest is {float(values[0]):.3g}",
            "Raise hparams.nullspace_threshold, or give hparams.nullspace_share, or use memit",
        )
    return vectors[:, :many].T.contiguous()


def _cached_null_space(moments: Moments, layer: int, hp: Hparams) -> Tensor:
    """Beside the statistics that it is made of: it costs (inputs)³, and every job on this model wants it."""
    name = null_space_name(hp)

    def compute() -> dict[str, Tensor]:
        return {"basis": null_space(moments.moment(layer), hp.nullspace_threshold, hp.nullspace_share)}

    return moments.pieces.piece(f"{name}-{layer}", fingerprint(moments.key, name), compute)["basis"]


def _former_keys(run: Run, edits: Sequence[EditRequest], groups: Groups, hp: Hparams) -> dict[int, Tensor]:
    """K_p transposed by layer; {} where no edit came before."""
    changed = {e.subject.casefold() for e in edits}
    former = [e for e in run.former if e.subject.casefold() not in changed]
    if not former:
        return {}
    return keys_of_edits(run, in_contexts(run, former, groups), len(former), hp.layers, hp)


def alphaedit(run: Run, edits: Sequence[EditRequest], number: int) -> list[LowRankUpdate]:
    """One batch; every subject occurs once in it (requests.batches)."""
    hp = hparams(run.loaded, "alphaedit", run.job.hparams)
    texts = contexts(run.loaded, hp.contexts, hp.context_tokens, run.job.seed, hp.chat)
    found = chunked_targets(run, edits, texts, hp, {"mlp": ("layer", hp.weight_decay)}, f"targets-{number}")
    moments = second_moments(run.job, run.loaded, run.reporter, hp.layers)
    of_keys = key_contexts(run, hp, texts)
    former = _former_keys(run, edits, of_keys, hp)

    def solve(layer: int, keys: Tensor, held: Tensor | None) -> Tensor:
        basis = _cached_null_space(moments, layer, hp).to(keys.device)
        kept = [k for k in (held, former.get(layer)) if k is not None]
        return projected_factor(keys, basis, hp.l2, torch.cat(kept) if kept else None)

    return spread(run, edits, of_keys, hp, found["mlp"], f"batch-{number}", solve)
