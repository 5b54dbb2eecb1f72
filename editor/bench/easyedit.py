"""EasyEdit's own code and ours on the same edits, the same model and the same hyper-parameters, side by side.

    python bench/easyedit.py --easyedit CHECKOUT --folder OUT [--model HF_FOLDER --edits EDITS.json --text TEXT]

CHECKOUT is a clone of https://github.com/zjunlp/EasyEdit; nothing is written to it. Without --model, a narrow random LLaMA is made
(`--kind qwen2`: a Qwen2). Per method: teacher-forced figures of both, each layer's ΔW (cosine, ‖ours − theirs‖/‖theirs‖), and theirs
taken back in by our import; of LoRA, whose start is random, the norms of ΔW by module. What has to be put in the way of EasyEdit's
code is listed at the end, by the script itself. With --causes, ours is made again with each of our own ways in turn (`CAUSES`), and
EasyEdit's as it stands where the script mends what it is given: what is left of the agreement says what each of them does.

Both get the same second moments and the same contexts, which either would draw at random: EasyEdit reads them from its own caches.
Two of its ways are not ours, since they put another text before the model than an edit says (docs/results/hand-off.md): PMET's
target without a space (pmet_main.py, which adds one to GPT models alone), and MEMIT's and AlphaEdit's with a token of a space
alone before it, where a tokenizer writes a space before each text by itself, as LLaMA-2's.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from palimpsest_editor.closed_form.hparams import of_easyedit
from palimpsest_editor.closed_form.statistics import second_moments
from palimpsest_editor.protocol import Reporter, parse_job
from palimpsest_editor.score import score_probes
from palimpsest_editor.tasks import perform
from palimpsest_editor.texts.contexts import contexts
from palimpsest_editor.weights.adapter import read_adapter
from palimpsest_editor.weights.loading import LoadedModel, load

PATCHES: list[str] = []
GIVEN = (
    "CONTEXT_TEMPLATES_CACHE and COV_CACHE are filled with our contexts and second moments",
    "the tokenizer's model_input_names are cut to input_ids and attention_mask, and padding_side set as BaseEditor does",
    "AlphaEdit's P_loc names no file, so that P is made of that C",
    "PMET's targets begin with a space: pmet_main.py adds one to models named gpt alone",
)
CAUSES: dict[str, dict[str, Any]] = {
    "KL of the base from the edited model": {"kl_of": "base"},
    "KL behind the essence prompt": {"essence_at": "end"},
    "stop by the NLL alone": {"stop_by": "nll"},
    "keys weighed alike": {"key_bare_share": 0.0},
    "no easing": {"ease": False},
}
"""Ours in place of EasyEdit's ways (targets.py, memit.py): with each alone, ΔW is as far from EasyEdit's as that way accounts for."""

METHODS = {"memit": "MEMIT", "alphaedit": "AlphaEdit", "pmet": "PMET", "lora": "LoRA"}
PACKAGES = ("easyeditor", "easyeditor.util", "easyeditor.models", *(f"easyeditor.models.{m}" for m in ("rome", *METHODS)))


def without_init(checkout: Path) -> None:
    """The packages as folders: their __init__ import every method, and with them torchvision, openai, nltk and scikit-learn."""
    for name in PACKAGES:
        package = types.ModuleType(name)
        package.__path__ = [str(checkout / name.replace(".", "/"))]
        sys.modules[name] = package
    PATCHES.append(f"__init__ of {len(PACKAGES)} packages passed over (they import all methods and their libraries)")
    for name, what in (("datasets", "load_dataset"), ("matplotlib.style", "context")):
        try:
            importlib.import_module(name)
        except ImportError:
            for part in (name.split(".")[0], name):
                sys.modules.setdefault(part, types.ModuleType(part))
            setattr(sys.modules[name], what, None)
            PATCHES.append(f"{name}.{what} is imported at the top and not needed here: an empty module stands in")


def random_model(folder: Path, kind: str, text: str) -> Path:
    """In a folder whose name tells EasyEdit the family."""
    from conftest import make_folder

    path = folder / f"{kind}-narrow"
    if not path.exists():
        make_folder(path, kind, layers=12)
    (folder / "text.txt").write_text(text)
    return path


def easyedit_hparams(
    checkout: Path, method: str, model: Path, count: int, layers: list[int], more: dict[str, Any]
) -> dict[str, Any]:
    """EasyEdit's own file of the method, for this model and this machine."""
    names = {"memit": "MEMIT/llama-7b", "alphaedit": "AlphaEdit/llama3-8b", "pmet": "PMET/llama-7b", "lora": "LoRA/llama-7b"}
    read = yaml.safe_load((checkout / "hparams" / f"{names[method]}.yaml").read_text())
    numbers = {}
    for key, value in read.items():
        with contextlib.suppress(TypeError, ValueError):
            numbers[key] = float(value) if isinstance(value, str) else value
    own = {"model_name": str(model), "device": "cpu", "batch_size": count, "layers": layers}
    if method == "lora":
        return {**read, **numbers, **own, "layers": [], "lora_type": "lora", "lora_dropout": 0.0}
    if method == "alphaedit":
        own["P_loc"] = "null_space_project.pt"
    return {**read, **numbers, **own, "v_loss_layer": more.pop("last"), **more}


