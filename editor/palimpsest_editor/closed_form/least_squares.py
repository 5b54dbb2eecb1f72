"""The closed-form update of the MEMIT family, in its factors."""

from __future__ import annotations

import torch
from torch import Tensor

from palimpsest_editor.faults import Fault


def factor(
    keys: Tensor,
    moment: Tensor,
    weight: float,
    ridge: float = 1e-6,
    dtype: torch.dtype = torch.float64,
    held: Tensor | None = None,
) -> Tensor:
    """A = Kᵀ(λC + HHᵀ + KKᵀ)⁻¹, so that ΔW = R·A (Meng et al., 2023, eq. 14). Symmetric, hence solved as (( … )⁻¹K)ᵀ by
    Cholesky. `held`: H transposed, M × inputs, keys whose output is to stay though C's text has none like them; not in the
    paper.

    `keys`: K transposed, N × inputs. `moment`: C = E[kkᵀ], inputs × inputs. `weight`: λ. `ridge` · mean(diag C) is added to C's
    diagonal: an estimate from fewer tokens than inputs is singular. Returns N × inputs, float32. Raises Fault("nan").
    """
    k = keys.to(dtype)
    system = moment.to(dtype) * weight
    mean = float(system.diagonal().mean())
    system.diagonal().add_(ridge * mean)
    for part in (k, held):
        if part is not None:
            system.addmm_(part.to(dtype).T, part.to(dtype))
    lower, fault = torch.linalg.cholesky_ex(system)
    if int(fault) != 0 or not torch.isfinite(lower.diagonal()).all():
        raise Fault("nan", "λC + KKᵀ is not positive definite", "Raise hparams.ridge, or compute the statistics from more text")
    return torch.cholesky_solve(k.T, lower).T.float().contiguous()
