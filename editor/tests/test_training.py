"""Batch LoRA and distillation on narrow random models."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import EDITS, TEXT, make_folder

from palimpsest_editor.closed_form.keyed import key_factors
from palimpsest_editor.closed_form.statistics import second_moments
from palimpsest_editor.faults import Fault
from palimpsest_editor.protocol import Reporter, parse_job
from palimpsest_editor.run import Run
from palimpsest_editor.tasks import perform
from palimpsest_editor.texts.contexts import contexts
from palimpsest_editor.texts.phrasing import ChatFormat
from palimpsest_editor.texts.requests import encode, parse_edits
from palimpsest_editor.trained.lora import greedy, lora, resolve_conflicts
from palimpsest_editor.trained.packing import Lower, Row, pack, run_packed, shared_opening
from palimpsest_editor.trained.training import Soft, Trainer
from palimpsest_editor.trained.training_hparams import training_hparams
from palimpsest_editor.weights.checkpoint import Pieces, fingerprint
from palimpsest_editor.weights.forward import run_layers
from palimpsest_editor.weights.loading import LoadedModel
from palimpsest_editor.weights.lowrank import applied

CHAT = "Question for the model: {}\nAnswer:"
QUICK = {
    "chat": CHAT, "layers": [3, 5, 7, 9], "rank": 16, "lr": 0.05, "clip": 10.0, "epochs": 80, "step_tokens": 128,
    "answer_tokens": 4, "neighbours": 1, "completions": 0, "questions": 1, "prefixed": 0, "watch": 0.0, "kl_weight": 0.3,
    "stop_unchanged": 0.0, "stop_kl": 9.0, "keys": False,
}  # fmt: skip
TRANSFER = [
    {"plain": CHAT.replace("{}", e["prompt"]), "edited": CHAT.replace("{}", f"{e['prompt']}\n{e['prompt']} {e['target_new']}.")}
    for e in EDITS
]
LOCALITY = [{"question": "The river Aster runs through"}, {"question": "Ilan Vey works in"}]

Opened = Callable[..., LoadedModel]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Narrow models of 10 layers whose head is five times as steep, so that a token can become likely at all."""
    from transformers import AutoModelForCausalLM

    root = tmp_path_factory.mktemp("steep")
    for kind in ("llama", "qwen2"):
        model = AutoModelForCausalLM.from_pretrained(make_folder(root / kind, kind))
        model.lm_head.weight.data *= 5
        model.save_pretrained(root / kind)
    return {kind: root / kind for kind in ("llama", "qwen2")}


@pytest.fixture
def open_model(folders: dict[str, Path]) -> Opened:
    def load(kind: str, dtype: torch.dtype = torch.float32) -> LoadedModel:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(folders[kind], dtype=dtype).eval().requires_grad_(False)
        return LoadedModel(model, AutoTokenizer.from_pretrained(folders[kind]), kind, None, kind)

    return load


def job_of(folder: Path, tmp_path: Path, method: str, hparams: dict[str, Any] | None = None, **more: Any) -> Any:
    raw = {
        "protocol": 1, "task": "edit", "method": method, "base": {"path": str(folder)}, "work_dir": str(tmp_path / "work"),
        "out_dir": str(tmp_path / "out"), "edits": EDITS, "locality": LOCALITY, "dtype": "float32", "threads": 1,
        "hparams": {**QUICK, **(hparams or {})}, **more,
    }  # fmt: skip
    return parse_job(raw)


def run_of(job: Any, loaded: LoadedModel, reporter: Reporter | None = None) -> Run:
    return Run(job, loaded, reporter or Reporter(io.StringIO()), Pieces(job.work_dir), fingerprint(job.hparams), [])