def theirs(
    method: str,
    given: dict[str, Any],
    model_path: Path,
    edits: list[dict[str, Any]],
    texts: list[str],
    moments: dict[int, Tensor],
    mend: bool = True,
) -> dict[str, Tensor]:
    """ΔW by weight name, by EasyEdit's own apply function. `mend`: PMET's target gets the space that it lacks."""
    tok = AutoTokenizer.from_pretrained(model_path)
    # The narrow model's tokenizer is of no family, and would give token types, which no decoder takes.
    tok.model_input_names = ["input_ids", "attention_mask"]
    tok.pad_token_id = tok.eos_token_id if tok.pad_token_id is None else tok.pad_token_id
    # As its BaseEditor sets it.
    tok.padding_side = "left" if method == "lora" else "right"
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32, attn_implementation="eager")
    named = METHODS[method]
    hparams = importlib.import_module(f"easyeditor.models.{method}.{named if method == 'alphaedit' else method}_hparams")
    main = importlib.import_module(f"easyeditor.models.{method}.{named if method == 'alphaedit' else method}_main")
    hp = getattr(hparams, f"{named}HyperParams")(**given)
    space = " " if method == "pmet" and mend else ""
    requests = [{**e, "target_new": space + e["target_new"], "case_id": i, "ground_truth": ""} for i, e in enumerate(edits)]
    before = {n: w.detach().clone() for n, w in model.named_parameters()}
    if method != "lora":
        main.CONTEXT_TEMPLATES_CACHE = [["{}"], [t for t in texts if t != "{}"]]
        for layer, moment in moments.items():
            main.COV_CACHE[str(model_path).replace("/", "_"), given["rewrite_module_tmp"].format(layer)] = moment
    apply = getattr(main, f"apply_{named if method == 'alphaedit' else method}_to_model")
    torch.manual_seed(0)  # PEFT draws LoRA's A.
    edited, _ = apply(model, tok, requests, hp)
    if method == "lora":
        edited = edited.merge_and_unload()
    return {n: w.detach() - before[n] for n, w in edited.named_parameters() if n in before and not torch.equal(w, before[n])}


