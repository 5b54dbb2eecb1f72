"""Each formula against a plain float64 reference that takes no short cut."""

from __future__ import annotations

import pytest
import torch
from conftest import EDITS, TEXT, make_tokenizer
from tokenizers import processors

from palimpsest_editor.closed_form.alphaedit import null_space, projected_factor
from palimpsest_editor.closed_form.hparams import hparams, of_easyedit
from palimpsest_editor.closed_form.least_squares import factor
from palimpsest_editor.closed_form.memit import bounded
from palimpsest_editor.faults import Fault
from palimpsest_editor.texts.contexts import chat_keys
from palimpsest_editor.texts.phrasing import NEUTRAL, ChatFormat
from palimpsest_editor.texts.requests import encode, inert, parse_edits
from palimpsest_editor.weights.forward import inputs_and_outputs, keys_at_subjects, record, resume, run_layers

CONTEXTS = ["{}", "The report. {}", "In the north of Oslo. {}"]
CODED = [(c, e) for e in parse_edits(EDITS) for c in CONTEXTS]


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_resume_is_the_whole_forward(open_model, kind):
    loaded = open_model(kind, torch.float64)
    for norm in (m for m in loaded.model.modules() if type(m).__name__.endswith("RMSNorm")):
        # transformers' own computes in float32: what differs by 1e-16 before it may differ by 1e-7 behind it.
        norm.forward = lambda x, m=norm: m.weight * x * (x.square().mean(-1, keepdim=True) + m.variance_epsilon).rsqrt()
    coded = [encode(loaded.tokenizer, c, e.prompt, e.subject, e.target_new) for c, e in CODED]
    delta = torch.randn(len(coded), loaded.hidden, dtype=torch.float64)
    got = resume(loaded, record(loaded, coded, 3), {"mlp": delta})
    for row, one in enumerate(coded):

        def add(_m, _i, out, one=one, row=row):
            out = out.clone()
            out[:, one.subject_last] += delta[row]
            return out

        hook = loaded.layers[3].mlp.register_forward_hook(add)
        whole = loaded.model.model(torch.tensor([one.ids])).last_hidden_state[0]
        hook.remove()
        after = len(one.ids) - one.subject_last
        torch.testing.assert_close(got[row, :after], whole[one.subject_last :], rtol=1e-8, atol=1e-8)


def test_factor_is_the_least_squares_update():
    torch.manual_seed(1)
    keys, c = torch.randn(5, 40, dtype=torch.float64), torch.randn(200, 40, dtype=torch.float64)
    moment, residual, weight = c.T @ c / 200, torch.randn(12, 5, dtype=torch.float64), 7.0
    a = factor(keys, moment, weight, ridge=0.0)
    want = residual @ keys @ torch.linalg.inv(weight * moment + keys.T @ keys)
    torch.testing.assert_close(residual @ a.double(), want, rtol=1e-5, atol=1e-6)
    assert a.shape == (5, 40)
    # The gradient of λ tr(ΔW C ΔWᵀ) + ‖R − ΔW K‖² vanishes there.
    gradient = weight * want @ moment - (residual - want @ keys.T) @ keys
    assert gradient.abs().max() < 1e-9
    single = factor(keys.float(), moment.float(), weight, ridge=0.0, dtype=torch.float32)
    torch.testing.assert_close(single, a, rtol=1e-3, atol=1e-4)


def _space(inputs: int = 40, seen: int = 25) -> tuple[torch.Tensor, torch.Tensor]:
    """C of keys that lie in `seen` directions but for a little, and the basis of the rest."""
    torch.manual_seed(1)
    directions = torch.linalg.qr(torch.randn(inputs, inputs, dtype=torch.float64))[0][:seen]
    c = torch.randn(400, seen, dtype=torch.float64) @ directions + 0.01 * torch.randn(400, inputs, dtype=torch.float64)
    return directions, null_space(c.T @ c / 400, 2e-2)


def test_alphaedit_is_the_papers_update():
    _, basis = _space()
    keys, former = (torch.randn(n, 40, dtype=torch.float64) for n in (5, 7))
    residual = torch.randn(12, 5, dtype=torch.float64)
    p, l2 = basis.T @ basis, 3.0
    k, kp = keys.T, former.T
    want = residual @ k.T @ p @ torch.linalg.inv(kp @ kp.T @ p + k @ k.T @ p + l2 * torch.eye(40, dtype=torch.float64))
    got = residual @ projected_factor(keys, basis, l2, former).double()
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    alone = residual @ k.T @ p @ torch.linalg.inv(k @ k.T @ p + l2 * torch.eye(40, dtype=torch.float64))
    torch.testing.assert_close(residual @ projected_factor(keys, basis, l2).double(), alone, rtol=1e-4, atol=1e-5)
    # What the new edits do to the keys of former ones is less where these are kept.
    assert (got @ kp).norm() < 0.5 * (alone @ kp).norm()


