"""The network: BERT's encoder as llama.cpp computes it (post-norm, exact GELU), and one logit from the first token."""

import contextlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from palimpsest_editor.weights.loading import cpu_has_bf16

from .body import Body

PARTS = ("q", "k", "v", "ao", "fi", "fo")


def products(device: torch.device) -> torch.dtype:
    """Of matrix products: bfloat16 where it is the faster."""
    return torch.bfloat16 if device.type != "cpu" or cpu_has_bf16() else torch.float32


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`bias`: 0 for a token that is seen, -inf for padding. The plain products: going back through PyTorch's fused ones takes four times as long on a CPU in bfloat16."""
    if q.is_cuda or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    weights = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)) + bias
    return torch.matmul(weights.softmax(-1).to(v.dtype), v)


class Dropout(nn.Module):
    """As nn.Dropout; on a CPU a random byte decides for each number, ten times faster. `rate` is rounded to a 256th there."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate
        #: seeded by torch's own
        self.random = np.random.Generator(np.random.SFC64(int(torch.randint(2**31, (1,)))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0 or x.is_cuda:
            return F.dropout(x, self.rate, self.training)
        dropped = round(self.rate * 256)
        kept = torch.frombuffer(bytearray(self.random.bytes(x.numel())), dtype=torch.uint8).view(x.shape) >= dropped
        return x * (kept.to(x.dtype) * (256 / (256 - dropped)))


class Layer(nn.Module):
    def __init__(self, width: int, inner: int, heads: int, epsilon: float, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, Dropout(dropout)
        self.q, self.k, self.v, self.ao = (nn.Linear(width, width) for _ in range(4))
        self.fi, self.fo = nn.Linear(width, inner), nn.Linear(inner, width)
        self.aln, self.oln = nn.LayerNorm(width, epsilon), nn.LayerNorm(width, epsilon)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape

        def split(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

        seen = attention(split(self.q(x)), split(self.k(x)), split(self.v(x)), bias)
        seen = self.ao(seen.transpose(1, 2).reshape(batch, length, width))
        x = self.aln(x + self.dropout(seen))
        return self.oln(x + self.dropout(self.fo(F.gelu(self.fi(x)))))


class Reader(nn.Module):
    """`kept`: which of the body's layers, in order. The token embeddings are the body's and are not trained."""

    def __init__(self, body: Body, kept: list[int], dropout: float = 0.1):
        super().__init__()
        self.kept, self.dropout, self.frozen = kept, Dropout(dropout), 0
        self.register_buffer("words", torch.from_numpy(body.tensors["emb.word"]).bfloat16(), persistent=False)
        self.positions = nn.Parameter(torch.from_numpy(body.tensors["emb.pos"].reshape(-1, body.width)), requires_grad=False)
        self.token_type = nn.Parameter(torch.from_numpy(body.tensors["emb.type"].reshape(-1, body.width)[0]), requires_grad=False)
        self.norm = nn.LayerNorm(body.width, body.epsilon)
        self.layers = nn.ModuleList(Layer(body.width, body.inner, body.heads, body.epsilon, dropout) for _ in kept)
        self.head = nn.Linear(body.width, 1)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        load = {"norm.weight": body.tensors["emb.ln.w"], "norm.bias": body.tensors["emb.ln.b"]}
        for own, theirs in enumerate(kept):
            for part in PARTS:
                for kind in ("w", "b"):
                    name = f"layers.{own}.{part}.{'weight' if kind == 'w' else 'bias'}"
                    load[name] = body.tensors[f"l{theirs}.{part}.{kind}"]
            for part in ("aln", "oln"):
                for kind in ("w", "b"):
                    name = f"layers.{own}.{part}.{'weight' if kind == 'w' else 'bias'}"
                    load[name] = body.tensors[f"l{theirs}.{part}.{kind}"]
        self.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in load.items()}, strict=False)

    def freeze(self, layers: int) -> None:
        """The first so many layers, and what comes before them, are taught no more."""
        self.frozen = layers
        for part in [self.norm, *self.layers[:layers]] if layers > 0 else []:
            part.requires_grad_(False)

    def hidden(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """`ids` (batch, length), padded at the end; the last hidden states (batch, length, width)."""
        length = ids.shape[1]
        x = self.words[ids].float() + self.positions[:length] + self.token_type
        x = self.dropout(self.norm(x))
        seen = torch.arange(length, device=ids.device)[None] < lengths[:, None]
        kind = products(ids.device)
        bias = torch.zeros(seen.shape, dtype=kind, device=ids.device).masked_fill(~seen, float("-inf"))[:, None, None, :]
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=kind == torch.bfloat16):
            with torch.set_grad_enabled(False) if self.frozen > 0 else contextlib.nullcontext():
                for layer in self.layers[: self.frozen]:
                    x = layer(x, bias)
            for layer in self.layers[self.frozen :]:
                x = layer(x, bias)
        return x

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """One logit a row."""
        return self.head(self.hidden(ids, lengths)[:, 0].float()).squeeze(-1)