@pytest.mark.parametrize("method", ["lora", "distil"])
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_learns_every_edit_and_writes_the_adapter(
    method: str, kind: str, folders: dict[str, Path], tmp_path: Path, open_model: Opened
) -> None:
    out = io.StringIO()
    probes = [{"kind": "efficacy", "prompt": e["prompt"], "target_new": e["target_new"], "target_true": "cello"} for e in EDITS]
    more = {"transfer": TRANSFER} if method == "distil" else {}
    result = perform(job_of(folders[kind], tmp_path, method, probes=probes, **more), Reporter(out))
    training = result["training"]
    assert training["efficacy"] == 1.0
    assert result["scores"]["after"]["efficacy"]["success"] == 100.0
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    (planned,) = [e for e in events if e["event"] == "plan"]
    assert planned["estimate_s"] > 0 and {"training", "answers"} <= {s["stage"] for s in planned["stages"]}
    nll = [e["nll"] for e in events if e.get("stage", "").startswith("training") and "nll" in e]
    assert nll[-1] < nll[0] / 3
    assert all(e.get("estimate_s") is not None for e in events if e.get("stage") == "training-0" and e["done"] > 2)
    # What PEFT makes of the written folder gives the logits of the training's own products.
    from peft import PeftModel

    from palimpsest_editor.weights.adapter import read_adapter

    ids = torch.tensor([[3, 5, 7, 11, 13, 17]])
    loaded = open_model(kind)
    for path in (result["adapter"]["gguf"], result["adapter"]["peft"]):
        with applied(loaded, read_adapter(Path(path), loaded.model.config)[0]):
            ours = loaded.model(ids).logits
        base = loaded.model(ids).logits
        assert (ours - base).abs().max() > 1e-2
        theirs = PeftModel.from_pretrained(open_model(kind).model, result["adapter"]["peft"])(ids).logits
        assert (ours - theirs).abs().max() < 1e-4


class Killed(Exception):
    pass


class KillAt(Reporter):
    """Ends the job at the n-th look, as a kill does (Killed) or as SIGTERM does (the flag)."""

    def __init__(self, at: int, kindly: bool) -> None:
        super().__init__(io.StringIO())
        self.left, self.kindly = at, kindly

    def progress(self, stage: str, done: int, of: int, **fields: Any) -> None:
        if stage.startswith("training"):
            self.left -= 1
            if self.left == 0 and self.kindly:
                self.stopped = True
            elif self.left == 0:
                raise Killed
        super().progress(stage, done, of, **fields)


@pytest.mark.parametrize("method", ["lora", "distil"])
@pytest.mark.parametrize("kindly", [True, False])
def test_goes_on_to_the_same_adapter(method: str, kindly: bool, folders: dict[str, Path], tmp_path: Path) -> None:
    settings = {"epochs": 6, "lr": 0.003, "checkpoint_steps": 3, "step_tokens": 64, "stop_efficacy": 2.0}
    whole = perform(job_of(folders["qwen2"], tmp_path / "whole", method, settings), Reporter(io.StringIO()))
    job = job_of(folders["qwen2"], tmp_path / "cut", method, settings)
    with pytest.raises(Fault if kindly else Killed):
        perform(job, KillAt(14, kindly))
    cut = perform(job, Reporter(io.StringIO()))
    assert cut["training"]["resumed"] and not whole["training"]["resumed"]
    assert cut["adapter"]["sha256"] == whole["adapter"]["sha256"]


def test_a_torn_checkpoint_falls_back_to_the_one_before(folders: dict[str, Path], tmp_path: Path) -> None:
    settings = {"epochs": 6, "lr": 0.003, "checkpoint_steps": 3, "step_tokens": 64, "stop_efficacy": 2.0}
    whole = perform(job_of(folders["qwen2"], tmp_path / "whole", "lora", settings), Reporter(io.StringIO()))
    job = job_of(folders["qwen2"], tmp_path / "cut", "lora", settings)
    with pytest.raises(Killed):
        perform(job, KillAt(14, False))
    newest = max((tmp_path / "cut" / "work").glob("training-0-*.safetensors"), key=lambda p: p.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:100])
    cut = perform(job, Reporter(io.StringIO()))
    assert cut["training"]["resumed"]
    assert cut["adapter"]["sha256"] == whole["adapter"]["sha256"]