def test_alphaedit_leaves_alone_what_the_text_has_keys_for():
    directions, basis = _space()
    assert basis.shape == (15, 40)
    keys = torch.randn(5, 40, dtype=torch.float64)
    a = projected_factor(keys, basis, 1e-3).double()
    torch.testing.assert_close(a @ keys.T, torch.eye(5, dtype=torch.float64), rtol=0.02, atol=0.02)
    seen = torch.randn(30, len(directions), dtype=torch.float64) @ directions
    plain = torch.linalg.pinv(keys).T
    assert (a @ seen.T).norm() < 0.01 * (plain @ seen.T).norm()


def test_the_null_space_is_a_share_of_the_directions_where_one_is_given():
    """The smallest first, however large they are."""
    basis = null_space(torch.diag(torch.tensor([50.0, 1e-3, 7.0, 3.0, 900.0])), 2e-2, share=0.6)
    assert basis.abs().argmax(1).tolist() == [1, 3, 2]


def test_a_threshold_of_ones_own_goes_before_a_presets_share(open_model):
    given = {"preset": "qwen2-0.5b", "layers": [1]}
    assert hparams(open_model("qwen2"), "alphaedit", given).nullspace_share > 0
    assert hparams(open_model("qwen2"), "alphaedit", {**given, "nullspace_threshold": 0.1}).nullspace_share == 0


def test_a_null_space_that_is_empty_is_refused():
    with pytest.raises(Fault, match="smallest is 1"):
        null_space(torch.eye(4), 2e-2)


def test_an_update_is_shortened_to_its_bound():
    torch.manual_seed(1)
    a, b = torch.randn(3, 40), torch.randn(12, 3)
    norm = float((b @ a).norm())
    assert float((bounded(a, b, norm / 2) @ a).norm()) == pytest.approx(norm / 2, rel=1e-4)
    torch.testing.assert_close(bounded(a, b, 2 * norm), b)


def test_easyedits_own_hyper_parameters_are_read():
    said = {
        "alg_name": "AlphaEdit", "model_name": "./hugging_cache/llama-3-8b", "layers": [4, 5], "clamp_norm_factor": 0.75,
        "layer_selection": "all", "fact_token": "subject_last", "v_num_grad_steps": 25, "v_lr": "1e-1", "v_weight_decay": 0.5,
        "kl_factor": 0.0625, "mom2_adjustment": True, "mom2_update_weight": 15000, "nullspace_threshold": "2e-2", "L2": 10,
        "rewrite_module_tmp": "model.layers.{}.mlp.down_proj", "batch_size": 7, "contexts": 2,
    }  # fmt: skip
    read = of_easyedit(said, "alphaedit")
    assert read == {
        "layers": [4, 5], "clamp": 0.75, "steps": 25, "lr": 0.1, "weight_decay": 0.5, "kl_factor": 0.0625, "mom2_weight": 15000,
        "nullspace_threshold": 0.02, "l2": 10, "module": "mlp.down_proj", "batch_edits": 7, "contexts": 2, "context_tokens": 10,
        "key_contexts": 0, "key_bare_share": 0.5, "hold_chat": False, "gain": 1.0, "chat": False,
        "norm_bound": 0.0, "stop": 0.05, "stop_by": "loss", "essence_at": "subject", "kl_of": "edited", "open_kl": 0.0,
    }  # fmt: skip
    assert "ease" not in read and of_easyedit({**said, "alg_name": "PMET"}, "pmet")["ease"] is True
    with pytest.raises(Fault, match="EasyEdit's for AlphaEdit, the method is memit"):
        of_easyedit(said, "memit")
    with pytest.raises(Fault, match="fact_token"):
        of_easyedit({**said, "fact_token": "last"}, "alphaedit")


def test_held_keys_are_answered_less():
    torch.manual_seed(1)
    keys, c, held = (torch.randn(n, 40, dtype=torch.float64) for n in (5, 200, 7))
    moment = c.T @ c / 200
    a = factor(keys, moment, 7.0, ridge=0.0, held=held)
    want = keys @ torch.linalg.inv(7 * moment + held.T @ held + keys.T @ keys)
    torch.testing.assert_close(a.double(), want, rtol=1e-5, atol=1e-6)
    free = factor(keys, moment, 7.0, ridge=0.0)
    assert (a.double() @ held.T).norm() < 0.5 * (free.double() @ held.T).norm()


