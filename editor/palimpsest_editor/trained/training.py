"""Trains one low-rank adapter on rows: what batch LoRA (lora.py) and distillation (distil.py) have in common.

LoRA (Hu et al., 2021, arXiv:2106.09685): ΔW = B·A beside a frozen matrix, B zero at the start, A random; or, the default, A
made from the subjects' keys (keyed.py) and frozen, as in LoRA-FA (Zhang et al., 2023, arXiv:2308.03303). The products are our
own two-factor hooks (lowrank.applied), not PEFT's modules: they are already the form that is exported, an earlier adapter may
be in force beside them, and the frozen layers below the lowest adapted one run once and not at every step (packing.Lower). PEFT
reads the export.

Loss of a row, a mean over its answer's tokens: `edit` −log p(token); `teacher` and `hold` KL(p ‖ q), p the stored distribution:
its k likeliest tokens and the rest as one more outcome (a lower bound of the full KL that is tight where k covers p). AdamW
(Loshchilov and Hutter, 2019), linear warm-up, then cosine to a tenth. A row whose loss is small already sits out two epochs of
three. A share of the rows is never trained on (`watch`): what training is to stop by is seen there.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from palimpsest_editor.faults import Fault
from palimpsest_editor.run import Run
from palimpsest_editor.trained.packing import Lower, Pack, Row, pack, packs, run_packed, shared_opening
from palimpsest_editor.trained.training_hparams import TrainingHparams
from palimpsest_editor.weights.checkpoint import Pieces, fingerprint
from palimpsest_editor.weights.forward import head_loss
from palimpsest_editor.weights.lowrank import LowRankUpdate, applied, merge


@dataclass(frozen=True)
class Soft:
    """Stored distributions of one row, n answer tokens: `tokens` n × k (likeliest first), `logp` n × (k + 1), the rest last."""

    tokens: Tensor
    logp: Tensor


def _with_rest(logp: Tensor) -> Tensor:
    """Log-probabilities n × k and that of all other tokens: n × (k + 1)."""
    rest = torch.log1p(-logp.exp().sum(-1, keepdim=True).clamp(max=1 - 1e-6))
    return torch.cat([logp, rest], dim=-1)


@torch.no_grad()
def soft_targets(run: Run, rows: Sequence[Row], hp: TrainingHparams, name: str) -> list[Soft]:
    """The distributions of the model as it is now, over each row's answer; each pass is a piece that survives a kill."""
    loaded = run.loaded
    opening = shared_opening(rows)
    out: list[Soft | None] = [None] * len(rows)
    cut = packs(rows, range(len(rows)), opening, 2 * hp.step_tokens)
    for number, chosen in enumerate(cut):
        run.reporter.progress(name, number, len(cut))

        def compute(chosen: list[int] = chosen) -> dict[str, Tensor]:
            packed = pack(rows, chosen, opening, loaded.device)
            states = loaded.model.model.norm(run_packed(loaded, packed, None, 0, len(loaded.layers))[packed.predict])
            tokens, logp = [], []
            for part in states.split(128):
                logits = loaded.model.lm_head(part).float()
                top = logits.topk(min(hp.top_k, logits.shape[-1] - 1), dim=-1)
                tokens.append(top.indices)
                logp.append(_with_rest(top.values - logits.logsumexp(-1, keepdim=True)))
            return {"tokens": torch.cat(tokens).int(), "logp": torch.cat(logp)}

        found = run.pieces.piece(
            f"{name.replace(' ', '-')}-{number}", fingerprint(run.key, [rows[i].ids for i in chosen], hp.top_k), compute
        )
        start = 0
        for i in chosen:
            end = start + rows[i].answers
            out[i] = Soft(found["tokens"][start:end].long(), found["logp"][start:end])
            start = end
    run.reporter.progress(name, len(cut), len(cut))
    return [s for s in out if s is not None]


@dataclass
class _Seen:
    """What each row was like when it was last run: its loss and whether all its answer's tokens were the likeliest."""

    loss: Tensor
    right: Tensor


LOST_NATS = 2.0
"""A hold KL above this after a quarter of the epochs: where the model was to stay as it was, it says something else
altogether."""


