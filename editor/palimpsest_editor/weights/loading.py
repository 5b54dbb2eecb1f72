"""Loads the model that is served: its GGUF file (dequantised by transformers) or a Hugging Face folder; frozen, checked first."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

from palimpsest_editor.faults import Fault
from palimpsest_editor.protocol import Base, Reporter, resident_bytes
from palimpsest_editor.weights.checkpoint import sha256_of

ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "mistral": "llama"}
"""model_type of transformers -> general.architecture of GGUF; their layers share one set of names."""


@dataclass
class LoadedModel:
    """A frozen causal language model whose decoder layers are `model.model.layers[i]` with `.self_attn` and `.mlp`."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    sha256: str | None
    architecture: str

    @property
    def layers(self) -> nn.ModuleList:
        return self.model.model.layers

    @property
    def hidden(self) -> int:
        return self.model.config.hidden_size

    @property
    def inner(self) -> int:
        return self.model.config.intermediate_size

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def module(self, layer: int, name: str) -> nn.Linear:
        """`name` within a layer, such as `mlp.down_proj`."""
        return self.layers[layer].get_submodule(name)


def cpu_has_bf16() -> bool:
    """Whether products of bf16 are the faster ones here (torch 2.15, 2 cores, 896 x 4,864 of the 0.5B, 16 to 1,024 rows).

    With AMX they are 6 to 9 times as fast as those of float32, with AMD's AVX-512 (Zen 4) 1.8 to 4.4 times. On an Intel Xeon that has
    AVX-512's bf16 and no AMX they are slower: float32 is 1.2 to 1.8 times as fast.
    """
    try:
        said = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in said or ("AuthenticAMD" in said and "avx512_bf16" in said)


def choose_dtype(wanted: str, device: str) -> torch.dtype:
    if wanted == "auto":
        return torch.bfloat16 if device.startswith("cuda") or cpu_has_bf16() else torch.float32
    found = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(wanted)
    if found is None:
        raise Fault("malformed_job", f"dtype {wanted!r}", "One of auto, float32, bfloat16")
    return found


def check_base(base: Base) -> str | None:
    """The base's checksum (None for a folder). Raises Fault("wrong_base") where it is absent or another file than was meant."""
    if not base.path.exists():
        raise Fault("wrong_base", f"{base.path} does not exist", "Give the path of the model that is being served")
    if base.path.is_dir():
        return base.sha256
    found = sha256_of(base.path)
    if base.sha256 is not None and found != base.sha256:
        raise Fault(
            "wrong_base",
            f"{base.path.name} has sha256 {found}, the job was made for {base.sha256}",
            "Edit the model that is being served",
        )
    return found


def memory_to_load_bytes(base: Base, dtype: torch.dtype, dequantised: bool) -> int:
    """About what loading takes at its height. Measured, 0.5B: 6.3 GB from GGUF (630 M parameters: 10 bytes each)."""
    if base.path.is_dir():
        held = sum(f.stat().st_size for f in base.path.glob("*.safetensors"))
        return held if dtype == torch.bfloat16 else held * 2
    from gguf import GGUFReader

    parameters = sum(int(t.n_elements) for t in GGUFReader(base.path).tensors)
    return parameters * (dtype.itemsize + 1 if dequantised else 10)


def free_bytes() -> int:
    """Memory that the system can still give, or 0 where it does not say."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0


def _check_memory(needed: int, limit: int | None) -> None:
    bound = min(x for x in (limit, free_bytes() or None, 1 << 62) if x is not None)
    if needed + resident_bytes() > bound:
        raise Fault(
            "memory",
            f"Loading takes about {needed / 1e9:.1f} GB, {bound / 1e9:.1f} GB may be used",
            "Raise limits.memory_bytes, free memory, give dtype bfloat16, or edit a smaller model",
        )


def _sound(folder: Path) -> bool:
    """Whether a dequantised copy is whole: every file of its manifest with its checksum."""
    try:
        manifest: dict[str, str] = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError):
        return False
    return all((folder / name).exists() and sha256_of(folder / name) == sha for name, sha in manifest.items())


def sweep(folder: Path) -> None:
    """Removes what killed workers left half written beside the dequantised models: `….PID.part`, where no process PID
    runs any more."""
    for part in folder.glob("*.part"):
        pid = part.name.split(".")[-2]
        if pid.isdigit() and int(pid) != os.getpid() and _runs(int(pid)):
            continue
        shutil.rmtree(part, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _dequantise(base: Base, dtype: torch.dtype, folder: Path) -> None:
    """Writes the GGUF's model and tokenizer as a folder, so that it loads in seconds the next time. Renamed when it is whole."""
    at: dict[str, Any] = {"pretrained_model_name_or_path": str(base.path.parent), "gguf_file": base.path.name}
    # Left to itself, transformers 5.23 keeps a GGUF's matrices packed and unpacks them at every product (3 times slower here).
    model = AutoModelForCausalLM.from_pretrained(**at, dtype=dtype, quantization_config=GgufConfig(dequantize=True))
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    beside = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(beside)
    AutoTokenizer.from_pretrained(**at).save_pretrained(beside)
    manifest = {f.name: sha256_of(f) for f in beside.iterdir()}
    (beside / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def load(base: Base, cache_dir: Path, reporter: Reporter, device: str = "cpu", dtype: str = "auto") -> LoadedModel:
    """Checks the base and the memory, then loads. Raises Fault wrong_base, memory or unsupported."""
    reporter.progress("load", 0, 1)
    sha = check_base(base)
    kind = choose_dtype(dtype, device)
    source = base.path
    if not base.path.is_dir():
        sweep(cache_dir / "dequantised")
        source = cache_dir / "dequantised" / f"{sha}-{str(kind).removeprefix('torch.')}"
    ready = base.path.is_dir() or _sound(source)
    _check_memory(memory_to_load_bytes(base, kind, ready), reporter.memory_bytes)
    if not ready:
        source.parent.mkdir(parents=True, exist_ok=True)
        _dequantise(base, kind, source)
    architecture = ARCHITECTURES.get(AutoConfig.from_pretrained(source).model_type)
    if architecture is None:
        raise Fault("unsupported", f"No layer names are known for {base.path.name}", f"Use one of {', '.join(ARCHITECTURES)}")
    model = AutoModelForCausalLM.from_pretrained(source, dtype=kind, attn_implementation="sdpa").to(device).eval()
    model.requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(source)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    reporter.progress("load", 1, 1)
    return LoadedModel(model, tokenizer, base.path.stem, sha, architecture)