def test_chat_keys_are_those_of_every_token_of_the_conversations(open_model):
    loaded = open_model("qwen2")
    assert chat_keys(loaded, [1], "mlp.down_proj") == {}
    loaded.tokenizer.chat_template = "{% for m in messages %}<end>{{ m.role }}: {{ m.content }}{% endfor %}<end>assistant:"
    found = chat_keys(loaded, [1, 2], "mlp.down_proj")
    turns = [{"role": "user", "content": NEUTRAL[0]}]
    text = loaded.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = loaded.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with inputs_and_outputs(loaded, [2], "mlp.down_proj") as seen:
        run_layers(loaded, ids, 3)
    torch.testing.assert_close(found[2][: ids.shape[1]], seen[2][0][0], rtol=1e-4, atol=1e-5)
    assert found[1].shape == found[2].shape and len(found[1]) > 20 * ids.shape[1]


def test_a_template_that_refuses_a_system_prompt_is_held_without_one(open_model):
    loaded = open_model("llama")
    text = "{% for m in messages %}<end>{{ m.role }}: {{ m.content }}{% endfor %}<end>assistant:"
    loaded.tokenizer.chat_template = text
    every = len(chat_keys(loaded, [1], "mlp.down_proj")[1])
    loaded.tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('Only user and assistant') }}{% endif %}" + text
    )
    assert every / 5 < len(chat_keys(loaded, [1], "mlp.down_proj")[1]) < every / 2


def test_a_chat_has_one_first_token_and_no_marker_of_a_question():
    tokenizer = make_tokenizer()
    single = processors.TemplateProcessing(single="<end> $A", special_tokens=[("<end>", 0)])
    tokenizer.backend_tokenizer.post_processor = single
    chat = ChatFormat(tokenizer, "<end>user: {}<end>assistant:")
    for question in ("Where is Oslo?", "Where is <end> Oslo?"):
        ids = chat.ask(question)
        assert ids[0] == 0 and ids[1] != 0 and ids.count(0) == 2
        assert tokenizer.decode(ids) == f"<end>user: {question}<end>assistant:"
    assert chat.bare("A <end>").count(0) == 1
    assert inert(tokenizer, "A <end>").count(0) == 0


