"""A change of one matrix as a product of two thin ones, ΔW = B·A: what every method here returns, and what an adapter holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from palimpsest_editor.faults import Fault
from palimpsest_editor.weights.loading import LoadedModel


@dataclass(frozen=True)
class LowRankUpdate:
    """ΔW = b·a of `module` in `layer`. a: rank × inputs, b: outputs × rank, both float32 on the CPU."""

    layer: int
    module: str
    a: Tensor
    b: Tensor

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def key(self) -> tuple[int, str]:
        return self.layer, self.module

    def dense(self) -> Tensor:
        return self.b @ self.a


def check_finite(updates: Sequence[LowRankUpdate]) -> None:
    for u in updates:
        if not (torch.isfinite(u.a).all() and torch.isfinite(u.b).all()):
            raise Fault(
                "nan",
                f"The update of layer {u.layer} is not finite",
                "Raise hparams.lambda, lower hparams.lr, or give dtype float32",
            )


def merge(sets: Sequence[Sequence[LowRankUpdate]], scales: Sequence[float] | None = None) -> list[LowRankUpdate]:
    """One set with the sum of all: ranks are concatenated, so nothing is lost. `scales` weigh the sets."""
    found: dict[tuple[int, str], list[tuple[Tensor, Tensor]]] = {}
    for index, updates in enumerate(sets):
        scale = 1.0 if scales is None else scales[index]
        for u in updates:
            found.setdefault(u.key, []).append((u.a, u.b * scale))
    return [
        LowRankUpdate(layer, module, torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts], dim=1))
        for (layer, module), parts in sorted(found.items())
    ]


def truncate(update: LowRankUpdate, most: int) -> tuple[LowRankUpdate, float]:
    """The best rank-`most` approximation (Eckart–Young, by QR of both factors and an SVD of a rank × rank matrix, float64), and
    the share of ‖ΔW‖²_F that it leaves out. An update of that rank or lower comes back as it is, with 0."""
    if update.rank <= most:
        return update, 0.0
    qb, rb = torch.linalg.qr(update.b.double())
    qa, ra = torch.linalg.qr(update.a.double().T)
    u, s, vh = torch.linalg.svd(rb @ ra.T)
    root = s[:most].sqrt()
    b = (qb @ u[:, :most]) * root
    a = (vh[:most] @ qa.T) * root[:, None]
    lost = float((s[most:] ** 2).sum() / (s**2).sum())
    return LowRankUpdate(update.layer, update.module, a.float(), b.float()), lost


def low_rank_of(layer: int, module: str, dense: Tensor, most: int, tolerance: float = 1e-6) -> tuple[LowRankUpdate, float]:
    """A dense ΔW (outputs × inputs) as a product, of the lowest rank that leaves out at most `tolerance` of ‖ΔW‖²_F, at most
    `most`."""
    u, s, vh = torch.linalg.svd(dense.double(), full_matrices=False)
    energy = s**2
    total = energy.sum()
    left = total - energy.cumsum(0)
    rank = min(most, int((left > tolerance * total).sum()) + 1)
    root = s[:rank].sqrt()
    update = LowRankUpdate(layer, module, (vh[:rank] * root[:, None]).float(), (u[:, :rank] * root).float())
    return update, float(left[rank - 1].clamp(min=0) / total)


@contextmanager
def applied(loaded: LoadedModel, updates: Sequence[LowRankUpdate]) -> Iterator[None]:
    """The model with the updates beside its matrices (as an adapter runs), the base untouched; gone when the block ends.

    The thin products run in float32, so a change is not lost in the rounding of a bf16 base.
    """

    def beside(u: LowRankUpdate) -> torch.utils.hooks.RemovableHandle:
        a, b = u.a.to(loaded.device).T, u.b.to(loaded.device).T

        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + (inputs[0].float() @ a @ b).to(output.dtype)

        return loaded.module(u.layer, u.module).register_forward_hook(hook)

    handles = [beside(u) for u in updates]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