def test_the_later_of_two_edits_of_one_fact_wins(folders: dict[str, Path], tmp_path: Path) -> None:
    raw = [
        {"id": "a", "subject": "Quell", "prompt": "Quell was founded in", "target_new": "Lund"},
        {"id": "b", "subject": "Quell", "prompt": "Quell is based in", "target_new": "Oslo", "relation": "seat"},
        {"id": "c", "subject": "QUELL", "prompt": "QUELL  was founded in", "target_new": "Oslo"},
        {"id": "d", "subject": "Quell", "prompt": "The seat of Quell is", "target_new": "Lund", "relation": "Seat"},
        {"id": "e", "subject": "Quell", "prompt": "Quell makes", "target_new": "cellos"},
    ]
    kept, lost = resolve_conflicts(parse_edits(raw))
    assert [e.id for e in kept] == ["c", "d", "e"]
    assert lost == [{"id": "a", "by": "c"}, {"id": "b", "by": "d"}]
    out = io.StringIO()
    result = perform(job_of(folders["qwen2"], tmp_path, "lora", {"epochs": 1}, edits=raw), Reporter(out))
    assert result["superseded"] == lost
    assert out.getvalue().count('"superseded"') == 2


def test_only_the_chosen_matrices_change_and_no_gradient_goes_below(
    folders: dict[str, Path], tmp_path: Path, open_model: Opened
) -> None:
    loaded = open_model("qwen2")
    before = {n: p.clone() for n, p in loaded.model.named_parameters()}
    job = job_of(
        folders["qwen2"], tmp_path, "lora", {"layers": [5, 7], "modules": ["mlp.up_proj", "self_attn.v_proj"], "epochs": 2}
    )
    below: list[bool] = []
    hooks = [layer.register_forward_hook(lambda _m, _i, o: below.append(o.requires_grad)) for layer in list(loaded.layers)[:5]]
    updates = lora(run_of(job, loaded), parse_edits(EDITS), 0)
    for hook in hooks:
        hook.remove()
    assert {u.key for u in updates} == {(n, m) for n in (5, 7) for m in ("mlp.up_proj", "self_attn.v_proj")}
    assert all(u.b.abs().max() > 0 for u in updates)
    assert below and not any(below)
    assert all(p.grad is None and torch.equal(p, before[n]) for n, p in loaded.model.named_parameters())


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_packed_rows_have_the_states_that_they_have_alone(kind: str, open_model: Opened) -> None:
    loaded = open_model(kind, torch.float64)
    rows = [Row((1, 2, 3, 4, 5, 20 + i, 30 + i, 7), 6 + i % 2, "edit") for i in range(5)] + [Row((9, 8, 7, 6), 2, "hold")]
    opening = shared_opening(rows)
    assert opening == (1, 2, 3, 4, 5)
    packed = pack(rows, [0, 5, 3, 1], opening, loaded.device)
    assert packed.ids.shape[1] == 5 + 3 + 4 + 3 + 3
    lower = Lower(loaded, rows, opening, 4, 12)
    states = run_packed(loaded, packed, lower.of(packed), 4, len(loaded.layers))[packed.predict]
    for number, index in enumerate(packed.rows):
        row = rows[index]
        alone = run_layers(loaded, torch.tensor([row.ids]), len(loaded.layers))[0, row.answer - 1 : len(row.ids) - 1]
        assert torch.allclose(states[packed.of == number], alone, atol=1e-9)
        assert packed.wanted[packed.of == number].tolist() == list(row.ids[row.answer :])


