"""The worker as a process: resumes after kill -9, stops on SIGTERM, and says what is wrong."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import EDITS, TEXT, make_folder
from test_training import LOCALITY, QUICK, TRANSFER

from palimpsest_editor.__main__ import run as in_this_process
from palimpsest_editor.faults import Fault
from palimpsest_editor.protocol import Reporter, read_job
from palimpsest_editor.tasks import perform
from palimpsest_editor.texts.requests import batches, encode, parse_edits
from palimpsest_editor.weights.loading import sweep

PACKAGE = Path(__file__).parents[1]
FAST = {"steps": 4, "contexts": 1, "context_tokens": 3, "chunk_edits": 1, "stop": 0.0001}


def job(root: Path, model: Path, **fields) -> Path:
    text = root / "text.txt"
    text.write_text("\n\n".join(TEXT))
    whole = {
        "protocol": 1, "method": "memit", "base": {"path": str(model)}, "edits": EDITS,
        "work_dir": str(root / "work"), "out_dir": str(root / "out"),
        "hparams": FAST, "statistics": {"text": str(text)}, "threads": 1, "dtype": "float32", **fields,
    }  # fmt: skip
    path = root / "job.json"
    path.write_text(json.dumps(whole))
    return path


def start(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "palimpsest_editor", "run", str(path)]
    return subprocess.Popen(
        command,
        cwd=PACKAGE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def run(path: Path) -> tuple[int, list[dict]]:
    worker = start(path)
    out, _ = worker.communicate(timeout=300)
    return worker.returncode, [json.loads(line) for line in out.splitlines()]


def fault(path: Path) -> Fault:
    """How a job ends that is run in this process: a start of the worker takes seconds."""
    with pytest.raises(Fault) as caught:
        perform(
            read_job(path),
            Reporter(io.StringIO(), memory_bytes=json.loads(path.read_text()).get("limits", {}).get("memory_bytes")),
        )
    return caught.value


def until(worker: subprocess.Popen[str], stage: str, done: int) -> None:
    for line in worker.stdout:
        event = json.loads(line)
        if event["event"] == "progress" and event["stage"] == stage and event["done"] >= done:
            return
    raise AssertionError(f"{stage} {done} was not reached")


@pytest.mark.parametrize(("kind", "method"), [("llama", "memit"), ("qwen2", "pmet")])
def test_an_edit_from_end_to_end(folders, tmp_path, kind, method):
    probes = [{"kind": "efficacy", "prompt": e["prompt"], "target_new": e["target_new"], "target_true": "Lund"} for e in EDITS]
    # Random narrow models have states of another size than real ones: λ and the clamp are set for them.
    hparams = {**FAST, "steps": 25, "mom2_weight": 0.01, "stop": 0.05, "clamp": 20, "weight_decay": 0.0, "chunk_edits": 4}
    status, events = run(job(tmp_path, folders[kind], method=method, probes=probes, hparams=hparams))
    result = events[-1]
    assert (status, result["event"]) == (0, "result"), result
    assert next(e for e in events if e["event"] == "plan")["estimate_s"] > 0
    assert result["scores"]["after"]["efficacy"]["success"] >= result["scores"]["before"]["efficacy"]["success"]
    assert result["batches"] == [["e1", "e2", "e3", "e4"]]
    assert Path(result["adapter"]["gguf"]).stat().st_size == result["adapter"]["bytes"]
    assert (Path(result["adapter"]["peft"]) / "adapter_model.safetensors").exists()
    assert result["adapter"]["rank"] <= len(EDITS)
    if kind == "llama":
        assert result["adapter"]["tensors"] == [f"blk.{n}.ffn_down.weight" for n in (4, 5, 6, 7, 8)]


def test_alphaedit_from_end_to_end_in_batches_that_keep_the_ones_before(folders, tmp_path):
    probes = [{"kind": "efficacy", "prompt": e["prompt"], "target_new": e["target_new"], "target_true": "Lund"} for e in EDITS]
    # A random narrow model has no small eigenvalues: half of the space is taken.
    hparams = {
        **FAST, "steps": 25, "stop": 0.05, "clamp": 20, "weight_decay": 0.0, "chunk_edits": 4, "batch_edits": 2,
        "nullspace_threshold": 0.05, "l2": 0.01,
    }  # fmt: skip
    path = job(tmp_path, folders["qwen2"], method="alphaedit", probes=probes, hparams=hparams)
    status, events = run(path)
    result = events[-1]
    assert (status, result["event"]) == (0, "result"), result
    assert result["batches"] == [["e1", "e2"], ["e3", "e4"]]
    assert result["scores"]["after"]["efficacy"]["success"] >= result["scores"]["before"]["efficacy"]["success"]
    assert list((tmp_path / "work" / "statistics").glob("*/null-space-0.05-*.safetensors"))
    # A later job that keeps these edits makes another update than one that keeps none.
    # Elsewhere: the jobs below write to the folder that it lies in.
    earlier = shutil.copy(result["adapter"]["gguf"], tmp_path / "earlier.gguf")
    more = dict(method="alphaedit", hparams=hparams, edits=EDITS[:1], adapters=[{"path": str(earlier)}])
    sums = []
    for kept in ([], EDITS[1:], EDITS[:1]):
        _, events = run(job(tmp_path, folders["qwen2"], kept=kept, **more))
        assert events[-1]["event"] == "result", events[-1]
        sums.append(events[-1]["adapter"]["sha256"])
    assert sums[0] != sums[1]
    assert sums[0] == sums[2], "an edit of the same subject is to change, so it is not kept"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not tell a process that its parent ended")
def test_a_worker_ends_with_the_gateway_that_started_it(tmp_path):
    command = [sys.executable, "-m", "palimpsest_editor", "run", str(tmp_path / "none.json")]

    def ends(parent: str) -> int:
        own = {**os.environ, "PALIMPSEST_EDITOR_PARENT": parent}
        return subprocess.run(command, cwd=PACKAGE, env=own, stdout=subprocess.DEVNULL, check=False).returncode

    assert ends(str(os.getpid())) == 2
    assert ends("1") == -signal.SIGKILL, "its gateway is gone already"


def test_a_killed_job_goes_on_to_the_same_adapter(folders, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    status, events = run(job(tmp_path / "whole", folders["llama"]))
    assert status == 0, events[-1]
    path = job(tmp_path / "cut", folders["llama"])
    worker = start(path)
    until(worker, "targets", 2)
    worker.kill()
    worker.wait()
    kept = sorted(p.name for p in (tmp_path / "cut" / "work").glob("targets-*.safetensors"))
    assert kept
    before = {name: (tmp_path / "cut" / "work" / name).stat().st_mtime_ns for name in kept}
    damaged = tmp_path / "cut" / "work" / kept[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    status, again = run(path)
    assert status == 0, again[-1]
    assert again[-1]["adapter"]["sha256"] == events[-1]["adapter"]["sha256"]
    for name in kept[1:]:
        assert (tmp_path / "cut" / "work" / name).stat().st_mtime_ns == before[name], "a finished piece is not computed twice"


@pytest.mark.parametrize(("kind", "method"), [("qwen2", "lora"), ("llama", "distil")])
def test_a_trained_adapter_from_end_to_end_with_a_kill_in_its_training(folders, tmp_path, kind, method):
    more = {"transfer": TRANSFER} if method == "distil" else {}
    hparams = {**QUICK, "epochs": 40, "stop_efficacy": 2.0, "checkpoint_steps": 2}
    path = job(tmp_path, folders[kind], method=method, hparams=hparams, locality=LOCALITY, statistics={}, **more)
    worker = start(path)
    until(worker, "training-0", 8)
    worker.kill()
    worker.wait()
    work = tmp_path / "work"
    kept = {p: p.stat().st_mtime_ns for p in work.glob("*.safetensors") if not p.name.startswith("training-")}
    assert any(work.glob("training-0-*.safetensors"))
    status, events = run(path)
    assert (status, events[-1]["event"]) == (0, "result"), events[-1]
    trained = [e["done"] for e in events if e["event"] == "progress" and e["stage"] == "training-0"]
    assert events[-1]["training"]["resumed"]
    assert min(trained) >= 6, "steps that were finished are not made again"
    assert {p: p.stat().st_mtime_ns for p in kept if p.exists()} == {p: at for p, at in kept.items() if p.exists()}
    assert Path(events[-1]["adapter"]["gguf"]).stat().st_size == events[-1]["adapter"]["bytes"]
    assert (Path(events[-1]["adapter"]["peft"]) / "adapter_config.json").exists()


@pytest.mark.parametrize("shortage", [lambda: torch.empty(1 << 50, dtype=torch.uint8), lambda: bytearray(1 << 62)])
def test_out_of_memory_is_said_as_such(folders, tmp_path, monkeypatch, shortage):
    out = io.StringIO()
    monkeypatch.setattr("palimpsest_editor.__main__.private_stdout", lambda: out)
    monkeypatch.setattr("palimpsest_editor.protocol.Reporter.listen", lambda self: None)
    monkeypatch.setattr("palimpsest_editor.tasks.perform", lambda job, reporter: shortage())
    assert in_this_process(job(tmp_path, folders["qwen2"])) == 4
    last = json.loads(out.getvalue().splitlines()[-1])
    assert (last["event"], last["code"]) == ("error", "memory")
    assert "dtype bfloat16" in last["change"]


def test_sigterm_stops_and_says_so(folders, tmp_path):
    worker = start(job(tmp_path, folders["llama"], hparams={**FAST, "steps": 2000}))
    until(worker, "targets", 0)
    worker.send_signal(signal.SIGTERM)
    began = time.monotonic()
    out, _ = worker.communicate(timeout=60)
    assert (worker.returncode, json.loads(out.splitlines()[-1])["code"]) == (7, "cancelled")
    assert time.monotonic() - began < 45
    assert not (tmp_path / "out").exists()


def test_a_wrong_base_is_named(folders, tmp_path):
    other = tmp_path / "model.gguf"
    other.write_bytes(b"GGUF")
    status, events = run(job(tmp_path, other, base={"path": str(other), "sha256": "0" * 64}))
    assert (status, events[-1]["code"]) == (3, "wrong_base")
    assert "0000" in events[-1]["message"]
    assert fault(job(tmp_path, tmp_path / "absent.gguf")).code == "wrong_base"


def test_an_adapter_of_another_shape_is_refused(folders, tmp_path):
    from safetensors.torch import save_file

    folder = tmp_path / "other"
    folder.mkdir()
    save_file(
        {
            "base_model.model.model.layers.3.mlp.down_proj.lora_A.weight": torch.ones(1, 7),
            "base_model.model.model.layers.3.mlp.down_proj.lora_B.weight": torch.ones(32, 1),
        },
        folder / "adapter_model.safetensors",
    )
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["down_proj"]})
    )
    assert fault(job(tmp_path, folders["llama"], adapters=[{"path": str(folder)}])).code == "wrong_base"


def test_too_little_memory_is_named_with_what_to_change(folders, tmp_path):
    short = fault(job(tmp_path, folders["llama"], limits={"memory_bytes": 10_000_000}))
    assert (short.code, short.exit_code) == ("memory", 4)
    assert "memory_bytes" in short.change


def test_a_nan_stops_cleanly(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = make_folder(tmp_path / "model", "llama", 10)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.9.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    stopped = fault(job(tmp_path, folder))
    assert (stopped.code, stopped.exit_code) == ("nan", 5)
    assert not (tmp_path / "out").exists()


def test_divergence_stops_cleanly(folders, tmp_path):
    hparams = {**FAST, "lr": 300.0, "clamp": 1e9, "steps": 6}
    assert fault(job(tmp_path, folders["llama"], hparams=hparams)).code == "diverged"


@pytest.mark.parametrize(("fields", "word"), [
    ({"protocol": 2}, "protocol"), ({"colour": 1}, "colour"), ({"hparams": {"lamda": 1}}, "lamda"), ({"method": "rome"}, "rome"),
    ({"edits": [{"subject": "X", "prompt": "Y is", "target_new": "Z"}]}, "'X'"), ({"hparams": {"layers": [99]}}, "layers"),
])  # fmt: skip
def test_a_malformed_job_names_the_field(folders, tmp_path, fields, word):
    wrong = fault(job(tmp_path, folders["llama"], **fields))
    assert wrong.code == "malformed_job"
    assert word in wrong.message


def test_what_a_killed_worker_left_half_written_is_swept(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        for name in (f"abc-float32.{ended.pid}.part", f"abc-float32.{running.pid}.part", "abc-bfloat16"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "model.safetensors").write_bytes(b"x")
        sweep(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["abc-bfloat16", f"abc-float32.{running.pid}.part"]
    finally:
        running.communicate(b"\n")


def test_a_chats_marker_in_an_edit_is_plain_text(open_model):
    tokenizer = open_model("llama").tokenizer
    end = tokenizer.eos_token_id
    plain = encode(tokenizer, "{}", "Orla <end> was born in", "Orla <end>", "Oslo <end>")
    assert end not in plain.ids
    assert tokenizer.decode(plain.ids) == "Orla <end> was born in Oslo <end>"
    assert tokenizer.decode(plain.ids[plain.target_start :]) == " Oslo <end>"
    assert tokenizer.decode(plain.ids[: plain.subject_last + 1]) == "Orla <end>"
    # The context's own markers still count.
    chat = encode(tokenizer, "says<end>\n{}<end>\n", "Orla <end> was born in", "Orla <end>", "Oslo<end>")
    assert chat.ids.count(end) == 2
    assert tokenizer.decode(chat.ids) == "says<end>\nOrla <end> was born in<end>\nOslo<end>"
    assert tokenizer.decode(chat.ids[chat.target_start :]) == "Oslo<end>"
    # Without any, nothing changes.
    assert list(encode(tokenizer, "says<end>{}", "Quell lies", "Quell").ids) == tokenizer("says<end>Quell lies")["input_ids"]


def test_one_edit_a_subject_in_a_batch():
    raw = [
        {"id": str(i), "subject": s, "prompt": f"{s} is", "target_new": "x"} for i, s in enumerate(["A", "B", "a", "A", "C", "B"])
    ]
    made = batches(parse_edits(raw), 1000)
    assert [[e.id for e in b] for b in made] == [["0", "1", "4"], ["2", "5"], ["3"]]
    assert [[e.id for e in b] for b in batches(parse_edits(raw), 2)] == [["0", "1"], ["2", "4"], ["3", "5"]]
