"""The closed-form update of the MEMIT family, in its factors."""

from __future__ import annotations

import torch
from torch import Tensor

from palimpsest_editor.faults import Fault


def factor(keys: Tensor, moment: Tensor, weight: float, ridge: float = 1e-6, dtype: torch.dtype = torch.float64) -> Tensor:
    """A = Kᵀ(λC + KKᵀ)⁻¹, so that ΔW = R·A (Meng et al., 2023, eq. 14). Symmetric, hence solved as ((λC + KKᵀ)⁻¹K)ᵀ by Cholesky.

    `keys`: K transposed, N × inputs. `moment`: C = E[kkᵀ], inputs × inputs. `weight`: λ. `ridge` · mean(diag C) is added to C's
    diagonal: an estimate from fewer tokens than inputs is singular. Returns N × inputs, float32. Raises Fault("nan").
    """
    k = keys.to(dtype)
    system = moment.to(dtype) * weight
    mean = float(system.diagonal().mean())
    system.diagonal().add_(ridge * mean)
    system.addmm_(k.T, k)
    lower, fault = torch.linalg.cholesky_ex(system)
    if int(fault) != 0 or not torch.isfinite(lower.diagonal()).all():
        raise Fault("nan", "λC + KKᵀ is not positive definite", "Raise hparams.ridge, or compute the statistics from more text")
    return torch.cholesky_solve(k.T, lower).T.float().contiguous()