def norms(ours: dict[str, Tensor], others: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """‖ΔW‖ of all layers together, by module: what can be compared of two trainings from different random starts."""
    made: dict[str, dict[str, float]] = {}
    for side, delta in (("norm", ours), ("norm_theirs", others)):
        for name, one in delta.items():
            module = made.setdefault(".".join(name.split(".")[3:-1]), {})
            module[side] = module.get(side, 0.0) + float(one.double().square().sum())
    return {module: {side: round(square**0.5, 4) for side, square in sides.items()} for module, sides in made.items()}


def between(moments: dict[int, Tensor]) -> float:
    """A threshold that takes about half of the directions of a random model's C, which has no small eigenvalues: halfway between
    two of them, since one that lies on it falls to either side by rounding."""
    values = [torch.linalg.eigvalsh(m) for m in moments.values()]
    above = min(float(v[len(v) // 2]) for v in values)
    every = torch.cat(values)
    return (above + float(every[every < above].max())) / 2


def compare(ours: dict[str, Tensor], others: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    made = {}
    for name in sorted(ours.keys() & others.keys()):
        a, b = ours[name].double().flatten(), others[name].double().flatten()
        made[name] = {
            "cosine": round(float(a @ b / (a.norm() * b.norm())), 6),
            "relative": round(float((a - b).norm() / b.norm()), 6),
            "norm": round(float(a.norm()), 6),
            "norm_theirs": round(float(b.norm()), 6),
        }
    return made


def worst(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """Of all layers: the least cosine, the largest relative difference."""
    return {
        "cosine": min(one["cosine"] for one in found.values()),
        "relative": max(one["relative"] for one in found.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--easyedit", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--model", help="a Hugging Face folder; its path names the family, as EasyEdit wants it")
    parser.add_argument("--kind", default="llama", choices=["llama", "qwen2"])
    parser.add_argument("--edits", help="a JSON list of {subject, prompt, target_new}")
    parser.add_argument("--text", help="for the second moments")
    parser.add_argument("--methods", default="memit,alphaedit,pmet,lora")
    parser.add_argument("--causes", action="store_true", help="ours again, with each of our own ways in turn")
    parser.add_argument("--hparams", help="JSON over EasyEdit's own files; default for a random model: what moves it")
    parser.add_argument("--layers", default="2,3,4")
    parser.add_argument("--threads", type=int, default=2)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    from conftest import EDITS, TEXT

    checkout, folder = Path(flags.easyedit).resolve(), Path(flags.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    without_init(checkout)
    sys.path.insert(0, str(checkout))
    random = flags.model is None
    text = Path(flags.text).resolve() if flags.text else folder / "text.txt"
    model = random_model(folder, flags.kind, "\n\n".join(TEXT)) if random else Path(flags.model).resolve()
    edits = json.loads(Path(flags.edits).read_text()) if flags.edits else EDITS
    layers = [int(n) for n in flags.layers.split(",")]
    wide = {"mom2_update_weight": 0.01, "clamp_norm_factor": 20, "v_weight_decay": 0.0, "v_lr": 0.5, "L2": 0.01}
    over = json.loads(flags.hparams) if flags.hparams else wide if random else {}
    common: dict[str, Any] = {
        "protocol": 1, "base": {"path": str(model)}, "work_dir": "work", "out_dir": "out", "cache_dir": "cache",
        "statistics": {"text": str(text), "tokens": 20_000}, "threads": flags.threads, "dtype": "float32",
    }  # fmt: skip
    quiet = Reporter(io.StringIO())
    base = parse_job({**common, "task": "score"})
    loaded = load(base.base, base.cache_dir, quiet, base.device, base.dtype)
    texts = contexts(loaded, 5, 10, 0)
    found = second_moments(parse_job({**common, "method": "memit"}), loaded, quiet, layers)
    moments = {n: found.moment(n) for n in layers}
    probes = [
        {"kind": "efficacy", "prompt": e["prompt"], "target_new": e["target_new"], "target_true": e.get("target_true", "Lund")}
        for e in edits
    ] + [
        {"kind": "paraphrase", "prompt": f"They say this. {e['prompt']}", "target_new": e["target_new"], "target_true": "Lund"}
        for e in edits
    ]
    report: dict[str, Any] = {"model": str(model), "edits": len(edits), "layers": layers}
    report["base"] = score(loaded, probes)
    for method in flags.methods.split(","):
        more = {k: v for k, v in over.items() if k not in ("L2",) or method == "alphaedit"}
        if method == "alphaedit" and random and not flags.hparams:
            more["nullspace_threshold"] = between(moments)
        given = easyedit_hparams(checkout, method, model, len(edits), layers, {**more, "last": len(loaded.layers) - 1})
        Path("null_space_project.pt").unlink(missing_ok=True)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                delta = theirs(method, given, model, edits, texts, moments)
        except Exception as error:
            report[method] = {"error": f"EasyEdit: {type(error).__name__}: {error}"}
            continue
        hparams = (
            {"keys": False, "rank": given["rank"], "lr": given["lr"], "modules": ["self_attn.q_proj", "self_attn.v_proj"],
             "layers": list(range(len(loaded.layers))), "epochs": int(given["num_steps"]), "least_steps": 0, "neighbours": 1}
            if method == "lora"
            else of_easyedit(given, method)
        )  # fmt: skip

        def own(over: dict[str, Any], method: str = method, hparams: dict[str, Any] = hparams) -> dict[str, Tensor]:
            job = {**common, "method": method, "edits": edits, "hparams": {**hparams, **over}, "export": {"name": method}}
            made = perform(parse_job(job), quiet)
            updates = read_adapter(Path(made["adapter"]["gguf"]), loaded.model.config)[0]
            return {f"model.layers.{u.layer}.{u.module}.weight": u.dense() for u in updates}

        ours = own({})
        save_file({n: d.contiguous() for n, d in delta.items()}, f"{method}.safetensors")
        most = {"name": f"{method}-theirs", "max_rank": 512}
        taken = perform(parse_job({**common, "task": "import", "source": f"{method}.safetensors", "export": most}), quiet)
        back = read_adapter(Path(taken["adapter"]["gguf"]), loaded.model.config)[0]
        report[method] = {
            "ours": score(loaded, probes, ours),
            "theirs": score(loaded, probes, delta),
            "theirs, taken back in": score(
                loaded, probes, {f"model.layers.{u.layer}.{u.module}.weight": u.dense() for u in back}
            ),
            "rank of theirs": taken["adapter"]["rank"],
            "ΔW": norms(ours, delta) if method == "lora" else compare(ours, delta),
        }
        if flags.causes and method != "lora":
            report[method]["causes"] = {
                name: worst(compare(own(ways), delta)) for name, ways in CAUSES.items() if "ease" not in ways or method == "pmet"
            }
        if flags.causes and method == "pmet":
            with contextlib.redirect_stdout(io.StringIO()):
                without = theirs(method, given, model, edits, texts, moments, mend=False)
            report[method]["causes"]["no space before the target (EasyEdit's)"] = worst(compare(ours, without))
    report["patched"] = [*PATCHES, *GIVEN]
    print(json.dumps(report, indent=1, ensure_ascii=False))


def score(loaded: LoadedModel, probes: list[dict[str, Any]], delta: dict[str, Tensor] | None = None) -> dict[str, Any]:
    """Teacher-forced success and match of the model with ΔW added to its weights."""
    weights = dict(loaded.model.named_parameters())
    for name, one in (delta or {}).items():
        weights[name].data.add_(one)
    try:
        found = score_probes(loaded, probes)
    finally:
        for name, one in (delta or {}).items():
            weights[name].data.sub_(one)
    return {k: f"{found[k]['success']:.1f} ({found[k]['match']:.1f})" for k in ("efficacy", "paraphrase")}


if __name__ == "__main__":
    main()
