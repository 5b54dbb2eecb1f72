"""Finished pieces of a job, kept so that a killed job goes on: written beside, renamed into place, checksummed when read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(*parts: Any) -> str:
    """Sixteen hex digits that change when any of the parts (JSON values) does."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """`write` fills a file beside `path`; it is flushed to the disk, then takes the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    write(beside)
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(beside, path)


class Pieces:
    """A folder of tensors by name. A piece counts only with its checksum and under the same key (what it was computed from)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, name: str, key: str) -> dict[str, torch.Tensor] | None:
        path, about = self.folder / f"{name}.safetensors", self.folder / f"{name}.json"
        try:
            said = json.loads(about.read_text())
        except (OSError, ValueError):
            return None
        if said.get("key") != key or not path.exists() or sha256_of(path) != said.get("sha256"):
            return None
        return load_file(path)

    def save(self, name: str, key: str, tensors: dict[str, torch.Tensor]) -> None:
        path = self.folder / f"{name}.safetensors"
        kept = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        write_atomically(path, lambda beside: save_file(kept, beside))
        said = json.dumps({"key": key, "sha256": sha256_of(path)})
        write_atomically(self.folder / f"{name}.json", lambda beside: beside.write_text(said))

    def piece(self, name: str, key: str, compute: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """The stored piece where it is sound, else computed and stored."""
        found = self.load(name, key)
        if found is None:
            found = compute()
            self.save(name, key, found)
        return found
