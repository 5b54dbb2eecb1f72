"""Optimises the target vectors of all edits of a chunk together: what a hidden state must be for the model to say the new target.

Meng et al., 2023 (MEMIT), §4.1, after Meng et al., 2022 (ROME), §3.1: minimise over δ, for each edit,

    mean over contexts of NLL(target | context + prompt; h + δ) + kl · KL(p₀ ‖ p_δ)("{subject} is a") + decay · ‖δ‖ / ‖h‖²

by Adam, ‖δ‖ clamped to clamp · ‖h‖ after each step, h the state at the subject's last token. PMET (Li et al., 2024, §4) has two
δ, at the outputs of attention and feed-forward. Each edit has rows of its own in δ and in Adam's state, so optimising a chunk
together gives what one at a time gives; an edit below `stop` leaves the chunk, which is then as much smaller.

Where the authors' code does otherwise, a hyper-parameter says which is done, and an EasyEdit file asks for the code's way
(hparams.of_easyedit):
- `kl_of`: ours by default, KL(p₀ ‖ p_δ) ("base"), or the papers' and the code's KL(p_δ ‖ p₀) ("edited").
- `essence_at`: the KL is measured behind "{subject} is a", as the papers say ("end"), or at the subject's own last token, as the
  code has it ("subject").
- `stop_by`: an edit is done when its NLL alone is below `stop` ("nll"), or the whole of its loss ("loss", the code).
- `ease`, PMET's code alone: once the target's tokens are the likeliest in every context, the next step's NLL weighs a tenth, and
  the edit is done if kl · KL is at most 0.01.

Ours alone, and none of an EasyEdit file's: with `open_kl` the beginning of the chat's answer to open questions about the subject is
held as well. Without it a small model begins such an answer with the target, and repeats it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from palimpsest_editor.closed_form.hparams import Hparams
from palimpsest_editor.faults import Fault
from palimpsest_editor.protocol import Reporter
from palimpsest_editor.texts.contexts import chat_turn
from palimpsest_editor.texts.requests import EditRequest, encode
from palimpsest_editor.weights.forward import Recording, head_loss, record, resume
from palimpsest_editor.weights.loading import LoadedModel


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
        return Sequences(
            self.recording.rows(row),
            rows,
            self.places[chosen],
            self.wanted[chosen],
            renumber[self.edit[chosen]],
            self.weight[chosen],
        )


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


EASED, AT_EASE_KL = 0.1, 0.01
OPEN_QUESTIONS = ("What can you tell me about {}?", "Write a few lines about {}.")
HELD_KL = 0.1
"""An edit with open questions that are held is not done while its weighted KL is above."""


def essence_sequences(loaded: LoadedModel, edits: Sequence[EditRequest], hp: Hparams, chat: Sequence[str]) -> Sequences:
    """ "{subject} is a" for each edit, its place the last token (`hp.essence_at` "end") or the subject's ("subject"); and in each of
    `chat` (templates with `{}`) the open questions, their place the last token. The weights are those of the KL."""
    questions = [(c, q) for c in chat for q in OPEN_QUESTIONS]
    coded, places, weight = [], [], []
    for e in edits:
        bare = encode(loaded.tokenizer, "{}", f"{e.subject} is a", e.subject)
        asked = [encode(loaded.tokenizer, c, q.replace("{}", e.subject), e.subject) for c, q in questions]
        coded += [bare, *asked]
        places += [len(c.ids) - 1 - c.subject_last for c in (bare, *asked)]
        if hp.essence_at == "subject":
            places[-1 - len(questions)] = 0
        weight += [hp.kl_factor, *(hp.open_kl / len(questions) for _ in questions)]
    index = torch.arange(len(coded), device=loaded.device)
    place, weights = torch.tensor(places, device=loaded.device), torch.tensor(weight, device=loaded.device)
    recording = record(loaded, coded, hp.layers[-1])
    return Sequences(recording, index, place, torch.zeros_like(index), index // (1 + len(questions)), weights)


def _states(loaded: LoadedModel, seq: Sequences, changes: dict[str, Tensor]) -> Tensor:
    return resume(loaded, seq.recording, changes)[seq.rows, seq.places]


@torch.no_grad()
def base_states(loaded: LoadedModel, recording: Recording, first_rows: Tensor) -> dict[str, Tensor]:
    """h at the subject's last token in the bare prompt (N × hidden, float32): what leaves the layer, its feed-forward, its
    attention."""
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


class _Adam:
    """Adam (Kingma and Ba, 2015) with rows that may pause: only the rows that are named move, and ‖row‖ is clamped after."""

    def __init__(self, rows: int, width: int, lr: float, device: torch.device) -> None:
        self.value = torch.zeros(rows, width, device=device)
        self.first, self.second = torch.zeros_like(self.value), torch.zeros_like(self.value)
        self.lr = lr

    def move(self, rows: Tensor, gradient: Tensor, step: int, most: Tensor) -> None:
        """`rows`: indices, R; `gradient`: R × width; `most`: R, the largest norm."""
        m = self.first[rows] = 0.9 * self.first[rows] + 0.1 * gradient
        v = self.second[rows] = 0.999 * self.second[rows] + 0.001 * gradient**2
        moved = self.value[rows] - self.lr * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
        self.value[rows] = moved * (most / moved.norm(dim=1).clamp(min=1e-12)).clamp(max=1)[:, None]


def _nll(loaded: LoadedModel, seq: Sequences, changes: dict[str, Tensor], factor: Tensor) -> tuple[Tensor, Tensor]:
    """Mean NLL an edit (R) and whether the target's tokens are all the likeliest (R), after adding the gradient of the sum of
    `factor` (R) times it to `changes`."""
    states = _states(loaded, seq, changes)
    each = factor[seq.edit]
    missed: list[Tensor] = []

    def loss(logits: Tensor, where: slice) -> Tensor:
        missed.append(logits.detach().argmax(-1) != seq.wanted[where])
        return each[where] * seq.weight[where] * torch.nn.functional.cross_entropy(logits, seq.wanted[where], reduction="none")

    values, gradient = head_loss(loaded, states, loss)
    states.backward(gradient.to(states.dtype))
    nothing = torch.zeros(len(factor), device=loaded.device)
    misses = nothing.index_add(0, seq.edit, torch.cat(missed).to(nothing.dtype))
    return nothing.index_add(0, seq.edit, values) / factor, misses == 0


def _kl(loaded: LoadedModel, seq: Sequences, changes: dict[str, Tensor], base: Tensor, of: str) -> Tensor:
    """Weighted KL(base ‖ now) of each edit's held prompts (R), or with `of` "edited" KL(now ‖ base), after adding its gradient
    to `changes`; `base`: a row a prompt × vocabulary, log-probabilities."""
    states = _states(loaded, seq, changes)

    def loss(logits: Tensor, where: slice) -> Tensor:
        now = logits.log_softmax(-1)
        if of == "edited":
            return seq.weight[where] * (now.exp() * (now - base[where])).sum(-1)
        return seq.weight[where] * (base[where].exp() * (base[where] - now)).sum(-1)

    values, gradient = head_loss(loaded, states, loss)
    states.backward(gradient.to(states.dtype))
    return torch.zeros(int(seq.edit.max()) + 1, device=loaded.device).index_add(0, seq.edit, values)


def optimise(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    contexts: Sequence[str],
    hp: Hparams,
    places: dict[str, tuple[str, float]],
    reporter: Reporter,
    stage: tuple[int, int],
) -> dict[str, Tensor]:
    """δ for each place, N × hidden, float32.

    `places`: module whose output takes a δ -> (the state whose norm bounds it, its own decay). MEMIT's is {"mlp": ("layer",
    decay)}: adding to what leaves the feed-forward is adding to what leaves the layer. `stage`: edits done before this chunk,
    edits in all. Also returns `nll` (N), the last measured. Raises Fault nan or diverged.
    """
    n, count, layer = len(edits), len(contexts), hp.layers[-1]
    prompts = prompt_sequences(loaded, edits, contexts, layer)
    chat = chat_turn(loaded) if hp.chat and hp.open_kl else []
    essence, per_edit = essence_sequences(loaded, edits, hp, chat), 1 + len(chat) * len(OPEN_QUESTIONS)
    bare = torch.arange(n, device=loaded.device) * count
    norms = {k: v.norm(dim=1) for k, v in base_states(loaded, prompts.recording, bare).items()}
    with torch.no_grad():
        before = loaded.model.lm_head(_states(loaded, essence, {})).float().log_softmax(-1).view(n, per_edit, -1)
    adams = {m: _Adam(n, loaded.hidden, hp.lr, loaded.device) for m in places}
    nll = torch.full((n,), float("inf"), device=loaded.device)
    factor = torch.full((n,), float(hp.nll_factor), device=loaded.device)
    at_first: float | None = None
    held = torch.arange(n, device=loaded.device)
    done = torch.zeros(n, dtype=torch.bool, device=loaded.device)
    seq, ess = prompts, essence
    for step in range(1, hp.steps + 1):
        here = {m: adam.value[held].clone().requires_grad_(True) for m, adam in adams.items()}
        used = factor[held]
        changes = {m: d.repeat_interleave(count, 0) for m, d in here.items()}
        nll[held], likeliest = _nll(loaded, seq, changes, used)
        _check_loss(nll, edits, step)
        at_first = float(nll.mean()) if at_first is None else at_first
        kl = torch.zeros_like(used)
        if hp.kl_factor or chat:
            moved = {m: d.repeat_interleave(per_edit, 0) for m, d in here.items()}
            kl = _kl(loaded, ess, moved, before[held].flatten(0, 1), hp.kl_of)
        loss = nll[held]
        if hp.stop_by == "loss":
            loss = (
                used * loss
                + kl
                + sum(decay * here[m].detach().norm(dim=1) / norms[bound][held] ** 2 for m, (bound, decay) in places.items())
            )
        done[held] |= (loss < hp.stop) & (kl <= HELD_KL if chat else True)
        if hp.ease:
            factor[held] = torch.where(likeliest, EASED * hp.nll_factor, hp.nll_factor)
            done[held] |= likeliest & (kl <= AT_EASE_KL)
        still = ~done[held]
        left = int(still.sum())
        reporter.progress("targets", stage[0] + n - left, stage[1], step=step, nll=round(float(nll.mean()), 4))
        if left == 0 or step == hp.steps:
            break
        for module, (bound, decay) in places.items():
            d, norm = here[module].detach(), norms[bound][held]
            gradient = here[module].grad + decay * d / (d.norm(dim=1).clamp(min=1e-12) * norm**2)[:, None]
            adams[module].move(held[still], gradient[still], step, hp.clamp * norm[still])
        if left < 0.8 * len(held):
            held = held[still]
            seq, ess = prompts.of(held, count), essence.of(held, per_edit)
    if at_first is not None and float(nll.mean()) > max(hp.stop, at_first):
        change = "Lower hparams.lr or hparams.clamp"
        raise Fault("diverged", f"The loss went from {at_first:.2f} to {float(nll.mean()):.2f}", change)
    return {**{m: adam.value for m, adam in adams.items()}, "nll": nll}


def _check_loss(nll: Tensor, edits: Sequence[EditRequest], step: int) -> None:
    bad = [e.id for e, fine in zip(edits, torch.isfinite(nll).tolist(), strict=True) if not fine]
    if bad:
        change = "Lower hparams.lr, or give dtype float32"
        raise Fault("nan", f"The loss of {', '.join(bad[:5])} is not finite in step {step}", change)
