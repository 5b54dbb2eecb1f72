"""Writes the reader's own weights: layers as llama.cpp's Q8_0 blocks (32 int8 and an f16 scale), norms, biases and head as float32.

A safetensors file under llama.cpp's tensor names. A tensor of dtype U8 holds blocks; its shape is that of the matrix they stand for.
"""

import json
import struct
from pathlib import Path

import numpy as np

from .network import Reader

BLOCK = 32
NAMES = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "ao": "attn_output", "aln": "attn_output_norm"} | {
    "fi": "ffn_up",
    "fo": "ffn_down",
    "oln": "layer_output_norm",
}


def quantize(matrix: np.ndarray) -> bytes:
    blocks = matrix.astype(np.float32).reshape(-1, BLOCK)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / 127
    whole = np.divide(blocks, scale, out=np.zeros_like(blocks), where=scale > 0).round().astype(np.int8)
    return np.concatenate([scale.astype(np.float16).view(np.uint8), whole.view(np.uint8)], axis=1).tobytes()


def export(reader: Reader, path: Path, note: dict[str, str]) -> int:
    """Returns the file's size in bytes."""
    tensors: dict[str, tuple[str, list[int], bytes]] = {}

    def put(name: str, value, quantized: bool = False) -> None:
        array = value.detach().float().cpu().numpy()
        data = quantize(array) if quantized else array.astype("<f4").tobytes()
        tensors[name] = ("U8" if quantized else "F32", list(array.shape), data)

    put("token_embd_norm.weight", reader.norm.weight)
    put("token_embd_norm.bias", reader.norm.bias)
    for i, layer in enumerate(reader.layers):
        for part, name in NAMES.items():
            module = getattr(layer, part)
            put(f"blk.{i}.{name}.weight", module.weight, quantized=module.weight.dim() == 2)
            put(f"blk.{i}.{name}.bias", module.bias)
    put("cls.output.weight", reader.head.weight)
    put("cls.output.bias", reader.head.bias)
    header: dict = {"__metadata__": {"layers": str(len(reader.layers)), **note}}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            out.write(data)
    return path.stat().st_size
