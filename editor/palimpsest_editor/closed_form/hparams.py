"""Hyper-parameters of MEMIT, AlphaEdit and PMET: LLaMA-2-7B's as published, equivalents for the Qwen2 models, and what a job overrides.

LLaMA-2-7B: layers 4–8, `mlp.down_proj`, Adam at 0.5, λ 15,000; MEMIT 25 steps, clamp 4, decay 1e-3; PMET 20 steps, clamp 1,
decay 0.5 (EasyEdit's hparams/MEMIT/llama-7b.yaml and hparams/PMET/llama-7b.yaml; PMET's author used λ 6,000 for LLaMA-2,
xpq-tech/PMET issue 5). AlphaEdit has none for LLaMA-2; those of LLaMA-3-8B are taken (hparams/AlphaEdit/llama3-8b.yaml).
A job may give the whole of an EasyEdit file in place of ours (`of_easyedit`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from palimpsest_editor.faults import Fault
from palimpsest_editor.weights.loading import LoadedModel


@dataclass(frozen=True)
class Hparams:
    """`layers` are edited in order, the targets sit at the last. `clamp` bounds ‖δ‖ by that many ‖h‖. `stop` ends an edit's
    optimisation when its mean NLL is below. `mom2_weight` is λ. `contexts` generated prefixes of `context_tokens` beside
    the bare prompt; with `chat` the prompt as a turn of a chat too, and `open_kl` weighs what holds the answer to an open
    question there. `key_contexts`: as many for the keys' means (0: the same ones), of which the bare prompt weighs
    `key_bare_share` (0: as much as any other; MEMIT's code: a half). `hold_chat`: a chat's own tokens are held
    (contexts.chat_keys). `gain`: δ times that, once it is found. `spread` divides the residual left at the i-th of L layers
    by L−i ("linear", MEMIT) or its square root ("sqrt", PMET). `norm_bound`: ‖ΔW‖ of a layer is at most that share of ‖W‖
    (0: no bound). `nullspace_threshold` and `l2` are AlphaEdit's, and so is `nullspace_share`, in the threshold's place unless 0.
    `essence_at`, `kl_of`, `stop_by` and `ease` are targets.py's: ways of the authors' code."""

    layers: tuple[int, ...]
    module: str = "mlp.down_proj"
    steps: int = 25
    lr: float = 0.5
    clamp: float = 4.0
    weight_decay: float = 1e-3
    kl_factor: float = 0.0625
    open_kl: float = 0.0
    nll_factor: float = 1.0
    mom2_weight: float = 15000.0
    stop: float = 0.05
    stop_by: str = "nll"
    essence_at: str = "end"
    kl_of: str = "base"
    ease: bool = False
    contexts: int = 5
    chat: bool = False
    context_tokens: int = 10
    key_contexts: int = 0
    key_bare_share: float = 0.0
    hold_chat: bool = True
    gain: float = 1.0
    spread: str = "linear"
    residual: str = "layer"
    attention_decay: float = 1.0
    norm_bound: float = 0.0
    nullspace_threshold: float = 2e-2
    nullspace_share: float = 0.0
    l2: float = 1.0
    ridge: float = 1e-6
    solve_dtype: str = "float64"
    chunk_edits: int = 32
    batch_edits: int = 1000


LLAMA2_7B = {
    "memit": Hparams(layers=(4, 5, 6, 7, 8)),
    "alphaedit": Hparams(layers=(4, 5, 6, 7, 8), lr=0.1, clamp=0.75, weight_decay=0.5),
    "pmet": Hparams(layers=(4, 5, 6, 7, 8), steps=20, clamp=1.0, weight_decay=0.5, spread="sqrt", residual="mlp"),
}

NULLSPACE_SHARE = 0.8
"""For models other than LLaMA-2: a threshold on eigenvalues says nothing of another model's keys."""

_QWEN2_24 = Hparams(
    layers=(1, 2, 3, 4, 5), steps=30, lr=0.1, clamp=0.75, mom2_weight=2000.0, key_contexts=16, gain=1.1, open_kl=0.4,
    nullspace_share=NULLSPACE_SHARE,
)  # fmt: skip

QWEN2_24 = {
    "memit": _QWEN2_24,
    "alphaedit": _QWEN2_24,
    "pmet": replace(_QWEN2_24, clamp=1.0, weight_decay=0.5, spread="sqrt", residual="mlp"),
}
"""Qwen2(.5) 0.5B: 24 layers, hidden 896. Tuned on records 0–149 of CounterFact's development split, with C from 100,000 tokens of
dictionaries (docs/LOG.md)."""

QWEN2_28 = QWEN2_24
"""Qwen2(.5) 1.5B: 28 layers, hidden 1,536."""

NAMED = {"llama2-7b": LLAMA2_7B, "qwen2-0.5b": QWEN2_24, "qwen2-1.5b": QWEN2_28}


def preset(loaded: LoadedModel, method: str) -> tuple[str, Hparams]:
    """The set that fits a model by its shape: its own where we have one, else LLaMA-2-7B's with layers at the same depth."""
    count = len(loaded.layers)
    if loaded.architecture == "llama" and count == 32:
        return "llama2-7b", LLAMA2_7B[method]
    if loaded.architecture == "qwen2" and count in (24, 28):
        return ("qwen2-0.5b", QWEN2_24[method]) if count == 24 else ("qwen2-1.5b", QWEN2_28[method])
    first = round(4 / 32 * count)
    many = min(5, max(1, count - first - 1))
    scaled = replace(LLAMA2_7B[method], layers=tuple(range(first, first + many)), nullspace_share=NULLSPACE_SHARE)
    return "llama2-7b, layers at the same depth", scaled


Chosen = TypeVar("Chosen", bound=Any)


def overridden(base: Chosen, given: dict[str, Any], loaded: LoadedModel, also: str = "") -> Chosen:
    """`base` (with `layers` among its fields) with a job's overrides. Raises Fault for unknown names and for layers that the
    model has not; `also` names what is known besides."""
    names, count = [f.name for f in fields(base)], len(loaded.layers)
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise Fault("malformed_job", f"Unknown hparams: {', '.join(unknown)}", f"Known are {also}{', '.join(names)}")
    if "layers" in given:
        given = {**given, "layers": tuple(int(n) for n in given["layers"])}
    made = replace(base, **given)
    if not made.layers or min(made.layers) < 0 or max(made.layers) >= count:
        raise Fault("malformed_job", f"hparams.layers {made.layers}", f"Layers of this model are 0 to {count - 1}")
    return made


def hparams(loaded: LoadedModel, method: str, overrides: dict[str, Any]) -> Hparams:
    """The preset (or the one `preset` names) with a job's overrides; unknown names and values out of range are refused."""
    given = dict(overrides)
    named = given.pop("preset", None)
    if named is not None and named not in NAMED:
        raise Fault("malformed_job", f"hparams.preset {named!r}", f"One of {', '.join(NAMED)}")
    base = preset(loaded, method)[1] if named is None else NAMED[named][method]
    if "nullspace_threshold" in given:
        given = {"nullspace_share": 0.0, **given}
    made = overridden(base, given, loaded, "preset, ")
    if not 0 <= made.nullspace_share <= 1:
        raise Fault("malformed_job", f"hparams.nullspace_share {made.nullspace_share}", "A share: 0 (by threshold) to 1")
    if min(made.mom2_weight, made.lr, made.l2, made.nullspace_threshold) <= 0 or made.steps < 1 or made.chunk_edits < 1:
        raise Fault(
            "malformed_job",
            "hparams mom2_weight, lr, l2, nullspace_threshold, steps and chunk_edits must be positive",
            "Leave them out for the preset",
        )
    return made


_EASYEDIT = {
    "layers": "layers",
    "v_num_grad_steps": "steps",
    "v_lr": "lr",
    "v_weight_decay": "weight_decay",
    "clamp_norm_factor": "clamp",
    "kl_factor": "kl_factor",
    "nll_loss_factor": "nll_factor",
    "mom2_update_weight": "mom2_weight",
    "nullspace_threshold": "nullspace_threshold",
    "L2": "l2",
    "batch_size": "batch_edits",
}
"""EasyEdit's names by ours. What it says besides is of its own files, devices and modules."""

_AS_EASYEDIT = {
    "contexts": 5,
    "context_tokens": 10,
    "key_contexts": 0,
    "key_bare_share": 0.5,
    "hold_chat": False,
    "gain": 1.0,
    "chat": False,
    "norm_bound": 0.0,
    "stop": 0.05,
    "stop_by": "loss",
    "essence_at": "subject",
    "kl_of": "edited",
    "open_kl": 0.0,
}
"""What EasyEdit does and has no name for: none of our departures."""


def of_easyedit(given: dict[str, Any], method: str | None) -> dict[str, Any]:
    """Our hyper-parameters of one of EasyEdit's files (MEMIT, PMET or AlphaEdit), which names its method in `alg_name`. Our own
    names beside EasyEdit's win. Raises Fault for another method, and for what is not done here."""
    named = given["alg_name"]
    if str(named).lower() != method:
        raise Fault(
            "malformed_job", f"These hparams are EasyEdit's for {named}, the method is {method}", "Give those of the method"
        )
    fixed = {"fact_token": "subject_last", "layer_selection": "all", "mom2_adjustment": True}
    for name, known in fixed.items():
        if given.get(name, known) != known:
            raise Fault("unsupported", f"hparams.{name} is {given[name]!r}", f"Only {known!r} is done here")
    own = {f.name for f in fields(Hparams)} - set(_EASYEDIT)
    module = str(given.get("rewrite_module_tmp", "model.layers.{}.mlp.down_proj")).removeprefix("model.layers.{}.")
    taken = {ours: given[theirs] for theirs, ours in _EASYEDIT.items() if theirs in given}
    # YAML reads 1e-3 as a text.
    numbers = {name: float(value) if isinstance(value, str) else value for name, value in taken.items()}
    # A switch of PMET's own code alone (targets.py).
    ease = {"ease": True} if method == "pmet" else {}
    return {**_AS_EASYEDIT, **ease, "module": module, **numbers, **{name: given[name] for name in own if name in given}}
