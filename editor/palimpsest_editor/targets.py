"""Optimises the target vectors of all edits of a chunk together: what a hidden state must be for the model to say the new target.

Meng et al., 2023 (MEMIT), §4.1, after Meng et al., 2022 (ROME), §3.1: minimise over δ, for each edit,

    mean over contexts of NLL(target | context + prompt; h + δ) + kl · KL(p₀ ‖ p_δ)("{subject} is a") + decay · ‖δ‖ / ‖h‖²

by Adam, ‖δ‖ clamped to clamp · ‖h‖ after each step, h the state at the subject's last token. PMET (Li et al., 2024, §4) has two δ, at the
outputs of attention and feed-forward. Each edit has rows of its own in δ and in Adam's state, so optimising a chunk together gives what
one at a time gives; an edit below `stop` leaves the chunk, which is then as much smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from palimpsest_editor.faults import Fault
from palimpsest_editor.forward import Recording, head_loss, record, resume
from palimpsest_editor.hparams import Hparams
from palimpsest_editor.loading import LoadedModel
from palimpsest_editor.protocol import Reporter
from palimpsest_editor.requests import EditRequest, encode


@dataclass
class Sequences:
    """The rows of a chunk: C contexts an edit, edit after edit; and where each row's target tokens are."""

    recording: Recording
    rows: Tensor
    places: Tensor
    wanted: Tensor
    edit: Tensor
    weight: Tensor

    def of(self, edits: Tensor, per_edit: int) -> Sequences:
        """Those of some edits (indices, ascending), renumbered from 0."""
        row = (edits[:, None] * per_edit + torch.arange(per_edit, device=edits.device)).flatten()
        chosen = torch.isin(self.edit, edits)
        renumber = torch.full((int(self.edit.max()) + 1,), -1, device=edits.device)
        renumber[edits] = torch.arange(len(edits), device=edits.device)
        old_row = torch.full((self.recording.entering.shape[0],), -1, device=edits.device)
        old_row[row] = torch.arange(len(row), device=edits.device)
        rows = old_row[self.rows[chosen]]
        return Sequences(self.recording.rows(row), rows, self.places[chosen], self.wanted[chosen], renumber[self.edit[chosen]], self.weight[chosen])


