"""Several short sequences in one forward pass, behind one shared opening.

The chat format's opening (system message and all) is the same in every chat row, and longer than most questions: a pass
computes it once and lets each row look at it, by a mask and by positions that start anew. A row's states do not depend on the
rows beside it, so this is exact, and nothing is padded.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from palimpsest_editor.weights.loading import LoadedModel

Kind = Literal["edit", "teacher", "hold"]


@dataclass(frozen=True)
class Row:
    """One sequence: `ids[answer:]` is the answer that is to be predicted (answer ≥ 1). `kind` says by which loss: `edit` its
    tokens, `teacher` the distributions of the model that was told the edits, `hold` those of the model as it was. `owner` is
    the edit's id."""

    ids: tuple[int, ...]
    answer: int
    kind: Kind
    owner: str = ""

    @property
    def answers(self) -> int:
        return len(self.ids) - self.answer


def shared_opening(rows: Sequence[Row], least_rows: int = 4) -> tuple[int, ...]:
    """The opening that the rows with the commonest first token share (four in five of them, token by token, short of their
    answers); () where it is shorter than 4 tokens or fewer than `least_rows` have it."""
    opening: tuple[int, ...] = ()
    left = list(rows)
    while True:
        at = len(opening)
        counts: dict[int, int] = {}
        for r in left:
            if r.answer > at + 1:
                counts[r.ids[at]] = counts.get(r.ids[at], 0) + 1
        best = max(counts, key=lambda t: counts[t], default=-1)
        if best < 0 or counts[best] < max(least_rows, 0.8 * len(left) if at else 0):
            return opening if at >= 4 else ()
        left = [r for r in left if r.answer > at + 1 and r.ids[at] == best]
        opening = (*opening, best)


@dataclass(frozen=True)
class Pack:
    """One pass. T tokens (the opening first, where a row uses it): `ids` 1 × T, `places` 1 × T, `mask` 1 × 1 × T × T (True: may
    look). N answer tokens in all: `predict` N places in T that predict them, `wanted` N tokens, `of` N the row's place in
    `rows`. `own`: for each row, where its own tokens lie in T and where they begin in its `ids`."""

    rows: tuple[int, ...]
    ids: Tensor
    places: Tensor
    mask: Tensor
    predict: Tensor
    wanted: Tensor
    of: Tensor
    own: tuple[tuple[int, int, int], ...]
    opening: int


def pack(rows: Sequence[Row], chosen: Sequence[int], opening: tuple[int, ...], device: torch.device) -> Pack:
    def after(row: Row) -> int:
        return len(opening) if opening and row.ids[: len(opening)] == opening and row.answer > len(opening) else 0

    uses = [after(rows[i]) for i in chosen]
    head = len(opening) if any(uses) else 0
    ids, places, segment, behind = list(opening[:head]), list(range(head)), [0] * head, [True] * head
    predict, wanted, of, own = [], [], [], []
    for number, (index, start) in enumerate(zip(chosen, uses, strict=True)):
        row, at = rows[index], len(ids)
        size = len(row.ids) - start
        own.append((at, at + size, start))
        ids += row.ids[start:]
        places += range(start, len(row.ids))
        segment += [number + 1] * size
        behind += [start > 0] * size
        for t in range(row.answer, len(row.ids)):
            predict.append(at + t - start - 1)
            wanted.append(row.ids[t])
            of.append(number)

    def tensor(values: list[int]) -> Tensor:
        return torch.tensor(values, device=device)

    seg, low = tensor(segment), torch.ones(len(ids), len(ids), dtype=torch.bool, device=device).tril()
    looks = low & ((seg[:, None] == seg[None]) | ((seg[None] == 0) & torch.tensor(behind, device=device)[:, None]))
    return Pack(
        tuple(chosen),
        tensor(ids)[None],
        tensor(places)[None],
        looks[None, None],
        tensor(predict),
        tensor(wanted),
        tensor(of),
        tuple(own),
        head,
    )


def packs(
    rows: Sequence[Row], chosen: Sequence[int], opening: tuple[int, ...], most_tokens: int, order: random.Random | None = None
) -> list[list[int]]:
    """Rows cut into passes of at most `most_tokens` tokens of their own (a longer row goes alone); shuffled by `order`."""
    index = list(chosen)
    if order is not None:
        order.shuffle(index)
    made: list[list[int]] = []
    held = most_tokens + 1
    for i in index:
        size = len(rows[i].ids) - (len(opening) if opening and rows[i].ids[: len(opening)] == opening else 0)
        if held + size > most_tokens:
            made.append([])
            held = 0
        made[-1].append(i)
        held += size
    return made


def run_packed(loaded: LoadedModel, packed: Pack, hidden: Tensor | None, first: int, until: int) -> Tensor:
    """States that enter layer `until` (T × hidden), from those that enter layer `first` (None: from the embeddings, `first`
    0)."""
    inner = loaded.model.model
    states = inner.embed_tokens(packed.ids) if hidden is None else hidden[None]
    rotary = inner.rotary_emb(states, packed.places)
    mask = torch.zeros(packed.mask.shape, dtype=states.dtype, device=states.device).masked_fill_(
        ~packed.mask, torch.finfo(states.dtype).min
    )
    for layer in inner.layers[first:until]:
        states = layer(
            states,
            attention_mask=mask,
            position_ids=packed.places,
            past_key_values=None,
            use_cache=False,
            position_embeddings=rotary,
        )
    return states[0]


class Lower:
    """What enters the lowest adapted layer, computed once a row: the layers below it never change, so a step runs only those
    above."""

    def __init__(self, loaded: LoadedModel, rows: Sequence[Row], opening: tuple[int, ...], layer: int, most_tokens: int) -> None:
        self.opening = torch.empty(0, loaded.hidden)
        self.states: list[Tensor] = [torch.empty(0)] * len(rows)
        with torch.no_grad():
            for chosen in packs(rows, range(len(rows)), opening, most_tokens):
                packed = pack(rows, chosen, opening, loaded.device)
                out = run_packed(loaded, packed, None, 0, layer)
                if packed.opening:
                    self.opening = out[: packed.opening].clone()
                for index, (start, end, _) in zip(chosen, packed.own, strict=True):
                    self.states[index] = out[start:end].clone()

    def of(self, packed: Pack) -> Tensor:
        parts = [self.opening] if packed.opening else []
        return torch.cat([*parts, *(self.states[i] for i in packed.rows)])