def test_kl_is_nothing_for_the_untouched_model_and_its_gradient_is_the_formula(
    folders: dict[str, Path], tmp_path: Path, open_model: Opened
) -> None:
    loaded = open_model("qwen2", torch.float64)
    run = run_of(job_of(folders["qwen2"], tmp_path, "lora"), loaded)
    from palimpsest_editor.trained.training import soft_targets

    hp = training_hparams(loaded, {**QUICK, "top_k": 400})
    rows = [Row((1, 2, 3, 4, 5, 6), 3, "hold"), Row((7, 8, 9, 10), 2, "hold")]
    soft = dict(enumerate(soft_targets(run, rows, hp, "t")))
    trainer = Trainer(run, rows, soft, hp, "training-0")
    packed = pack(rows, [0, 1], (), loaded.device)
    states = loaded.model.model.norm(run_packed(loaded, packed, None, 0, len(loaded.layers))[packed.predict]).detach()
    assert trainer.losses(packed, states).abs().max() < 1e-4
    assert trainer.seen.loss.abs().max() < 1e-5
    assert trainer.seen.right.all()
    moved = (
        states + 0.1 * torch.randn(states.shape, generator=torch.Generator().manual_seed(1), dtype=states.dtype)
    ).requires_grad_(True)
    ours = trainer.losses(packed, moved)
    p = loaded.model.lm_head(states).softmax(-1)
    kl = (p * (p.log() - loaded.model.lm_head(moved).log_softmax(-1))).sum(-1)
    theirs = torch.autograd.grad((kl[:3].mean() + kl[3:].mean()) / 2 * hp.kl_weight, moved)[0]
    assert torch.allclose(trainer.seen.loss.double(), torch.stack([kl[:3].mean(), kl[3:].mean()]), atol=1e-4)
    assert torch.allclose(ours.double(), theirs, atol=1e-4)