def test_factor_with_fewer_tokens_than_inputs():
    torch.manual_seed(1)
    few = torch.randn(10, 40)
    a = factor(torch.randn(3, 40), few.T @ few / 10, 100.0)
    assert torch.isfinite(a).all()


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_keys_are_what_enters_the_matrix(open_model, kind):
    loaded = open_model(kind, torch.float64)
    coded = [encode(loaded.tokenizer, c, e.prompt, e.subject) for c, e in CODED]
    keys, leaving = keys_at_subjects(loaded, coded, [2, 4], "mlp.down_proj", rows=5)
    for row, one in enumerate(coded):
        with inputs_and_outputs(loaded, [2, 4], "mlp.down_proj") as seen:
            states = loaded.model.model(torch.tensor([one.ids]), output_hidden_states=True).hidden_states
        for layer in (2, 4):
            torch.testing.assert_close(keys[layer][row].double(), seen[layer][0][0, one.subject_last], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(leaving["layer"][row].double(), states[5][0, one.subject_last], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(leaving["mlp"][row].double(), seen[4][1][0, one.subject_last], rtol=1e-5, atol=1e-5)


def test_second_moments_are_the_mean_outer_product(open_model, reporter, tmp_path):
    from palimpsest_editor.closed_form.statistics import second_moments
    from palimpsest_editor.protocol import parse_job

    loaded = open_model("qwen2", torch.float64)
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(TEXT))
    job = parse_job(
        {
            "protocol": 1,
            "task": "statistics",
            "base": {"path": "x"},
            "work_dir": str(tmp_path),
            "out_dir": str(tmp_path),
            "statistics": {"text": str(text)},
        }
    )
    got = second_moments(job, loaded, reporter, [2, 3])
    total, count = torch.zeros(48, 48, dtype=torch.float64), 0
    for t in TEXT:
        ids = torch.tensor([loaded.tokenizer(t)["input_ids"]])
        with inputs_and_outputs(loaded, [3], "mlp.down_proj") as seen:
            run_layers(loaded, ids, 4)
        k = seen[3][0][0]
        total += k.T @ k
        count += len(k)
    torch.testing.assert_close(got.moment(3).double(), total / count, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("method", "steps", "clamp", "decay"), [("memit", 25, 4.0, 1e-3), ("pmet", 20, 1.0, 0.5)])
def test_llama_2_7b_has_its_published_hyper_parameters(open_model, method, steps, clamp, decay):
    hp = hparams(open_model("llama"), method, {})
    assert hp.layers == (4, 5, 6, 7, 8)
    assert (hp.steps, hp.clamp, hp.weight_decay, hp.lr, hp.mom2_weight) == (steps, clamp, decay, 0.5, 15000.0)
    assert (hp.module, hp.gain, hp.key_contexts) == ("mlp.down_proj", 1.0, 0)


MEMITS_WAY, PMETS_WAY = [1 / 3, 1 / 2, 1], [1 / 3**0.5, 1 / 2**0.5, 1]
IN_CHAT = ["[user] {} [assistant]", "[user] So it is. {} [assistant]"]


@pytest.mark.parametrize(("method", "share", "groups"), [
    ("memit", MEMITS_WAY, [CONTEXTS]), ("pmet", PMETS_WAY, [CONTEXTS]), ("memit", MEMITS_WAY, [CONTEXTS, IN_CHAT]),
])  # fmt: skip
def test_the_residual_is_spread_as_published(open_model, reporter, tmp_path, method, share, groups):
    """Layer by layer against a reference that writes the dense update into the matrix and measures what is left in whole
    passes. Of two groups of contexts each gives an edit a key, and both keys the mean residual."""
    from palimpsest_editor.closed_form.memit import least_squares, spread
    from palimpsest_editor.closed_form.statistics import second_moments
    from palimpsest_editor.protocol import parse_job
    from palimpsest_editor.run import Run
    from palimpsest_editor.weights.checkpoint import Pieces

    loaded = open_model("llama", torch.float64)
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(TEXT))
    job = parse_job(
        {
            "protocol": 1,
            "method": method,
            "base": {"path": "x"},
            "work_dir": str(tmp_path),
            "out_dir": str(tmp_path),
            "statistics": {"text": str(text)},
        }
    )
    hp = hparams(loaded, method, {"layers": [4, 5, 6], "mom2_weight": 10.0, "gain": 1.3})
    edits = parse_edits(EDITS)
    delta = torch.randn(len(edits), loaded.hidden)
    run = Run(job, loaded, reporter, Pieces(tmp_path / "w"), "k", [])
    got = spread(run, edits, groups, hp, delta, "b", least_squares(run, hp))
    moments = second_moments(job, loaded, reporter, hp.layers)

    def measured(e, context="{}"):
        one = encode(loaded.tokenizer, context, e.prompt, e.subject)
        with inputs_and_outputs(loaded, hp.layers, "mlp.down_proj") as seen:
            states = loaded.model.model(torch.tensor([one.ids]), output_hidden_states=True).hidden_states
        return seen, {"layer": states[7][0, one.subject_last], "mlp": seen[6][1][0, one.subject_last]}, one.subject_last

    def states():
        return torch.stack([torch.stack([measured(e, group[0])[1][hp.residual] for e in edits]) for group in groups])

    def key(e, group, layer):
        return torch.stack([(m := measured(e, c))[0][layer][0][0, m[2]] for c in group]).mean(0)

    target = states() + 1.3 * delta.double()
    for index, layer in enumerate(hp.layers):
        keys = torch.stack([key(e, group, layer) for group in groups for e in edits])
        left = ((target - states()).mean(0) * share[index]).repeat(len(groups), 1)
        system = hp.mom2_weight * moments.moment(layer).double()
        system = system + hp.ridge * system.diagonal().mean() * torch.eye(len(system)) + keys.T @ keys
        want = left.T @ keys @ torch.linalg.inv(system)
        torch.testing.assert_close(got[index].dense().double(), want, rtol=5e-3, atol=5e-3 * float(want.abs().max()))
        loaded.module(layer, "mlp.down_proj").weight += want


def test_no_more_texts_are_written_than_are_wanted(open_model, reporter, tmp_path, monkeypatch):
    from palimpsest_editor.closed_form import statistics

    asked = []

    def written(_loaded, starts, _tokens, _seed, _check):
        asked.append(len(starts))
        return [f"{start} …" for start in starts]

    monkeypatch.setattr(statistics, "sample", written)
    loaded, kept, tokens = open_model("llama"), tmp_path / "texts.json", statistics.LENGTH - 8
    first = statistics._own_text(loaded, 3 * tokens, 0, kept, reporter)
    more = statistics._own_text(loaded, 130 * tokens, 0, kept, reporter)
    assert asked == [3, 125, 2]
    assert more[:3] == first
    assert len(more) == 130
    # Every opening is begun with as often as the others, whatever was asked for first.
    assert sorted(more[:128]) == sorted(f"{o} …" for o in statistics.OPENINGS for _ in range(2))
