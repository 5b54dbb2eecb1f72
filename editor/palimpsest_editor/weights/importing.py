"""Takes back what other editors wrote: a PEFT folder or GGUF adapter, or a file of deltas by weight name.

Deltas (`.pt`, `.safetensors`) map `model.layers.N.MODULE.weight` to a dense ΔW (outputs × inputs), or, in `.pt`, to the pair
(adj_k: inputs × u, resid: outputs × u) that EasyEdit's MEMIT keeps, ΔW = resid · adj_kᵀ.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from palimpsest_editor.faults import Fault
from palimpsest_editor.protocol import Job
from palimpsest_editor.weights.adapter import GGUF_NAMES, read_adapter
from palimpsest_editor.weights.loading import LoadedModel
from palimpsest_editor.weights.lowrank import LowRankUpdate, low_rank_of

WEIGHT = re.compile(r"(?:model\.)?layers\.(\d+)\.(.+?)(?:\.weight)?$")


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    # weights_only: a file from elsewhere may hold tensors and plain containers, never code.
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, dict):
        raise Fault("unsupported", f"{path.name} holds no mapping of weight names", "Save the deltas as {weight name: delta}")
    return found


def read_deltas(job: Job, loaded: LoadedModel) -> list[LowRankUpdate]:
    """The updates of `job.source`. Raises Fault unsupported, wrong_base or malformed_job."""
    path = Path(job.source or "")
    if not path.exists():
        raise Fault("malformed_job", f"{path} does not exist", "Name the PEFT folder, the adapter or the file of deltas")
    if path.is_dir() or path.suffix == ".gguf":
        return read_adapter(path, loaded.model.config)[0]
    most = int(job.export.get("max_rank", 512))
    made = []
    for name, value in _read(path).items():
        match = WEIGHT.search(name)
        if match is None or match[2] not in GGUF_NAMES:
            raise Fault("unsupported", f"{name} is no matrix of a decoder layer", f"Known are {', '.join(GGUF_NAMES)}")
        layer, module = int(match[1]), match[2]
        if isinstance(value, Tensor):
            update, lost = low_rank_of(layer, module, value, most)
            if lost > 1e-3:
                advice = "Raise export.max_rank, or export the factors: an adapter of this rank would be another edit"
                raise Fault("unsupported", f"{name} is not of low rank: {100 * lost:.1f} % of it lies beyond rank {most}", advice)
        else:
            adj_k, resid = value
            update = LowRankUpdate(layer, module, adj_k.float().T.contiguous(), resid.float().contiguous())
        made.append(update)
    return made