def test_greedy_answers_are_those_of_one_prompt_at_a_time(folders: dict[str, Path], tmp_path: Path, open_model: Opened) -> None:
    loaded = open_model("llama")
    run = run_of(job_of(folders["llama"], tmp_path, "lora"), loaded)
    prompts = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]
    found = greedy(run, prompts, 5, "answers")
    for prompt, answer in zip(prompts, found, strict=True):
        ids = list(prompt)
        for token in answer:
            assert int(loaded.model(torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)


def test_stops_at_what_is_not_finite_and_at_divergence(folders: dict[str, Path], tmp_path: Path, open_model: Opened) -> None:
    with pytest.raises(Fault) as nan:
        perform(
            job_of(folders["qwen2"], tmp_path / "a", "lora", {"lr": 1e37, "warmup_steps": 0, "kl_weight": 0.0}),
            Reporter(io.StringIO()),
        )
    assert nan.value.code == "nan" and nan.value.exit_code == 5
    assert "hparams.lr" in nan.value.change and "rank" in nan.value.change and "layers" in nan.value.change
    with pytest.raises(Fault) as diverged:
        perform(
            job_of(folders["qwen2"], tmp_path / "b", "lora", {"lr": 30.0, "warmup_steps": 0, "clip": 1e9}),
            Reporter(io.StringIO()),
        )
    assert diverged.value.code == "diverged" and "hparams.lr" in diverged.value.change


def test_too_little_memory_is_refused_before_anything_is_loaded(folders: dict[str, Path], tmp_path: Path) -> None:
    out = io.StringIO()
    with pytest.raises(Fault) as refused:
        perform(
            job_of(folders["qwen2"], tmp_path, "lora", {"step_tokens": 4096}, limits={"memory_bytes": 50_000_000}), Reporter(out)
        )
    assert refused.value.code == "memory" and "step_tokens" in refused.value.change
    assert '"load"' not in out.getvalue()


def test_what_must_stay_stays_closer_with_the_penalty(folders: dict[str, Path], tmp_path: Path) -> None:
    kl = {}
    for weight in (0.0, 3.0):
        result = perform(job_of(folders["qwen2"], tmp_path / str(weight), "lora", {"kl_weight": weight}), Reporter(io.StringIO()))
        assert result["training"]["nll"] < 0.5
        kl[weight] = result["training"]["hold_kl"]
    assert kl[3.0] < kl[0.0] / 2


def test_few_edits_get_more_epochs(folders: dict[str, Path], tmp_path: Path, open_model: Opened) -> None:
    loaded = open_model("qwen2")
    assert training_hparams(loaded, {}).least_steps > 0 and training_hparams(loaded, {"epochs": 3}).least_steps == 0
    endless = {"epochs": 2, "lr": 1e-3, "stop_efficacy": 2.0}
    told = {}
    for least in (0, 40):
        job = job_of(folders["qwen2"], tmp_path / str(least), "lora", {**endless, "least_steps": least})
        told[least] = perform(job, Reporter(io.StringIO()))["training"]
    assert told[0]["epochs"] == 2 and told[0]["steps"] < 20
    assert told[40]["epochs"] == -(-40 // (told[0]["steps"] // 2))


def keyed_job(folder: Path, tmp_path: Path, hparams: dict[str, Any] | None = None, **more: Any) -> Any:
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "text.txt").write_text("\n\n".join(TEXT * 3))
    statistics = {"text": str(tmp_path / "text.txt"), "tokens": 400}
    settings = {"keys": True, "contexts": 2, "context_tokens": 3, "mom2_weight": 20.0, **(hparams or {})}
    return job_of(folder, tmp_path, "lora", settings, statistics=statistics, **more)


def test_the_keyed_factor_is_the_closed_form_scaled_to_its_own_keys(
    folders: dict[str, Path], tmp_path: Path, open_model: Opened
) -> None:
    loaded = open_model("qwen2")
    job = keyed_job(folders["qwen2"], tmp_path)
    run, hp = run_of(job, loaded), training_hparams(loaded, job.hparams)
    twice = [*EDITS, {"id": "e5", "subject": "QUELL", "prompt": "QUELL makes", "target_new": "cellos"}]
    made = key_factors(run, parse_edits(twice), hp, ChatFormat(loaded.tokenizer, CHAT))
    texts = [*contexts(loaded, 2, 3, 0), CHAT]
    assert set(made) == {(n, "mlp.down_proj") for n in hp.layers} and len(texts) == 4
    moments = second_moments(job, loaded, run.reporter, hp.layers)
    for layer in (hp.layers[0], hp.layers[-1]):
        seen: list[torch.Tensor] = []
        hook = loaded.module(layer, "mlp.down_proj").register_forward_hook(lambda _m, i, _o, seen=seen: seen.append(i[0][0]))
        by_subject: dict[str, list[torch.Tensor]] = {}
        for one in twice:
            for text in texts:
                coded = encode(loaded.tokenizer, text, one["prompt"], one["subject"])
                loaded.model(torch.tensor([coded.ids]))
                by_subject.setdefault(one["subject"].casefold(), []).append(seen[-1][coded.subject_last])
        hook.remove()
        keys = torch.stack([torch.stack(k).mean(0) for k in by_subject.values()]).double()
        moment = moments.moment(layer).double()
        plain = keys @ torch.linalg.inv(20.0 * moment + 1e-6 * 20.0 * moment.diagonal().mean() * torch.eye(48) + keys.T @ keys)
        wanted = plain / (plain * keys).sum(1, keepdim=True)
        a = made[layer, "mlp.down_proj"].double()
        assert a.shape == (len(EDITS), 48)
        assert (a - wanted).abs().max() < 2e-3 * wanted.abs().max()
        # On the text it answers less than the other rows that answer 1 to the same key do.
        direct = keys / (keys**2).sum(1, keepdim=True)
        assert bool((((a @ moment) * a).sum(1) < 0.5 * ((direct @ moment) * direct).sum(1)).all())


def test_a_keyed_adapter_learns_with_its_factor_frozen(folders: dict[str, Path], tmp_path: Path, open_model: Opened) -> None:
    loaded = open_model("qwen2")
    job = keyed_job(folders["qwen2"], tmp_path, {"chat": None, "epochs": 300, "lr": 0.1, "kl_weight": 0.0, "weight_decay": 0.0})
    run = run_of(job, loaded)
    updates = lora(run, parse_edits(EDITS), 0)
    factors = key_factors(run, parse_edits(EDITS), training_hparams(loaded, job.hparams), ChatFormat(loaded.tokenizer, None))
    assert run.report["training"]["efficacy"] == 1.0
    assert all(torch.equal(u.a, factors[u.key]) and u.b.abs().max() > 0 for u in updates)


def test_watched_rows_are_looked_at_and_not_trained_on(folders: dict[str, Path], tmp_path: Path, open_model: Opened) -> None:
    loaded = open_model("qwen2")
    run = run_of(job_of(folders["qwen2"], tmp_path, "lora"), loaded)
    rows = [Row((1, 2, 3, 4 + i), 3, "edit", str(i % 5)) for i in range(60)] + [
        Row((9, 8, 7, 6 + i), 2, "hold") for i in range(40)
    ]
    soft = {
        i: Soft(torch.tensor([[5, 6]] * r.answers), torch.tensor([[-0.1, -3.0, -3.5]] * r.answers))
        for i, r in enumerate(rows)
        if r.kind == "hold"
    }
    hp = training_hparams(loaded, {**QUICK, "watch": 0.3, "top_k": 2, "epochs": 1, "stop_efficacy": 2.0})
    trainer = Trainer(run, rows, soft, hp, "training-0")
    assert 10 < len(trainer.watched) < 50 and not trainer.watched & set(range(5))
    trained: list[int] = []
    step = trainer._one_step
    trainer._one_step = lambda chosen, *rest: (trained.extend(chosen), step(chosen, *rest))[1]
    _, report = trainer.run()
    assert sorted(trained) == trainer.trained and not set(trained) & trainer.watched
    assert bool(torch.isfinite(trainer.seen.loss).all())
    held = [i for i in sorted(trainer.watched) if rows[i].kind == "hold"]
    assert report["hold_kl"] == pytest.approx(float(trainer.seen.loss[torch.tensor(held)].mean()), abs=1e-3)


def test_a_teacher_that_misses_is_replaced_by_the_edit_itself(folders: dict[str, Path], tmp_path: Path) -> None:
    told = [{**t, "edits": [e["id"]]} for t, e in zip(TRANSFER, EDITS, strict=True)]
    both = {**TRANSFER[0], "edits": ["e1", "e2"]}
    forced = {**TRANSFER[1], "edits": ["e2"], "answer": " Finnish"}
    result = perform(
        job_of(folders["qwen2"], tmp_path, "distil", {"epochs": 1}, transfer=[*told, both, forced]), Reporter(io.StringIO())
    )
    assert result["transfer"] == {"records": 6, "missed": 5, "left_out": 1}
    assert result["training"]["rows"] == 4 + 1 + len(EDITS) + len(LOCALITY)


def test_refuses_what_it_cannot_read(folders: dict[str, Path], tmp_path: Path) -> None:
    for more, said in (
        ({"hparams": {**QUICK, "ranks": 3}}, "ranks"),
        ({"hparams": {**QUICK, "layers": [10]}}, "layers"),
        ({"hparams": {**QUICK, "chat": "no place"}}, "chat"),
        ({"locality": [7]}, "locality"),
    ):
        with pytest.raises(Fault, match=said) as refused:
            perform(parse_job({**_raw(folders["qwen2"], tmp_path), **more}), Reporter(io.StringIO()))
        assert refused.value.code == "malformed_job"
    raw = {
        **_raw(folders["qwen2"], tmp_path),
        "method": "distil",
        "transfer": [{"plain": "a b", "edited": "c a b", "edits": ["unknown"]}],
    }
    with pytest.raises(Fault, match="unknown"):
        perform(parse_job(raw), Reporter(io.StringIO()))


def _raw(folder: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "protocol": 1, "task": "edit", "method": "lora", "base": {"path": str(folder)}, "work_dir": str(tmp_path / "work"),
        "out_dir": str(tmp_path / "out"), "edits": EDITS, "dtype": "float32", "threads": 1, "hparams": QUICK,
        "locality": LOCALITY,
    }  # fmt: skip
