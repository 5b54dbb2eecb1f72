"""Hyper-parameters of the trained methods, the memory that a step takes, and how long a training will take."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from palimpsest_editor.closed_form.hparams import overridden
from palimpsest_editor.closed_form.statistics import cached
from palimpsest_editor.estimate import statistics_seconds, tokens_a_second
from palimpsest_editor.faults import Fault
from palimpsest_editor.protocol import Base, Job
from palimpsest_editor.weights.loading import LoadedModel, choose_dtype, free_bytes, memory_to_load_bytes


@dataclass(frozen=True)
class TrainingHparams:
    """`layers` × `modules` are adapted. With `keys` A is made from the subjects' keys and frozen (keyed.py: `mom2_weight` is λ,
    `contexts` prefixes of `context_tokens` beside the bare prompt and the chat format) and the rank is the number of subjects;
    without, A is trained too, at `rank` (`unkeyed` has what else differs). `weight_decay` keeps a keyed B short. An epoch takes
    `step_tokens` tokens a step. `kl_weight` weighs what must stay (edit scope), `teacher_weight` the teacher, `edit_weight` the
    targets' own tokens. Training ends after an epoch in which `stop_efficacy` of the edits have every token of every phrasing
    first, `stop_watched` of the phrasings not trained on too, the answers that must stay keep `stop_unchanged` of their rows
    and their KL is below `stop_kl`; or after `epochs`, more where they are fewer than `least_steps` steps: a few edits fill few
    passes (0 where a job gives `epochs`). `watch`: share of the rows that is not trained on but looked at for the
    stop. `completions`, `questions` and `prefixed`: phrasings an edit beside its bare prompt (prefix sentences before it; chat
    questions; chat questions after a prefix sentence); `neighbours`: prompts about other subjects an edit; `answer_tokens`: how
    much of an answer is trained on; `top_k`: of a stored distribution; `chat`: chat format with `{}` (default: the
    tokenizer's). `keep_misses`: also learn where the teacher missed."""

    layers: tuple[int, ...]
    modules: tuple[str, ...] = ("mlp.down_proj",)
    keys: bool = True
    mom2_weight: float = 2000.0
    contexts: int = 5
    context_tokens: int = 10
    rank: int = 16
    lr: float = 1e-2
    weight_decay: float = 3.0
    epochs: int = 8
    least_steps: int = 180
    warmup_steps: int = 10
    step_tokens: int = 512
    clip: float = 1.0
    edit_weight: float = 1.0
    teacher_weight: float = 1.0
    kl_weight: float = 6.0
    watch: float = 0.15
    stop_efficacy: float = 0.9
    stop_watched: float = 0.8
    stop_unchanged: float = 0.0
    stop_kl: float = 0.02
    enough: float = 0.02
    completions: int = 4
    questions: int = 2
    prefixed: int = 1
    neighbours: int = 5
    answer_tokens: int = 16
    top_k: int = 32
    checkpoint_steps: int = 20
    chat: str | None = None
    keep_misses: bool = False


UNKEYED_LR = 1e-3
"""Where A is trained too. The rate of a keyed B, 1e-2, moved what must stay by 2 nats a token before seven rules were learnt
(docs/LOG.md)."""


def unkeyed(count: int) -> dict[str, Any]:
    """What a training without keys has where a job does not say: every layer, since manners have no early place as facts do; and
    no decay, which would wear A away."""
    return {"keys": False, "lr": UNKEYED_LR, "layers": tuple(range(count)), "weight_decay": 0.0}


def default_layers(count: int) -> tuple[int, ...]:
    """Early ones: there the keys of two subjects are least alike, and those of one subject most alike in different texts
    (docs/LOG.md)."""
    return tuple(range(1, 1 + max(1, count // 8))) if count > 1 else (0,)


def training_hparams(loaded: LoadedModel, overrides: dict[str, Any], **defaults: Any) -> TrainingHparams:
    """Defaults for this depth with a job's overrides; unknown names and values out of range are refused."""
    count = len(loaded.layers)
    made = TrainingHparams(layers=default_layers(count), **defaults)
    given = {k: v for k, v in overrides.items() if k != "batch_edits"}
    if "modules" in given:
        given["modules"] = tuple(given["modules"])
    if not given.get("keys", made.keys):
        given = {**unkeyed(count), **given}
    if "epochs" in given:
        given.setdefault("least_steps", 0)
    made = overridden(made, given, loaded)
    if min(made.rank, made.epochs, made.step_tokens, made.answer_tokens, made.top_k, made.checkpoint_steps) < 1 or made.lr <= 0:
        raise Fault(
            "malformed_job",
            "hparams rank, epochs, step_tokens, answer_tokens, top_k, checkpoint_steps and lr must be positive",
            "Leave them out for the default",
        )
    if made.keys and made.modules != ("mlp.down_proj",):
        raise Fault(
            "malformed_job", f"hparams.modules {made.modules} with keys", 'Keys are those of "mlp.down_proj"; or give keys false'
        )
    return made


def training_bytes(hidden: int, inner: int, layers: int, vocabulary: int, edits: int, hp: dict[str, Any], itemsize: int) -> int:
    """About what a step takes beside the model: the states that the backward pass needs (hidden × 16 and inner × 6 a token and
    layer above the lowest adapted one), the head's logits 256 rows at a time (float32, about four at once), and adapter,
    gradient and AdamW's two moments.
    """
    chosen = hp.get("layers") or default_layers(layers)
    tokens, rank = int(hp.get("step_tokens", 512)) + 64, edits if hp.get("keys", True) else int(hp.get("rank", 16))
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
    """Raises Fault("memory") before anything is loaded, where model and training together exceed limits.memory_bytes or what is
    free."""
    if not job.base.path.exists():
        return
    kind = choose_dtype(job.dtype, job.device)
    model = memory_to_load_bytes(job.base, kind, True)
    step = training_bytes(*_shape(job.base), len(job.edits), job.hparams, kind.itemsize)
    bound = min(x for x in (job.memory_bytes, free_bytes() or None, 1 << 62) if x is not None)
    if not job.device.startswith("cuda") and model + step > bound:
        less = max(128, int(job.hparams.get("step_tokens", 512)) // 2)
        raise Fault(
            "memory",
            f"Training takes about {(model + step) / 1e9:.1f} GB ({model / 1e9:.1f} the model, {step / 1e9:.1f} a step); "
            f"{bound / 1e9:.1f} GB may be used",
            f"Raise limits.memory_bytes, lower hparams.step_tokens to {less}, adapt higher layers, or give dtype bfloat16",
        )


def plan(job: Job, loaded: LoadedModel) -> dict[str, Any]:
    """Fields of the plan event: seconds by stage, at most (training may stop early; settled rows sit out). Counts phrasings of
    about 14 tokens, chat answers of `answer_tokens`, and a step with gradients as 2.2 passes through the layers above the
    lowest adapted one."""
    hp, speed = training_hparams(loaded, job.hparams), tokens_a_second(loaded)
    edits = len(job.edits)
    positives = edits * ((1 + hp.completions) * 14 + (hp.questions + hp.prefixed) * (18 + hp.answer_tokens))
    held = (len(job.locality) or edits * hp.neighbours / 2 + 24) * (18 + hp.answer_tokens) + edits * (hp.neighbours / 2 + 1) * 14
    epochs = max(hp.epochs, hp.least_steps / max(1.0, (positives + held) / hp.step_tokens))
    upper = 1 - min(hp.layers) / len(loaded.layers)
    stages = {
        "score": 2 * 2 * len(job.probes) * 14 * 1.3 / speed,
        "answers": 3 * held / speed,
        "distributions": 1.5 * (held + (3 * positives if job.method == "distil" else 0)) / speed,
        "training": epochs * (positives + held) * (2.2 * upper + 0.6) / speed,
    }
    if hp.keys and all(e.get("subject") for e in job.edits if isinstance(e, dict)):
        many = len(hp.layers)
        seconds = (
            0.0
            if cached(job, loaded, hp.layers)
            else statistics_seconds(job, loaded, many, (max(hp.layers) + 1) / len(loaded.layers), speed)
        )
        stages["keys"] = seconds + edits * (hp.contexts + 2) * 14 * 0.5 / speed + many * (loaded.inner / 4864) ** 3
    listed = [{"stage": name, "estimate_s": round(seconds, 1)} for name, seconds in stages.items()]
    return {"estimate_s": round(sum(stages.values()), 1), "tokens_per_second": round(speed), "stages": listed}