def _divergence(hp: TrainingHparams, what: str) -> Fault:
    less = max(1, hp.rank // 2)
    return Fault(
        "diverged",
        f"{what} (lr {hp.lr:g}, rank {hp.rank}, {len(hp.layers)} layers)",
        f"Lower hparams.lr to {hp.lr / 4:g}, hparams.rank to {less}, or adapt fewer layers",
    )


def _nan(hp: TrainingHparams, step: int) -> Fault:
    return Fault(
        "nan",
        f"The loss or its gradient is not finite at step {step} (lr {hp.lr:g}, rank {hp.rank}, layers {list(hp.layers)})",
        f"Lower hparams.lr to {hp.lr / 4:g} or hparams.rank, adapt fewer or higher layers, or give dtype float32",
    )


class Trainer:
    """One training: rows, their stored distributions, the adapter and the optimiser. `run()` gives the finished updates."""

    def __init__(
        self,
        run: Run,
        rows: Sequence[Row],
        soft: dict[int, Soft],
        hp: TrainingHparams,
        name: str,
        factors: dict[tuple[int, str], Tensor] | None = None,
    ) -> None:
        """`factors`: frozen A by matrix (keyed.py), where it is not to be trained."""
        self.run_of, self.rows, self.soft, self.hp, self.name = run, list(rows), soft, hp, name
        self.loaded, self.reporter = run.loaded, run.reporter
        self.opening = shared_opening(rows)
        self.key = fingerprint(run.key, [[r.ids, r.answer, r.kind, r.owner] for r in rows], str(hp))
        self.updates = self._fresh(factors or {})
        self.parameters = [t for u in self.updates for t in (u.a, u.b) if t.requires_grad]
        # A column of a keyed B has its gradient where its subject is named; the larger eps damps the little from elsewhere.
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            lr=hp.lr,
            weight_decay=hp.weight_decay,
            betas=(0.9, 0.98),
            eps=1e-5 if factors else 1e-8,
            foreach=False,
        )
        self.seen = _Seen(torch.full((len(rows),), math.inf), torch.zeros(len(rows), dtype=torch.bool))
        self.epochs = hp.epochs
        self.epoch, self.at, self.step, self.first_loss = 0, 0, 0, 0.0
        self.watched = self._watched()
        self.trained = [i for i in range(len(rows)) if i not in self.watched]
        self.taken = list(self.trained)
        self.weights = {"edit": hp.edit_weight, "teacher": hp.teacher_weight, "hold": hp.kl_weight}

    def _watched(self) -> set[int]:
        """Rows that are measured and not trained on: a seeded share of those that must stay, and of the phrasings (never an
        edit's first)."""
        first = {r.owner: i for i, r in reversed(list(enumerate(self.rows))) if r.kind != "hold"}
        free = [i for i, r in enumerate(self.rows) if r.kind == "hold" or first[r.owner] != i]
        order = random.Random(f"{self.run_of.job.seed}-watch")
        return {i for i in free if order.random() < self.hp.watch}

    def _fresh(self, factors: dict[tuple[int, str], Tensor]) -> list[LowRankUpdate]:
        """B zero; A the given one, frozen, or as PEFT starts it (Kaiming uniform, a = √5: ±1/√inputs), seeded, so that a run
        can be repeated."""
        seeded = torch.Generator().manual_seed(self.run_of.job.seed)
        made = []
        for layer in self.hp.layers:
            for module in self.hp.modules:
                outputs, inputs = self.loaded.module(layer, module).weight.shape
                a = factors.get((layer, module))
                if a is None:
                    a = (
                        ((torch.rand(self.hp.rank, inputs, generator=seeded) * 2 - 1) / inputs**0.5)
                        .to(self.loaded.device)
                        .requires_grad_(True)
                    )
                b = torch.zeros(outputs, a.shape[0], device=self.loaded.device, requires_grad=True)
                made.append(LowRankUpdate(layer, module, a, b))
        return made

    # Checkpoints alternate between two names, so that one of them is whole whenever the process dies.

    def save(self) -> None:
        state: dict[str, Tensor] = {f"p{i}": p for i, p in enumerate(self.parameters)}
        for i, p in enumerate(self.parameters):
            of = self.optimiser.state.get(p)
            if of:
                state |= {f"m{i}": of["exp_avg"], f"v{i}": of["exp_avg_sq"]}
        state |= {"loss": self.seen.loss, "right": self.seen.right, "taken": torch.tensor(self.taken)}
        state["where"] = torch.tensor([self.epoch, self.at, self.step, self.first_loss], dtype=torch.float64)
        self.run_of.pieces.save(f"{self.name}-{(self.step // self.hp.checkpoint_steps) % 2}", self.key, state)

    def restore(self) -> bool:
        pieces: Pieces = self.run_of.pieces
        found = [s for s in (pieces.load(f"{self.name}-{i}", self.key) for i in (0, 1)) if s is not None]
        if not found:
            return False
        state = max(found, key=lambda s: float(s["where"][2]))
        epoch, at, step, self.first_loss = state["where"].tolist()
        self.epoch, self.at, self.step = int(epoch), int(at), int(step)
        self.seen = _Seen(state["loss"], state["right"])
        self.taken = state["taken"].tolist()
        with torch.no_grad():
            for i, p in enumerate(self.parameters):
                p.copy_(state[f"p{i}"])
                if f"m{i}" in state:
                    mean, square = state[f"m{i}"].to(p.device), state[f"v{i}"].to(p.device)
                    self.optimiser.state[p] = {"step": torch.tensor(float(self.step)), "exp_avg": mean, "exp_avg_sq": square}
        return True

    def _lr(self, steps: int) -> float:
        warm = min(1.0, (self.step + 1) / max(1, self.hp.warmup_steps))
        return self.hp.lr * warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / max(1, steps)))))

    def _choose(self) -> list[int]:
        """This epoch's rows: all in the first and every third, else those that are not there yet."""
        if self.epoch % 3 == 0:
            return list(self.trained)
        return [i for i in self.trained if not (self.seen.loss[i] < self.hp.enough and self.seen.right[i])]

    def losses(self, packed: Pack, states: Tensor) -> Tensor:
        """Puts each row's loss into `seen` and returns the gradient of the pass's weighted mean with respect to `states` (N ×
        hidden)."""
        count = len(packed.rows)
        of = packed.of
        size = torch.bincount(of, minlength=count).float()
        weight = torch.tensor([self.weights[self.rows[i].kind] for i in packed.rows], device=of.device)[of] / size[of] / count
        soft = torch.tensor([i in self.soft for i in packed.rows], device=of.device)[of]
        k = min(self.hp.top_k, self.loaded.model.lm_head.weight.shape[0] - 1)
        tokens = torch.zeros(len(of), k, dtype=torch.long, device=of.device)
        logp = torch.zeros(len(of), k + 1, device=of.device)
        for number, i in enumerate(packed.rows):
            if i in self.soft:
                here = of == number
                tokens[here], logp[here] = self.soft[i].tokens.to(of.device), self.soft[i].logp.to(of.device)
        first = torch.where(soft, tokens[:, 0], packed.wanted)
        raw, right = torch.zeros(len(of), device=of.device), torch.zeros(len(of), dtype=torch.bool, device=of.device)

        def loss(logits: Tensor, where: slice) -> Tensor:
            total = logits.logsumexp(-1, keepdim=True)
            hard = (total - logits.gather(1, packed.wanted[where, None]))[:, 0]
            told = logp[where]
            ours = _with_rest(logits.gather(1, tokens[where]) - total)
            kl = (told.exp() * (told - ours)).sum(-1)
            value = torch.where(soft[where], kl, hard)
            raw[where], right[where] = value.detach(), logits.detach().argmax(-1) == first[where]
            return value * weight[where]

        _, gradient = head_loss(self.loaded, states, loss)
        row_loss = torch.zeros(count, device=of.device).index_add_(0, of, raw / size[of]).cpu()
        wrong = torch.zeros(count, device=of.device).index_add_(0, of, (~right).float()).cpu()
        at = torch.tensor(packed.rows)
        self.seen.loss[at], self.seen.right[at] = row_loss, wrong == 0
        return gradient

    def _look(self, chosen: list[int], lower: Lower) -> tuple[Tensor, Tensor]:
        """One pass over these rows, noted in `seen`: the states that predict, and the loss's gradient with respect to them."""
        packed = pack(self.rows, chosen, self.opening, self.loaded.device)
        out = run_packed(self.loaded, packed, lower.of(packed), min(self.hp.layers), len(self.loaded.layers))
        states = self.loaded.model.model.norm(out[packed.predict])
        return states, self.losses(packed, states)

    def _one_step(self, chosen: list[int], lower: Lower, steps: int) -> None:
        states, gradient = self._look(chosen, lower)
        if not torch.isfinite(self.seen.loss[torch.tensor(chosen)]).all() or not torch.isfinite(gradient).all():
            raise _nan(self.hp, self.step)
        self.optimiser.zero_grad()
        states.backward(gradient)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.hp.clip)
        if not torch.isfinite(norm):
            raise _nan(self.hp, self.step)
        self.optimiser.param_groups[0]["lr"] = self._lr(steps)
        self.optimiser.step()
        self.step += 1

    def standing(self) -> dict[str, float]:
        """As last seen: efficacy (share of the edits with every trained phrasing right), nll, teacher and hold KL, `watched`
        (share of the phrasings not trained on that are right), and `unchanged`, the share of what must stay with all tokens
        still first. hold_kl and unchanged are those of watched rows where there are any. A share or mean of nothing is 1 or
        0."""

        def of(kind: str, index: Sequence[int]) -> list[int]:
            return [i for i in index if self.rows[i].kind == kind]

        def mean(values: Tensor, index: list[int], empty: float) -> float:
            return round(float(values[torch.tensor(index)].float().mean()), 4) if index else empty

        edits, teachers, seen = of("edit", self.trained), of("teacher", self.trained), self.seen
        held = of("hold", sorted(self.watched)) or of("hold", self.trained)
        owners: dict[str, bool] = {}
        for i in [*edits, *teachers]:
            owners[self.rows[i].owner] = owners.get(self.rows[i].owner, True) and bool(seen.right[i])
        return {
            "efficacy": round(sum(owners.values()) / len(owners), 4) if owners else 1.0,
            "nll": mean(seen.loss, edits, 0.0),
            "teacher_kl": mean(seen.loss, teachers, 0.0),
            "watched": mean(seen.right, [i for i in sorted(self.watched) if self.rows[i].kind != "hold"], 1.0),
            "hold_kl": mean(seen.loss, held, 0.0),
            "unchanged": mean(seen.right, held, 1.0),
        }

    def _reached(self, now: dict[str, float]) -> bool:
        hp = self.hp
        told = now["efficacy"] >= hp.stop_efficacy and now["watched"] >= hp.stop_watched
        return told and now["unchanged"] >= hp.stop_unchanged and now["hold_kl"] <= hp.stop_kl

    def run(self) -> tuple[list[LowRankUpdate], dict[str, Any]]:
        """Trains to the end; goes on from the last checkpoint. Raises Fault nan, diverged, cancelled or memory."""
        hp = self.hp
        resumed = self.restore()
        lower = Lower(self.loaded, self.rows, self.opening, min(hp.layers), 2 * hp.step_tokens)
        whole = len(packs(self.rows, self.trained, self.opening, hp.step_tokens))
        self.epochs = max(hp.epochs, -(-hp.least_steps // whole))
        steps = whole * self.epochs
        stopped = False
        try:
            with applied(self.loaded, self.updates):
                while self.epoch < self.epochs and not stopped:
                    stopped = self._one_epoch(lower, steps, whole)
        except Fault as fault:
            if fault.code in ("cancelled", "memory"):
                self.save()
            raise
        self.save()
        now = self.standing()
        self.reporter.progress(self.name, self.epochs, self.epochs, **now)
        if not self._reached(now):
            told = f"efficacy {now['efficacy']:.3f}, watched {now['watched']:.3f}"
            message = f"After {self.epoch} epochs: {told}, unchanged {now['unchanged']:.3f}, KL {now['hold_kl']:.4f}"
            self.reporter.note("bounds_not_reached", f"{message}; more epochs, a higher rank or another kl_weight may reach them")
        done = [LowRankUpdate(u.layer, u.module, u.a.detach().cpu(), u.b.detach().cpu()) for u in self.updates]
        return merge([done]), {
            "epochs": self.epoch,
            "steps": self.step,
            "resumed": resumed,
            "rows": len(self.rows),
            "watched_rows": len(self.watched),
            **now,
        }

    def _one_epoch(self, lower: Lower, steps: int, whole: int) -> bool:
        """Whether the bounds are reached."""
        hp = self.hp
        if self.at == 0:
            self.taken = self._choose()
        cut = packs(self.rows, self.taken, self.opening, hp.step_tokens, random.Random(f"{self.run_of.job.seed}-{self.epoch}"))
        for number in range(self.at, len(cut)):
            shown = self.standing() if self.epoch else {}
            self.reporter.progress(
                self.name, self.epoch * whole + round(number * whole / len(cut)), whole * self.epochs, epoch=self.epoch, **shown
            )
            self._one_step(cut[number], lower, steps)
            self.at = number + 1
            if self.step % hp.checkpoint_steps == 0:
                self.save()
        with torch.no_grad():
            for chosen in packs(self.rows, sorted(self.watched), self.opening, 2 * hp.step_tokens):
                self.reporter.check()
                self._look(chosen, lower)
        finite = self.seen.loss[torch.isfinite(self.seen.loss)]
        loss = float(finite.mean())
        self.epoch, self.at = self.epoch + 1, 0
        if self.epoch == 1:
            self.first_loss = loss
        elif loss > 1.5 * self.first_loss + 1:
            raise _divergence(hp, f"The loss grew from {self.first_loss:.3g} to {loss:.3g}")
        now = self.standing()
        if hp.kl_weight > 0 and now["hold_kl"] > LOST_NATS and self.epoch >= max(3, self.epochs // 4):
            raise _divergence(hp, f"What must stay has moved by {now['hold_kl']:.3g} nats a token")
        return self._reached(now)
