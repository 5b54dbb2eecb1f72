"""An exported adapter is the edit: PEFT, dense and GGUF agree with the edited model's logits to 1e-3 (float32)."""

from __future__ import annotations

import pytest
import torch

from palimpsest_editor.faults import Fault
from palimpsest_editor.weights.adapter import read_adapter, write_gguf, write_peft
from palimpsest_editor.weights.lowrank import LowRankUpdate, applied, low_rank_of, merge, truncate

SPOTS = [
    (4, "mlp.down_proj", 3),
    (5, "mlp.down_proj", 5),
    (5, "self_attn.q_proj", 2),
    (6, "self_attn.k_proj", 2),
    (6, "self_attn.o_proj", 2),
]


def random_updates(loaded, seed=0):
    torch.manual_seed(seed)
    made = []
    for layer, module, rank in SPOTS:
        out, inputs = loaded.module(layer, module).weight.shape
        made.append(LowRankUpdate(layer, module, torch.randn(rank, inputs) * 0.1, torch.randn(out, rank) * 0.1))
    return made


def logits(model):
    with torch.no_grad():
        return model(torch.arange(1, 40).view(3, 13)).logits


def dense(loaded, updates):
    for u in updates:
        loaded.module(u.layer, u.module).weight += u.dense()
    return logits(loaded.model)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_beside_dense_peft_and_gguf_agree(open_model, tmp_path, kind):
    from peft import PeftModel

    loaded = open_model(kind)
    updates = random_updates(loaded)
    base = logits(loaded.model)
    with applied(loaded, updates):
        beside = logits(loaded.model)
    assert torch.equal(logits(loaded.model), base), "the base is as it was"
    assert (beside - base).abs().max() > 0.05
    write_peft(tmp_path / "a-peft", updates, "base")
    write_gguf(tmp_path / "a.gguf", updates, kind, loaded.model.config, {"method": "test"})
    peft = logits(PeftModel.from_pretrained(open_model(kind).model, tmp_path / "a-peft"))
    read, about = read_adapter(tmp_path / "a.gguf", loaded.model.config)
    again = dense(open_model(kind), read)
    edited = dense(open_model(kind), updates)
    back = dense(open_model(kind), read_adapter(tmp_path / "a-peft", loaded.model.config)[0])
    assert about["method"] == "test"
    for one in (beside, peft, again, back):
        assert (one - edited).abs().max() <= 1e-3


def test_gguf_has_what_llama_cpp_reads(open_model, tmp_path):
    import gguf

    loaded = open_model("qwen2")
    write_gguf(tmp_path / "a.gguf", random_updates(loaded), "qwen2", loaded.model.config, {})
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    assert reader.get_field("general.type").contents() == "adapter"
    assert reader.get_field("adapter.type").contents() == "lora"
    assert reader.get_field("general.architecture").contents() == "qwen2"
    assert reader.get_field("adapter.lora.alpha").contents() == 5.0
    shapes = {t.name: [int(n) for n in t.shape] for t in reader.tensors}
    assert shapes["blk.4.ffn_down.weight.lora_a"] == [48, 3]
    assert shapes["blk.4.ffn_down.weight.lora_b"] == [3, 32]


def test_llama_query_rows_are_reordered_as_its_gguf_has_them(open_model, tmp_path):
    """llama.cpp's converter: per head, [half 0, half 1] becomes pairs."""
    import gguf

    loaded = open_model("llama")
    u = random_updates(loaded)[2]
    write_gguf(tmp_path / "a.gguf", [u], "llama", loaded.model.config, {})
    b = next(t for t in gguf.GGUFReader(tmp_path / "a.gguf").tensors if t.name.endswith("lora_b")).data.reshape(32, 2)
    head = u.b[:8]
    assert torch.equal(torch.from_numpy(b[:8].copy()), torch.stack([head[:4], head[4:]], 1).reshape(8, 2))


def test_merging_adds_and_truncation_is_the_best_of_its_rank(open_model):
    loaded = open_model("qwen2")
    one, two = random_updates(loaded, 1), random_updates(loaded, 2)
    both = merge([one, two], [1.0, -0.5])
    assert both[0].rank == 6
    want = one[0].dense() - 0.5 * two[0].dense()
    torch.testing.assert_close(both[0].dense(), want)
    cut, lost = truncate(both[0], 4)
    s = torch.linalg.svdvals(want)
    assert cut.rank == 4
    assert float((cut.dense() - want).norm() ** 2) == pytest.approx(float((s[4:] ** 2).sum()), rel=1e-3)
    assert lost == pytest.approx(float((s[4:] ** 2).sum() / (s**2).sum()), rel=1e-3)
    assert truncate(both[0], 6) == (both[0], 0.0)
    again, left = low_rank_of(4, "mlp.down_proj", want, 100)
    assert (again.rank, left < 1e-6) == (6, True)


def test_another_adapter_kind_is_refused(tmp_path, open_model):
    (tmp_path / "adapter_config.json").write_text('{"peft_type":"ADALORA"}')
    with pytest.raises(Fault, match="ADALORA"):
        read_adapter(tmp_path, open_model("llama").model.config)


@pytest.mark.parametrize("kind", ["pair", "dense"])
def test_deltas_of_another_editor_come_back_as_an_adapter(open_model, tmp_path, kind):
    from palimpsest_editor.protocol import parse_job
    from palimpsest_editor.weights.importing import read_deltas

    loaded = open_model("llama")
    update = random_updates(loaded)[0]
    value = (update.a.T, update.b) if kind == "pair" else update.dense()
    torch.save({"model.layers.4.mlp.down_proj.weight": value}, tmp_path / "deltas.pt")
    job = parse_job(
        {
            "protocol": 1,
            "task": "import",
            "base": {"path": "x"},
            "work_dir": "w",
            "out_dir": "o",
            "source": str(tmp_path / "deltas.pt"),
        }
    )
    (got,) = read_deltas(job, loaded)
    assert (got.layer, got.module, got.rank) == (4, "mlp.down_proj", 3)
    torch.testing.assert_close(got.dense(), update.dense(), rtol=1e-4, atol=1e-6)


def test_deltas_of_full_rank_are_refused(open_model, tmp_path):
    from palimpsest_editor.protocol import parse_job
    from palimpsest_editor.weights.importing import read_deltas

    torch.save({"model.layers.4.mlp.down_proj.weight": torch.randn(32, 48)}, tmp_path / "deltas.pt")
    source = str(tmp_path / "deltas.pt")
    job = parse_job(
        {
            "protocol": 1,
            "task": "import",
            "base": {"path": "x"},
            "work_dir": "w",
            "out_dir": "o",
            "source": source,
            "export": {"max_rank": 4},
        }
    )
    with pytest.raises(Fault, match="low rank"):
        read_deltas(job, open_model("llama"))