def prompt_sequences(loaded: LoadedModel, edits: Sequence[EditRequest], contexts: Sequence[str], layer: int) -> Sequences:
    """Every edit in every context with its target, recorded at `layer`; weights are 1 / (contexts · target tokens)."""
    coded = [encode(loaded.tokenizer, c, e.prompt, e.subject, e.target_new) for e in edits for c in contexts]
    rows, places, wanted, owner, weight = [], [], [], [], []
    for row, one in enumerate(coded):
        count = len(one.ids) - one.target_start
        for t in range(one.target_start, len(one.ids)):
            rows.append(row)
            places.append(t - 1 - one.subject_last)
            wanted.append(one.ids[t])
            owner.append(row // len(contexts))
            weight.append(1 / (count * len(contexts)))
    tensor = [torch.tensor(x, device=loaded.device) for x in (rows, places, wanted, owner, weight)]
    return Sequences(record(loaded, coded, layer), *tensor)


def essence_sequences(loaded: LoadedModel, edits: Sequence[EditRequest], layer: int) -> Sequences:
    """"{subject} is a" for each edit; the place is the last token."""
    coded = [encode(loaded.tokenizer, "{}", f"{e.subject} is a", e.subject) for e in edits]
    index = torch.arange(len(edits), device=loaded.device)
    places = torch.tensor([len(c.ids) - 1 - c.subject_last for c in coded], device=loaded.device)
    return Sequences(record(loaded, coded, layer), index, places, torch.zeros_like(index), index, torch.ones(len(edits), device=loaded.device))


def _states(loaded: LoadedModel, seq: Sequences, changes: dict[str, Tensor]) -> Tensor:
    return resume(loaded, seq.recording, changes)[seq.rows, seq.places]


@torch.no_grad()
def base_states(loaded: LoadedModel, recording: Recording, first_rows: Tensor) -> dict[str, Tensor]:
    """h at the subject's last token in the bare prompt (N × hidden, float32): what leaves the layer, its feed-forward, its attention."""
    layer = loaded.layers[recording.layer]
    held: dict[str, Tensor] = {}

    def keep(name: str, module: torch.nn.Module) -> torch.utils.hooks.RemovableHandle:
        return module.register_forward_hook(lambda _m, _i, out: held.__setitem__(name, out[:, 0].float()))

    handles = [keep("layer", layer), keep("mlp", layer.mlp), keep("self_attn.o_proj", layer.self_attn.o_proj)]
    try:
        resume(loaded, recording.rows(first_rows), {})
    finally:
        for handle in handles:
            handle.remove()
    return held


def optimise(
    loaded: LoadedModel, edits: Sequence[EditRequest], contexts: Sequence[str], hp: Hparams, places: dict[str, tuple[str, float]], reporter: Reporter, stage: tuple[int, int]
) -> dict[str, Tensor]:
    """δ for each place, N × hidden, float32.

    `places`: module whose output takes a δ -> (the state whose norm bounds it, its own decay); MEMIT's is {"mlp": ("layer", decay)}:
    adding to what leaves the feed-forward is adding to what leaves the layer. `stage`: edits done before this chunk, edits in all.
    Also returns `nll` (N), the last measured. Raises Fault nan or diverged.
    """
    layer, count = hp.layers[-1], len(contexts)
    prompts = prompt_sequences(loaded, edits, contexts, layer)
    essence = essence_sequences(loaded, edits, layer)
    n = len(edits)
    first_rows = torch.arange(n, device=loaded.device) * count
    norms = {k: v.norm(dim=1) for k, v in base_states(loaded, prompts.recording, first_rows).items()}
    with torch.no_grad():
        before = loaded.model.lm_head(_states(loaded, essence, {})).float().log_softmax(-1)
    delta = {m: torch.zeros(n, loaded.hidden, device=loaded.device) for m in places}
    first = {m: torch.zeros_like(d) for m, d in delta.items()}
    second = {m: torch.zeros_like(d) for m, d in delta.items()}
    nll = torch.full((n,), float("inf"), device=loaded.device)
    started: Tensor | None = None
    active = torch.arange(n, device=loaded.device)
    seq, ess, held = prompts, essence, active
    for step in range(1, hp.steps + 1):
        if len(active) < 0.8 * len(held):
            held, seq, ess = active, prompts.of(active, count), essence.of(active, 1)
        here = {m: d[held].clone().requires_grad_(True) for m, d in delta.items()}
        repeated = {m: d.repeat_interleave(count, 0) for m, d in here.items()}

        states = _states(loaded, seq, repeated)
        weight, wanted = seq.weight * hp.nll_factor, seq.wanted
        values, gradient = head_loss(loaded, states, lambda z, w: weight[w] * torch.nn.functional.cross_entropy(z, wanted[w], reduction="none"))  # noqa: B023
        states.backward(gradient.to(states.dtype))
        now = torch.zeros(len(held), device=loaded.device).index_add_(0, seq.edit, values) / hp.nll_factor
        if not torch.isfinite(now).all():
            bad = [edits[i].id for i in held[~torch.isfinite(now)].tolist()]
            raise Fault("nan", f"The loss of {', '.join(bad[:5])} is not finite in step {step}", "Lower hparams.lr, or give dtype float32")
        nll[held] = now
        started = now.clone() if started is None else started

        if hp.kl_factor:
            base = before[held]
            last = _states(loaded, ess, here)
            _, gradient = head_loss(loaded, last, lambda z, w: hp.kl_factor * (base[w].exp() * (base[w] - z.log_softmax(-1))).sum(-1))  # noqa: B023
            last.backward(gradient.to(last.dtype))
        still = held[now >= hp.stop]
        reporter.progress("targets", stage[0] + n - len(still), stage[1], step=step, nll=round(float(nll.mean()), 4))
        if len(still) == 0:
            break
        active = still
        open_row = torch.isin(held, still)
        for module, (bound, decay) in places.items():
            d = here[module].detach()
            size = d.norm(dim=1, keepdim=True)
            norm = norms[bound][held, None]
            grad = here[module].grad + decay * d / (size.clamp(min=1e-12) * norm**2)
            m = first[module][held] = 0.9 * first[module][held] + 0.1 * grad
            v = second[module][held] = 0.999 * second[module][held] + 0.001 * grad**2
            moved = d - hp.lr * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
            most = hp.clamp * norm
            moved = moved * (most / moved.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
            delta[module][held] = torch.where(open_row[:, None], moved, d)
    if started is not None and float(nll.mean()) > float(started.mean()) + 1:
        raise Fault("diverged", f"The loss rose from {float(started.mean()):.2f} to {float(nll.mean()):.2f}", "Lower hparams.lr or hparams.clamp")
    return {**delta, "nll": nll}
