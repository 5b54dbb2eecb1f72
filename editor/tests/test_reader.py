"""The reader's network where it departs from PyTorch's own parts for speed."""

import pytest
import torch
import torch.nn.functional as F

from palimpsest_reader.network import Dropout, attention


def test_attention_is_what_the_fused_one_computes_padding_left_out():
    torch.manual_seed(1)
    q, k, v = (torch.randn(3, 2, 5, 4, requires_grad=True) for _ in range(3))
    seen = torch.arange(5)[None] < torch.tensor([5, 3, 1])[:, None]
    bias = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[:, None, None, :]
    plain = attention(q, k, v, bias)
    with torch.no_grad():
        fused = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    assert torch.allclose(plain, fused, atol=1e-5)
    plain.sum().backward()
    assert v.grad[2, :, 1:].abs().max() == 0


def test_dropout_keeps_the_mean_and_does_nothing_outside_of_training():
    torch.manual_seed(1)
    part = Dropout(0.1)
    x = torch.ones(400, 400)
    dropped = part(x)
    assert (dropped == 0).float().mean().item() == pytest.approx(26 / 256, abs=0.005)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(part.eval()(x), x)
