"""Adapters on disk: GGUF LoRA (what llama.cpp loads) and a PEFT folder, written from low-rank updates and read back.

llama.cpp applies `scale · alpha / rank · B·A`, rank being each tensor's own; PEFT `lora_alpha / r`. Both are written with
alpha = the largest rank and B scaled where a tensor's rank is lower, so either applies exactly B·A.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from palimpsest_editor.faults import Fault
from palimpsest_editor.weights.checkpoint import sha256_of, write_atomically
from palimpsest_editor.weights.lowrank import LowRankUpdate

GGUF_NAMES = {
    "mlp.down_proj": "ffn_down",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
}
MODULES = {short: module for module, short in GGUF_NAMES.items()}


def tensor_name(update: LowRankUpdate) -> str:
    """Of its matrix in a GGUF."""
    return f"blk.{update.layer}.{GGUF_NAMES[update.module]}.weight"


def _rotary_rows(b: np.ndarray, heads: int, back: bool) -> np.ndarray:
    """GGUF interleaves the two rotary halves of LLaMA's query and key rows (not of Qwen2's); `back` undoes it."""
    out = b.shape[0]
    split = (heads, out // heads // 2, 2) if back else (heads, 2, out // heads // 2)
    return b.reshape(*split, -1).swapaxes(1, 2).reshape(b.shape)


def _heads(config: Any, module: str) -> int | None:
    """Heads by which GGUF reorders the rows of this module, or None where it does not."""
    if getattr(config, "model_type", None) not in ("llama", "mistral"):
        return None
    if module == "self_attn.q_proj":
        return int(config.num_attention_heads)
    return int(config.num_key_value_heads) if module == "self_attn.k_proj" else None


def write_gguf(
    path: Path, updates: Sequence[LowRankUpdate], architecture: str, config: Any, about: dict[str, str], half: bool = False
) -> None:
    """A GGUF LoRA file. `about` goes into string fields `palimpsest.*`. float32, or float16 with `half`."""
    alpha = max(u.rank for u in updates)
    kind = np.float16 if half else np.float32

    def write(beside: Path) -> None:
        writer = gguf.GGUFWriter(beside, architecture)
        writer.add_string("general.type", "adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", float(alpha))
        for name, value in sorted(about.items()):
            writer.add_string(f"palimpsest.{name}", value)
        for u in sorted(updates, key=lambda u: u.key):
            name = tensor_name(u)
            b = (u.b * (u.rank / alpha)).numpy()
            heads = _heads(config, u.module)
            if heads is not None:
                b = _rotary_rows(b, heads, back=False)
            writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(u.a.numpy(), dtype=kind))
            writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(b, dtype=kind))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    write_atomically(path, write)


def _read_gguf(path: Path, config: Any) -> tuple[list[LowRankUpdate], dict[str, str]]:
    reader = gguf.GGUFReader(path)

    def text(name: str) -> str:
        return str(reader.get_field(name).contents())

    if reader.get_field("adapter.type") is None or text("adapter.type") != "lora":
        raise Fault("unsupported", f"{path.name} is no LoRA adapter", "Give a GGUF whose adapter.type is lora")
    alpha = float(reader.get_field("adapter.lora.alpha").contents())
    tensors = {t.name: t.data.reshape(tuple(reversed([int(n) for n in t.shape]))).astype(np.float32) for t in reader.tensors}
    updates = []
    for name, a in tensors.items():
        if not name.endswith(".weight.lora_a"):
            continue
        _, layer, short = name.removesuffix(".weight.lora_a").split(".")
        b = tensors[name[: -len("lora_a")] + "lora_b"] * (alpha / a.shape[0] if alpha else 1.0)
        module = MODULES[short]
        heads = _heads(config, module)
        if heads is not None:
            b = _rotary_rows(b, heads, back=True)
        updates.append(LowRankUpdate(int(layer), module, torch.from_numpy(a.copy()), torch.from_numpy(b.copy())))
    prefix = "palimpsest."
    about = {f.removeprefix(prefix): text(f) for f in reader.fields if f.startswith(prefix)}
    return updates, about


def write_peft(folder: Path, updates: Sequence[LowRankUpdate], base_name: str) -> None:
    """A PEFT folder (adapter_config.json, adapter_model.safetensors), swapped in whole."""
    rank = max(u.rank for u in updates)
    tensors: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    for u in updates:
        name = f"model.layers.{u.layer}.{u.module}"
        tensors[f"base_model.model.{name}.lora_A.weight"] = u.a.contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = u.b.contiguous()
        ranks[name] = u.rank
    uneven = {name: r for name, r in ranks.items() if r != rank}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "bias": "none",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "fan_in_fan_out": False,
        "target_modules": sorted(ranks),
        "rank_pattern": uneven,
        "alpha_pattern": uneven,
    }
    beside = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    save_file(tensors, beside / "adapter_model.safetensors", metadata={"format": "pt"})
    (beside / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def _read_peft(folder: Path) -> list[LowRankUpdate]:
    config = json.loads((folder / "adapter_config.json").read_text())
    if config.get("peft_type") != "LORA" or config.get("use_dora") or config.get("bias", "none") != "none":
        raise Fault("unsupported", f"{folder} is {config.get('peft_type')}, with bias or DoRA", "Give a plain LoRA without bias")
    tensors = load_file(folder / "adapter_model.safetensors")
    updates = []
    for name, a in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        path = name.removesuffix(".lora_A.weight").split("model.layers.")[-1]
        layer, _, module = path.partition(".")
        if module not in GGUF_NAMES:
            raise Fault("unsupported", f"{module} is no matrix of a decoder layer", f"Known are {', '.join(GGUF_NAMES)}")
        full = f"model.layers.{path}"
        rank = a.shape[0]
        alpha = next((v for k, v in (config.get("alpha_pattern") or {}).items() if full.endswith(k)), config["lora_alpha"])
        scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
        b = tensors[name.replace("lora_A", "lora_B")].float() * scale
        updates.append(LowRankUpdate(int(layer), module, a.float(), b))
    return updates


def read_adapter(path: Path, config: Any) -> tuple[list[LowRankUpdate], dict[str, str]]:
    """The updates of a GGUF LoRA file or a PEFT folder, and its `palimpsest.*` fields. `config` is the base model's."""
    if not path.exists():
        raise Fault("malformed_job", f"{path} does not exist", "Give an adapter's file or folder")
    return (_read_peft(path), {}) if path.is_dir() else _read_gguf(path, config)


def export(
    out_dir: Path,
    name: str,
    updates: Sequence[LowRankUpdate],
    architecture: str,
    config: Any,
    base_name: str,
    about: dict[str, str],
    half: bool,
) -> dict[str, Any]:
    """Writes `NAME.gguf` and `NAME-peft/`; the fields of a result event that describe them."""
    file, folder = out_dir / f"{name}.gguf", out_dir / f"{name}-peft"
    out_dir.mkdir(parents=True, exist_ok=True)
    write_gguf(file, updates, architecture, config, about, half)
    write_peft(folder, updates, base_name)
    return {
        "gguf": str(file),
        "peft": str(folder),
        "sha256": sha256_of(file),
        "bytes": file.stat().st_size,
        "rank": max(u.rank for u in updates),
        "tensors": [tensor_name(u) for u in updates],
    }
