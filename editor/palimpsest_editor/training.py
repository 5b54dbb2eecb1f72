"""Trains one low-rank adapter on rows: what batch LoRA (lora.py) and distillation (distil.py) have in common.

LoRA (Hu et al., 2021, arXiv:2106.09685): ΔW = B·A beside a frozen matrix, A random, B zero at the start. The products are our own
two-factor hooks (lowrank.applied), not PEFT's modules: they are already the form that is exported, an earlier adapter may be in force
beside them, and the frozen layers below the lowest adapted one run once and not at every step (packing.Lower). PEFT reads the export.

Loss of a row, a mean over its answer's tokens: `edit` −log p(token); `teacher` and `hold` KL(p ‖ q), p the stored distribution: its k
likeliest tokens and the rest as one more outcome (a lower bound of the full KL that is tight where k covers p). AdamW (Loshchilov and
Hutter, 2019), linear warm-up, then cosine to a tenth. A row whose loss is small already sits out two epochs of three.

Scope: A is kept orthogonal to the principal directions of what enters its matrix over the `hold` rows (all but 1 − `scope_energy` of
their energy), projected anew after each step. There B·A answers with nothing, so the chat format's own tokens and the relation's words
cannot carry an edit; the subject's can. The idea is gradient projection memory's (Saha, Garg and Roy, 2021, arXiv:2103.09762) and
AlphaEdit's (Fang et al., 2024, arXiv:2410.02355: the null space of the kept knowledge's keys), here on a trained adapter. Off by default:
with as few held tokens as a job has (about 850 directions of 4,864) it stills those very rows and not their like, and takes the penalty's
gradient away (docs/LOG.md).
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from palimpsest_editor.checkpoint import Pieces, fingerprint
from palimpsest_editor.faults import Fault
from palimpsest_editor.forward import head_loss
from palimpsest_editor.loading import LoadedModel, choose_dtype, free_bytes, memory_to_load_bytes
from palimpsest_editor.lowrank import LowRankUpdate, applied, merge
from palimpsest_editor.methods import Run
from palimpsest_editor.packing import Lower, Pack, Row, pack, packs, run_packed, shared_opening
from palimpsest_editor.protocol import Base, Job


@dataclass(frozen=True)
class TrainingHparams:
    """`layers` × `modules` are adapted with `rank`. An epoch takes `step_tokens` tokens a step. `kl_weight` weighs what must stay
    (edit scope), `teacher_weight` the teacher, `edit_weight` the targets' own tokens. Training ends after an epoch in which
    `stop_efficacy` of the edits have every token of every phrasing first, the answers that must stay keep `stop_unchanged` of their
    rows and their KL is below `stop_kl`; or after `epochs`. `completions` and `questions`: phrasings an edit beside its bare prompt;
    `neighbours`: prompts about other subjects an edit; `answer_tokens`: how much of an answer is trained on; `top_k`: of a stored
    distribution; `scope_energy` (0, the default: no projection) of at most `scope_tokens` held tokens, and at most half of a matrix's inputs, is kept out of
    the adapter's reach; `chat`: chat format with `{}` (default: the tokenizer's). `keep_misses`: also learn where the teacher missed."""

    layers: tuple[int, ...]
    modules: tuple[str, ...] = ("mlp.down_proj",)
    rank: int = 16
    lr: float = 2e-3
    weight_decay: float = 0.0
    epochs: int = 15
    warmup_steps: int = 10
    step_tokens: int = 512
    clip: float = 1.0
    edit_weight: float = 1.0
    teacher_weight: float = 1.0
    kl_weight: float = 1.0
    stop_efficacy: float = 1.0
    stop_unchanged: float = 0.97
    stop_kl: float = 0.02
    enough: float = 0.02
    completions: int = 1
    questions: int = 1
    neighbours: int = 2
    answer_tokens: int = 16
    top_k: int = 32
    checkpoint_steps: int = 20
    scope_energy: float = 0.0
    scope_tokens: int = 1500
    chat: str | None = None
    keep_misses: bool = False


def training_hparams(loaded: LoadedModel, overrides: dict[str, Any], **defaults: Any) -> TrainingHparams:
    """Defaults for this depth with a job's overrides; unknown names and values out of range are refused."""
    count = len(loaded.layers)
    first = round(count / 4)
    made = TrainingHparams(layers=tuple(range(first, min(count, first + max(1, count // 3)))), **defaults)
    given = {k: v for k, v in overrides.items() if k != "batch_edits"}
    unknown = sorted(set(given) - {f.name for f in fields(TrainingHparams)})
    if unknown:
        known = ", ".join(f.name for f in fields(TrainingHparams))
        raise Fault("malformed_job", f"Unknown hparams: {', '.join(unknown)}", f"Known are {known}")
    for name in ("layers", "modules"):
        if name in given:
            given[name] = tuple(given[name])
    made = replace(made, **given)
    if not made.layers or min(made.layers) < 0 or max(made.layers) >= count:
        raise Fault("malformed_job", f"hparams.layers {made.layers}", f"Layers of this model are 0 to {count - 1}")
    if min(made.rank, made.epochs, made.step_tokens, made.answer_tokens, made.top_k, made.checkpoint_steps) < 1 or made.lr <= 0:
        raise Fault(
            "malformed_job",
            "hparams rank, epochs, step_tokens, answer_tokens, top_k, checkpoint_steps and lr must be positive",
            "Leave them out for the default",
        )
    return made


def training_bytes(hidden: int, inner: int, layers: int, vocabulary: int, hp: dict[str, Any], itemsize: int) -> int:
    """About what a step takes beside the model: the states that the backward pass needs (hidden × 16 and inner × 6 a token and layer above
    the lowest adapted one), the head's logits 256 rows at a time (float32, about four at once), and adapter, gradient and AdamW's two moments.
    """
    chosen = hp.get("layers") or [round(layers / 4)]
    tokens, rank = int(hp.get("step_tokens", 512)) + 64, int(hp.get("rank", 16))
    states = tokens * max(0, layers - min(chosen)) * (16 * hidden + 6 * inner) * itemsize
    adapter = len(chosen) * len(hp.get("modules", (1,))) * rank * (hidden + inner) * 16
    return states + 256 * vocabulary * 16 + adapter


def _shape(base: Base) -> tuple[int, int, int, int]:
    """hidden, inner, layers, vocabulary of a model that is not loaded."""
    if base.path.is_dir():
        said = json.loads((base.path / "config.json").read_text())
        return said["hidden_size"], said["intermediate_size"], said["num_hidden_layers"], said["vocab_size"]
    from gguf import GGUFReader

    reader = GGUFReader(base.path)

    def number(name: str) -> int:
        found = next((f for key, f in reader.fields.items() if key.endswith(f".{name}")), None)
        return 0 if found is None else int(found.contents())

    rows = next((int(t.shape[1]) for t in reader.tensors if t.name == "token_embd.weight"), 0)
    return number("embedding_length"), number("feed_forward_length"), number("block_count"), rows


def check_memory(job: Job) -> None:
    """Raises Fault("memory") before anything is loaded, where model and training together exceed limits.memory_bytes or what is free."""
    if not job.base.path.exists():
        return
    kind = choose_dtype(job.dtype, job.device)
    model = memory_to_load_bytes(job.base, kind, True)
    step = training_bytes(*_shape(job.base), job.hparams, kind.itemsize)
    bound = min(x for x in (job.memory_bytes, free_bytes() or None, 1 << 62) if x is not None)
    if not job.device.startswith("cuda") and model + step > bound:
        less = max(128, int(job.hparams.get("step_tokens", 512)) // 2)
        raise Fault(
            "memory",
            f"Training takes about {(model + step) / 1e9:.1f} GB ({model / 1e9:.1f} the model, {step / 1e9:.1f} a step); {bound / 1e9:.1f} GB may be used",
            f"Raise limits.memory_bytes, lower hparams.step_tokens to {less}, adapt higher layers, or give dtype bfloat16",
        )


def plan(job: Job, loaded: LoadedModel) -> dict[str, Any]:
    """Fields of the plan event: seconds by stage, at most (training may stop early; settled rows sit out). Counts phrasings of about
    14 tokens, chat answers of `answer_tokens`, and a step with gradients as 2.2 passes through the layers above the lowest adapted one."""
    from palimpsest_editor.estimate import tokens_a_second

    hp, speed = training_hparams(loaded, job.hparams), tokens_a_second(loaded)
    edits = len(job.edits)
    positives = edits * ((1 + hp.completions) * 14 + hp.questions * (18 + hp.answer_tokens))
    held = (len(job.locality) or edits * hp.neighbours / 2 + 24) * (18 + hp.answer_tokens) + edits * (hp.neighbours / 2 + 1) * 14
    upper = 1 - min(hp.layers) / len(loaded.layers)
    stages = {
        "score": 2 * 2 * len(job.probes) * 14 * 1.3 / speed,
        "answers": 3 * held / speed,
        "distributions": 1.5 * (held + (3 * positives if job.method == "distil" else 0)) / speed,
        "training": hp.epochs * (positives + held) * (2.2 * upper + 0.6) / speed,
    }
    listed = [{"stage": name, "estimate_s": round(seconds, 1)} for name, seconds in stages.items()]
    return {"estimate_s": round(sum(stages.values()), 1), "tokens_per_second": round(speed), "stages": listed}


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


def principal(keys: Tensor, energy: float) -> Tensor:
    """Orthonormal directions (m × inputs) that hold `energy` of the rows' squared length; at most half of the inputs."""
    values, vectors = torch.linalg.eigh((keys @ keys.T).double())
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    share = values.cumsum(0) / values.sum()
    most = min(int((share < energy).sum()) + 1, keys.shape[1] // 2, int((values > 1e-9 * values[0]).sum()))
    basis = (keys.double().T @ vectors[:, :most]) / values[:most].sqrt()
    return torch.linalg.qr(basis)[0].T.float().contiguous()


@torch.no_grad()
def scope_directions(run: Run, rows: Sequence[Row], opening: tuple[int, ...], hp: TrainingHparams) -> dict[tuple[int, str], Tensor]:
    """By matrix, the directions of the `hold` rows' inputs, which the adapter is not to answer to. A seeded sample of their tokens."""
    index = [i for i, r in enumerate(rows) if r.kind == "hold"]
    if not index or hp.scope_energy <= 0:
        return {}
    loaded = run.loaded
    keys: dict[tuple[int, str], list[Tensor]] = {(n, m): [] for n in hp.layers for m in hp.modules}

    def keep(key: tuple[int, str]) -> Any:
        return lambda _module, inputs, _output: keys[key].append(inputs[0][0].float())

    handles = [loaded.module(*key).register_forward_hook(keep(key)) for key in keys]
    try:
        for chosen in packs(rows, index, opening, 2 * hp.step_tokens):
            run.reporter.check()
            run_packed(loaded, pack(rows, chosen, opening, loaded.device), None, 0, max(hp.layers) + 1)
    finally:
        for handle in handles:
            handle.remove()
    out = {}
    for number, (key, parts) in enumerate(keys.items()):
        run.reporter.progress("scope directions", number, len(keys))
        found = torch.cat(parts)
        sample = torch.randperm(found.shape[0], generator=torch.Generator().manual_seed(run.job.seed))[: hp.scope_tokens]
        out[key] = principal(found[sample.to(found.device)], hp.scope_energy)
    return out


@dataclass
class _Seen:
    """What each row was like when it was last run: its loss and whether all its answer's tokens were the likeliest."""

    loss: Tensor
    right: Tensor


LOST_NATS = 2.0
"""A hold KL above this after a quarter of the epochs: where the model was to stay as it was, it says something else altogether."""


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

    def __init__(self, run: Run, rows: Sequence[Row], soft: dict[int, Soft], hp: TrainingHparams, name: str) -> None:
        self.run_of, self.rows, self.soft, self.hp, self.name = run, list(rows), soft, hp, name
        self.loaded, self.reporter = run.loaded, run.reporter
        self.opening = shared_opening(rows)
        self.key = fingerprint(run.key, [[r.ids, r.answer, r.kind, r.owner] for r in rows], str(hp))
        self.scope = scope_directions(run, rows, self.opening, hp)
        self.updates = self._fresh()
        self._project()
        self.parameters = [t for u in self.updates for t in (u.a, u.b)]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=hp.lr, weight_decay=hp.weight_decay, betas=(0.9, 0.98), eps=1e-8, foreach=False
        )
        self.seen = _Seen(torch.full((len(rows),), math.inf), torch.zeros(len(rows), dtype=torch.bool))
        self.epoch, self.at, self.step, self.first_loss = 0, 0, 0, 0.0
        self.taken = list(range(len(rows)))
        self.weights = {"edit": hp.edit_weight, "teacher": hp.teacher_weight, "hold": hp.kl_weight}

    def _fresh(self) -> list[LowRankUpdate]:
        """A as PEFT starts it (Kaiming uniform, a = √5: ±1/√inputs), B zero; seeded, so that a run can be repeated."""
        seeded = torch.Generator().manual_seed(self.run_of.job.seed)
        made = []
        for layer in self.hp.layers:
            for module in self.hp.modules:
                outputs, inputs = self.loaded.module(layer, module).weight.shape
                a = (torch.rand(self.hp.rank, inputs, generator=seeded) * 2 - 1) / inputs**0.5
                a, b = a.to(self.loaded.device), torch.zeros(outputs, self.hp.rank, device=self.loaded.device)
                made.append(LowRankUpdate(layer, module, a.requires_grad_(True), b.requires_grad_(True)))
        return made

    @torch.no_grad()
    def _project(self) -> None:
        for u in self.updates:
            basis = self.scope.get(u.key)
            if basis is not None:
                u.a.sub_((u.a @ basis.T) @ basis)

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
            return list(range(len(self.rows)))
        return [i for i in range(len(self.rows)) if not (self.seen.loss[i] < self.hp.enough and self.seen.right[i])]

    def losses(self, packed: Pack, states: Tensor) -> Tensor:
        """Puts each row's loss into `seen` and returns the gradient of the pass's weighted mean with respect to `states` (N × hidden)."""
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

    def _one_step(self, chosen: list[int], lower: Lower, steps: int) -> None:
        packed = pack(self.rows, chosen, self.opening, self.loaded.device)
        out = run_packed(self.loaded, packed, lower.of(packed), min(self.hp.layers), len(self.loaded.layers))
        states = self.loaded.model.model.norm(out[packed.predict])
        gradient = self.losses(packed, states)
        if not torch.isfinite(self.seen.loss[torch.tensor(chosen)]).all() or not torch.isfinite(gradient).all():
            raise _nan(self.hp, self.step)
        self.optimiser.zero_grad()
        states.backward(gradient)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.hp.clip)
        if not torch.isfinite(norm):
            raise _nan(self.hp, self.step)
        self.optimiser.param_groups[0]["lr"] = self._lr(steps)
        self.optimiser.step()
        self._project()
        self.step += 1

    def standing(self) -> dict[str, float]:
        """As last seen: efficacy (share of the edits with every phrasing right), nll, teacher and hold KL, and the share of the answers
        that must stay with all tokens still first. A share or mean of nothing is 1 or 0."""
        by_kind = {k: [i for i, r in enumerate(self.rows) if r.kind == k] for k in ("edit", "teacher", "hold")}

        def mean(values: Tensor, index: list[int], empty: float) -> float:
            return float(values[torch.tensor(index)].float().mean()) if index else empty

        owners: dict[str, bool] = {}
        for i in [*by_kind["edit"], *by_kind["teacher"]]:
            owners[self.rows[i].owner] = owners.get(self.rows[i].owner, True) and bool(self.seen.right[i])
        return {
            "efficacy": round(sum(owners.values()) / len(owners), 4) if owners else 1.0,
            "nll": round(mean(self.seen.loss, by_kind["edit"], 0.0), 4),
            "teacher_kl": round(mean(self.seen.loss, by_kind["teacher"], 0.0), 4),
            "hold_kl": round(mean(self.seen.loss, by_kind["hold"], 0.0), 4),
            "unchanged": round(mean(self.seen.right, by_kind["hold"], 1.0), 4),
        }

    def _reached(self, now: dict[str, float]) -> bool:
        hp = self.hp
        return now["efficacy"] >= hp.stop_efficacy and now["unchanged"] >= hp.stop_unchanged and now["hold_kl"] <= hp.stop_kl

    def run(self) -> tuple[list[LowRankUpdate], dict[str, Any]]:
        """Trains to the end; goes on from the last checkpoint. Raises Fault nan, diverged, cancelled or memory."""
        hp = self.hp
        resumed = self.restore()
        lower = Lower(self.loaded, self.rows, self.opening, min(hp.layers), 2 * hp.step_tokens)
        whole = len(packs(self.rows, range(len(self.rows)), self.opening, hp.step_tokens))
        steps = whole * hp.epochs
        stopped = False
        try:
            with applied(self.loaded, self.updates):
                while self.epoch < hp.epochs and not stopped:
                    stopped = self._one_epoch(lower, steps, whole)
        except Fault as fault:
            if fault.code in ("cancelled", "memory"):
                self.save()
            raise
        self.save()
        now = self.standing()
        self.reporter.progress(self.name, hp.epochs, hp.epochs, **now)
        if not self._reached(now):
            message = (
                f"After {self.epoch} epochs: efficacy {now['efficacy']:.3f}, unchanged {now['unchanged']:.3f}, KL {now['hold_kl']:.4f}"
            )
            self.reporter.note("bounds_not_reached", f"{message}; more epochs, a higher rank or another kl_weight may reach them")
        done = [LowRankUpdate(u.layer, u.module, u.a.detach().cpu(), u.b.detach().cpu()) for u in self.updates]
        return merge([done]), {
            "epochs": self.epoch,
            "steps": self.step,
            "scope_ranks": [b.shape[0] for b in self.scope.values()],
            "resumed": resumed,
            "rows": len(self.rows),
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
                self.name, self.epoch * whole + round(number * whole / len(cut)), whole * hp.epochs, epoch=self.epoch, **shown
            )
            self._one_step(cut[number], lower, steps)
            self.at = number + 1
            if self.step % hp.checkpoint_steps == 0:
                self.save()
        finite = self.seen.loss[torch.isfinite(self.seen.loss)]
        loss = float(finite.mean())
        self.epoch, self.at = self.epoch + 1, 0
        if self.epoch == 1:
            self.first_loss = loss
        elif loss > 1.5 * self.first_loss + 1:
            raise _divergence(hp, f"The loss grew from {self.first_loss:.3g} to {loss:.3g}")
        now = self.standing()
        if hp.kl_weight > 0 and now["hold_kl"] > LOST_NATS and self.epoch >= max(3, hp.epochs // 4):
            raise _divergence(hp, f"What must stay has moved by {now['hold_kl']:.3g} nats a token")
        return self._reached(now)
