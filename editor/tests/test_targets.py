"""Targets against one edit at a time by torch's own Adam, in each way that the authors' code differs from their papers; and what
the bench beside EasyEdit's code is given."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import EDITS

from palimpsest_editor.closed_form import targets
from palimpsest_editor.closed_form.hparams import Hparams
from palimpsest_editor.closed_form.targets import optimise
from palimpsest_editor.texts.contexts import chat_turn
from palimpsest_editor.texts.requests import encode, parse_edits

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from easyedit import between, norms

CONTEXTS = ["{}", "The report. {}", "In the north of Oslo. {}"]


def reference_delta(loaded, edit, hp, modules, factors=()):
    """One edit, whole sequences, torch's own Adam; `modules`: module -> (state that bounds, decay). `factors`: the NLL's, step by
    step, where they are not nll_factor."""
    layer = loaded.layers[hp.layers[-1]]
    bare = encode(loaded.tokenizer, "{}", edit.prompt, edit.subject)
    held = {}
    hooks = [
        layer.register_forward_hook(lambda _m, _i, o: held.__setitem__("layer", o[0, bare.subject_last])),
        layer.mlp.register_forward_hook(lambda _m, _i, o: held.__setitem__("mlp", o[0, bare.subject_last])),
        layer.self_attn.o_proj.register_forward_hook(
            lambda _m, _i, o: held.__setitem__("self_attn.o_proj", o[0, bare.subject_last])
        ),
    ]
    loaded.model(torch.tensor([bare.ids]))
    for hook in hooks:
        hook.remove()
    norms = {k: v.norm() for k, v in held.items()}
    deltas = {m: torch.zeros(loaded.hidden, dtype=torch.float64, requires_grad=True) for m in modules}

    def logits(one):
        def add(m):
            def hook(_m, _i, out):
                mask = torch.zeros(out.shape[1], 1, dtype=out.dtype)
                mask[one.subject_last] = 1
                return out + mask * deltas[m]

            return hook

        hooks = [layer.get_submodule(m).register_forward_hook(add(m)) for m in modules]
        out = loaded.model(torch.tensor([one.ids])).logits[0]
        for hook in hooks:
            hook.remove()
        return out

    essence = encode(loaded.tokenizer, "{}", f"{edit.subject} is a", edit.subject)
    held_prompts = [(essence, -1 if hp.essence_at == "end" else essence.subject_last, hp.kl_factor)]
    if hp.chat and hp.open_kl:
        for question in targets.OPEN_QUESTIONS:
            one = encode(loaded.tokenizer, *chat_turn(loaded), question.replace("{}", edit.subject), edit.subject)
            held_prompts.append((one, -1, hp.open_kl / len(targets.OPEN_QUESTIONS)))
    befores = [logits(one)[at].log_softmax(-1).detach() for one, at, _ in held_prompts]
    adam = torch.optim.Adam(deltas.values(), lr=hp.lr)
    for step in range(hp.steps):
        losses = []
        for c in CONTEXTS:
            one = encode(loaded.tokenizer, c, edit.prompt, edit.subject, edit.target_new)
            z = logits(one)[one.target_start - 1 : -1]
            losses.append(torch.nn.functional.cross_entropy(z, torch.tensor(one.ids[one.target_start :])))
        nll = torch.stack(losses).mean()
        factor = factors[step] if factors else hp.nll_factor
        loss = factor * nll
        for (one, at, weight), before in zip(held_prompts, befores, strict=True):
            now = logits(one)[at].log_softmax(-1)
            p, q = (before, now) if hp.kl_of == "base" else (now, before)
            loss = loss + weight * (p.exp() * (p - q)).sum()
        loss = loss + sum(
            decay * deltas[m].norm() / norms[bound] ** 2 for m, (bound, decay) in modules.items() if deltas[m].norm() > 0
        )
        if (nll if hp.stop_by == "nll" else loss) < hp.stop or step == hp.steps - 1:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            for m, (bound, _) in modules.items():
                most = hp.clamp * norms[bound]
                if deltas[m].norm() > most:
                    deltas[m].mul_(most / deltas[m].norm())
    return {m: d.detach() for m, d in deltas.items()}


MEMITS, PMETS = {"mlp": ("layer", 1e-3)}, {"mlp": ("mlp", 0.5), "self_attn.o_proj": ("self_attn.o_proj", 0.5)}


@pytest.mark.parametrize(("kind", "modules", "ways"), [
    ("llama", MEMITS, {}),
    ("qwen2", MEMITS, {}),
    ("llama", PMETS, {}),
    # The KL weighs enough here that its place and its direction show.
    ("llama", MEMITS, {"kl_factor": 5.0, "kl_of": "edited"}),
    ("llama", MEMITS, {"kl_factor": 5.0, "essence_at": "subject"}),
    ("qwen2", PMETS, {"kl_factor": 5.0, "kl_of": "edited", "essence_at": "subject", "stop_by": "loss"}),
    ("qwen2", MEMITS, {"kl_factor": 5.0, "chat": True, "open_kl": 5.0}),
    # Every NLL is below 8 at once, twice of it is above.
    ("llama", MEMITS, {"nll_factor": 2.0, "stop": 8.0, "stop_by": "loss"}),
])  # fmt: skip
def test_targets_of_a_chunk_are_those_of_one_at_a_time(open_model, reporter, kind, modules, ways):
    loaded = open_model(kind, torch.float64)
    loaded.tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}[assistant]"
    hp = Hparams(**{"layers": (1, 2, 3), "steps": 4, "clamp": 2.0, "lr": 0.3, "stop": 1.5, **ways})
    edits = parse_edits(EDITS)
    got = optimise(loaded, edits, CONTEXTS, hp, modules, reporter, (0, len(edits)))
    for i, edit in enumerate(edits):
        want = reference_delta(loaded, edit, hp, modules)
        for m in modules:
            assert want[m].norm() > 0
            torch.testing.assert_close(got[m][i].double(), want[m], rtol=2e-3, atol=2e-4)


def test_an_edit_is_done_by_its_nll_alone(open_model, reporter):
    hp = Hparams(layers=(1, 2, 3), steps=4, stop=8.0, nll_factor=2.0)
    got = optimise(open_model("llama"), parse_edits(EDITS), CONTEXTS, hp, MEMITS, reporter, (0, 4))
    assert float(got["mlp"].abs().max()) == 0


def test_an_edit_whose_target_is_the_likeliest_is_eased(open_model, reporter, monkeypatch):
    loaded, edit = open_model("llama", torch.float64), parse_edits(EDITS)[0]
    hp = Hparams(layers=(1, 2, 3), steps=4, clamp=2.0, lr=0.3, kl_factor=5.0, ease=True)
    nll = targets._nll
    monkeypatch.setattr(targets, "_nll", lambda *a: (nll(*a)[0], torch.ones(1, dtype=torch.bool)))
    # Before the first step there is no KL, so the edit is done at once.
    assert float(optimise(loaded, [edit], CONTEXTS, hp, PMETS, reporter, (0, 1))["mlp"].abs().max()) == 0
    monkeypatch.setattr(targets, "AT_EASE_KL", -1.0)
    got = optimise(loaded, [edit], CONTEXTS, hp, PMETS, reporter, (0, 1))
    want = reference_delta(loaded, edit, hp, PMETS, [1.0, 0.1, 0.1, 0.1])
    for m in PMETS:
        torch.testing.assert_close(got[m][0].double(), want[m], rtol=2e-3, atol=2e-4)
    assert (want["mlp"] - reference_delta(loaded, edit, hp, PMETS)["mlp"]).norm() > 0.05 * want["mlp"].norm()


def test_a_target_is_the_likeliest_where_all_its_tokens_are(open_model):
    loaded = open_model("llama")
    seq = targets.prompt_sequences(loaded, parse_edits(EDITS), CONTEXTS, 3)
    zero = {"mlp": torch.zeros(len(EDITS) * len(CONTEXTS), loaded.hidden, requires_grad=True)}
    likeliest = loaded.model.lm_head(targets._states(loaded, seq, zero)).argmax(-1)
    assert not bool((likeliest == seq.wanted)[seq.edit == 3].all())
    wanted = torch.where(seq.edit < 3, likeliest, seq.wanted)
    one = int((seq.edit == 1).nonzero()[-1])
    wanted[one] = (wanted[one] + 1) % 256
    found = targets._nll(loaded, replace(seq, wanted=wanted), zero, torch.ones(4))[1]
    assert found.tolist() == [True, False, True, False]


def test_the_bench_draws_its_threshold_between_two_eigenvalues():
    torch.manual_seed(1)
    moments = {n: (k := torch.randn(200, 48)).T @ k / 200 for n in range(3)}
    values = torch.cat([torch.linalg.eigvalsh(m) for m in moments.values()])
    found = between(moments)
    assert float((values - found).abs().min()) > 1e-5 * found
    assert all(0 < int((torch.linalg.eigvalsh(m) < found).sum()) <= 24 for m in moments.values())


def test_the_bench_compares_norms_by_module():
    one, two = torch.ones(2, 2), 2 * torch.ones(2, 2)
    ours = {"model.layers.0.self_attn.q_proj.weight": one, "model.layers.1.self_attn.q_proj.weight": two}
    assert norms(ours, {"model.layers.0.self_attn.q_proj.weight": two}) == {
        "self_attn.q_proj": {"norm": round(20**0.5, 4), "norm_theirs": 4.0}
    }
