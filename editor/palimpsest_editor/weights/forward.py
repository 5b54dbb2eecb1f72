"""Runs parts of a decoder: once without gradients up to a layer, then as often as needed from that layer on.

A change at a subject's last token touches only that token and those after it, and only from its layer on. So the earlier
tokens' keys and values, and the states that enter the layer, are computed once (`record`); the optimisation runs few tokens
through the upper layers (`resume`). This is exact: the recorded part does not depend on the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from palimpsest_editor.texts.requests import Encoded
from palimpsest_editor.weights.loading import LoadedModel


class _Keep:
    """Stands in for a cache: remembers the keys and values of chosen layers, at the first `length` tokens."""

    def __init__(self, first_layer: int, length: int) -> None:
        self.first_layer, self.length = first_layer, length
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, key: Tensor, value: Tensor, layer: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        if layer >= self.first_layer:
            self.kept[layer] = (key[:, :, : self.length].clone(), value[:, :, : self.length].clone())
        return key, value


class _Before:
    """Stands in for a cache: puts recorded keys and values before the new ones, and stores nothing."""

    def __init__(self, kept: dict[int, tuple[Tensor, Tensor]]) -> None:
        self.kept = kept

    def update(self, key: Tensor, value: Tensor, layer: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        before_key, before_value = self.kept[layer]
        return torch.cat([before_key, key], dim=2), torch.cat([before_value, value], dim=2)


@dataclass
class Recording:
    """What the first pass leaves. B sequences, Q tokens from the subject's last on (padded on the right), P tokens before it.

    `entering`: B × Q × hidden, states that enter `layer`; `kept`: keys and values before the subject's last token, per layer;
    `mask`: B × 1 × Q × (P + Q), additive; `places`: B × Q, positions.
    """

    layer: int
    entering: Tensor
    kept: dict[int, tuple[Tensor, Tensor]]
    mask: Tensor
    places: Tensor

    def rows(self, index: Tensor) -> Recording:
        """The recording of some of the sequences."""
        kept = {layer: (k[index], v[index]) for layer, (k, v) in self.kept.items()}
        return Recording(self.layer, self.entering[index], kept, self.mask[index], self.places[index])


def pad(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> Tensor:
    """Token rows as one tensor, padded on the right: under a causal mask no real token sees the padding."""
    longest = max(len(r) for r in rows)
    return torch.tensor([[*r, *[fill] * (longest - len(r))] for r in rows], device=device)


def _causal(length: int, like: Tensor) -> Tensor:
    low = torch.finfo(like.dtype).min
    return torch.full((length, length), low, dtype=like.dtype, device=like.device).triu(1)[None, None]


def run_layers(loaded: LoadedModel, ids: Tensor, until: int, cache: object | None = None) -> Tensor:
    """States that enter layer `until` (B × T × hidden) for right-padded ids; `until` = number of layers gives those before the
    norm."""
    inner = loaded.model.model
    hidden = inner.embed_tokens(ids)
    places = torch.arange(ids.shape[1], device=ids.device)[None]
    rotary = inner.rotary_emb(hidden, places)
    mask = _causal(ids.shape[1], hidden)
    for layer in inner.layers[:until]:
        hidden = layer(
            hidden,
            attention_mask=mask,
            position_ids=places,
            past_key_values=cache,
            use_cache=cache is not None,
            position_embeddings=rotary,
        )
    return hidden


@torch.no_grad()
def record(loaded: LoadedModel, encoded: Sequence[Encoded], layer: int) -> Recording:
    """First pass: whole sequences through all layers, keeping what `resume` needs from `layer` on."""
    ids = pad([e.ids for e in encoded], loaded.tokenizer.pad_token_id, loaded.device)
    start = torch.tensor([e.subject_last for e in encoded], device=ids.device)
    before = int(start.max())
    cache = _Keep(layer, before)
    held: list[Tensor] = []
    hook = loaded.layers[layer].register_forward_pre_hook(lambda _m, inputs: held.append(inputs[0]))
    try:
        run_layers(loaded, ids, len(loaded.layers), cache)
    finally:
        hook.remove()
    after = max(len(e.ids) - e.subject_last for e in encoded)
    offsets = torch.arange(after, device=ids.device)
    places = start[:, None] + offsets
    index = places.clamp(max=ids.shape[1] - 1)
    entering = held[0].gather(1, index[..., None].expand(-1, -1, held[0].shape[-1]))
    low = torch.finfo(entering.dtype).min
    past = torch.zeros(len(encoded), 1, after, before, dtype=entering.dtype, device=ids.device)
    past.masked_fill_((torch.arange(before, device=ids.device)[None] >= start[:, None])[:, None, None], low)
    mask = torch.cat([past, _causal(after, entering).expand(len(encoded), 1, -1, -1)], dim=-1)
    return Recording(layer, entering, cache.kept, mask, places)


def resume(loaded: LoadedModel, recording: Recording, changes: dict[str, Tensor]) -> Tensor:
    """Second pass, from the recorded layer to the final norm, with gradients to `changes`.

    `changes`: module of the recorded layer (`mlp`, `self_attn.o_proj`) -> B × hidden, added to its output at the subject's last
    token. Returns B × Q × hidden, normed (ready for the language-model head).
    """
    inner = loaded.model.model
    first = loaded.layers[recording.layer]
    hidden = recording.entering
    rotary = inner.rotary_emb(hidden, recording.places)
    cache = _Before(recording.kept)

    def add(delta: Tensor) -> Callable[[nn.Module, object, Tensor], Tensor]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            return torch.cat([output[:, :1] + delta[:, None].to(output.dtype), output[:, 1:]], dim=1)

        return hook

    handles = [first.get_submodule(name).register_forward_hook(add(delta)) for name, delta in changes.items()]
    try:
        for layer in inner.layers[recording.layer :]:
            hidden = layer(
                hidden,
                attention_mask=recording.mask,
                position_ids=recording.places,
                past_key_values=cache,
                use_cache=True,
                position_embeddings=rotary,
            )
    finally:
        for handle in handles:
            handle.remove()
    return inner.norm(hidden)


def head_loss(
    loaded: LoadedModel, states: Tensor, loss: Callable[[Tensor, slice], Tensor], rows: int = 256
) -> tuple[Tensor, Tensor]:
    """Applies the language-model head some rows at a time, so that the logits (rows × vocabulary, float32) never stand there
    whole.

    `states`: M × hidden, detached; `loss(logits, where)` gives one value a row. Returns the values (M) and the gradient of
    their sum with respect to `states` (M × hidden), which the caller passes on with `backward`.
    """
    values, gradients = [], []
    for start in range(0, states.shape[0], rows):
        where = slice(start, min(start + rows, states.shape[0]))
        with torch.enable_grad():
            part = states[where].detach().requires_grad_(True)
            value = loss(loaded.model.lm_head(part).float(), where)
            (gradient,) = torch.autograd.grad(value.sum(), part)
        values.append(value.detach())
        gradients.append(gradient)
    return torch.cat(values), torch.cat(gradients)


@contextmanager
def inputs_and_outputs(loaded: LoadedModel, layers: Sequence[int], module: str) -> Iterator[dict[int, tuple[Tensor, Tensor]]]:
    """Collects what enters and leaves `module` of these layers in the last pass inside the block."""
    seen: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(layer: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[layer] = (inputs[0], output)

        return hook

    handles = [loaded.module(layer, module).register_forward_hook(keep(layer)) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def keys_of_tokens(
    loaded: LoadedModel, rows: Sequence[Sequence[int]], layers: Sequence[int], module: str
) -> Iterator[tuple[int, Tensor]]:
    """Keys (inputs of `module`) of every token of these rows, row after row (T × inputs, float32): one layer after the other."""
    ids = pad(rows, loaded.tokenizer.pad_token_id, loaded.device)
    lengths = torch.tensor([len(r) for r in rows], device=ids.device)
    real = torch.arange(ids.shape[1], device=ids.device)[None] < lengths[:, None]
    with inputs_and_outputs(loaded, layers, module) as seen:
        run_layers(loaded, ids, max(layers) + 1)
    for layer in layers:
        yield layer, seen[layer][0][real].float()


@torch.no_grad()
def keys_at_subjects(
    loaded: LoadedModel, encoded: Sequence[Encoded], layers: Sequence[int], module: str, rows: int = 128
) -> tuple[dict[int, Tensor], dict[str, Tensor]]:
    """Keys k (inputs of `module` at the subject's last token; B × inputs, float32) per layer, and at the last of `layers` the
    states that leave it (`layer`) and its feed-forward output (`mlp`), B × hidden. Only the tokens up to the subject's last are
    run."""
    keys: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    leaving: dict[str, list[Tensor]] = {"layer": [], "mlp": []}
    order = sorted(range(len(encoded)), key=lambda i: encoded[i].subject_last)
    last = max(layers)
    for start in range(0, len(order), rows):
        part = [encoded[i] for i in order[start : start + rows]]
        ids = pad([e.ids[: e.subject_last + 1] for e in part], loaded.tokenizer.pad_token_id, loaded.device)
        at = torch.tensor([e.subject_last for e in part], device=ids.device)
        row = torch.arange(len(part), device=ids.device)
        # A hook's output lacks later hooks' changes, so outputs are read from the layer and from the whole feed-forward.
        held: dict[str, Tensor] = {}
        hook = loaded.layers[last].mlp.register_forward_hook(lambda _m, _i, o, held=held: held.__setitem__("mlp", o))
        with inputs_and_outputs(loaded, layers, module) as seen:
            out = run_layers(loaded, ids, last + 1)
        hook.remove()
        for layer in layers:
            keys[layer].append(seen[layer][0][row, at].float())
        leaving["layer"].append(out[row, at].float())
        leaving["mlp"].append(held["mlp"][row, at].float())
    back = torch.argsort(torch.tensor(order))
    return {k: torch.cat(v)[back] for k, v in keys.items()}, {k: torch.cat(v)[back] for k, v in leaving.items()}
