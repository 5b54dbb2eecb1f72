"""How exactly an exported adapter is the edit, on one float base.

    python bench/exactness.py --base MODEL.gguf --adapter adapter.gguf --data COUNTERFACT.json [--write FOLDER]
    python bench/exactness.py --data COUNTERFACT.json --ask URL MODEL --ask URL MODEL

The first: max |Δlogit| in float32 between the adapter as read back from its GGUF, beside the matrices, and the same change
written into them; `--write` also gives the base and the edited model as float32 GGUFs. The second: max |Δ log-probability| of the
same tokens between two models that gateways serve, such as that base with the adapter, and the edited file (llama.cpp).
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import urllib.request
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize
from table import edit_of, records

from palimpsest_editor.protocol import Base, Reporter
from palimpsest_editor.weights.adapter import read_adapter, tensor_name
from palimpsest_editor.weights.loading import load
from palimpsest_editor.weights.lowrank import LowRankUpdate, applied


def texts_of(flags: argparse.Namespace) -> list[str]:
    raw = records(Path(flags.data), flags.first, flags.edits)
    return [f"{p} {edit_of(r)['target_new']}" for r in raw for p in (edit_of(r)["prompt"], r["neighborhood_prompts"][4])]


@torch.no_grad()
def in_torch(flags: argparse.Namespace) -> dict[str, object]:
    loaded = load(Base(Path(flags.base), None), Path(flags.cache), Reporter(io.StringIO()), "cpu", "float32")
    updates = read_adapter(Path(flags.adapter), loaded.model.config)[0]
    rows = [torch.tensor([loaded.tokenizer(t)["input_ids"]]) for t in texts_of(flags)]

    def logits() -> list[torch.Tensor]:
        return [loaded.model(ids).logits[0] for ids in rows]

    before = logits()
    with applied(loaded, updates):
        beside = logits()
    for u in updates:
        loaded.module(u.layer, u.module).weight.add_(u.dense())
    written = logits()

    def largest(some: list[torch.Tensor], others: list[torch.Tensor]) -> float:
        return max(float((a - b).abs().max()) for a, b in zip(some, others, strict=True))

    if flags.write:
        folder = Path(flags.write)
        folder.mkdir(parents=True, exist_ok=True)
        write(Path(flags.base), folder / "base-f32.gguf", [])
        write(Path(flags.base), folder / "edited-f32.gguf", updates)
    return {"texts": len(rows), "adapter_against_written": largest(beside, written), "edit_moves": largest(written, before)}


def write(source: Path, target: Path, updates: list[LowRankUpdate]) -> None:
    """The model with every tensor in float32, and the updates added to theirs."""
    reader = GGUFReader(source)
    changes = {tensor_name(u): u.dense().numpy() for u in updates}
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, 0 if field.name == "general.file_type" else field.contents(), kind, sub)
    for tensor in reader.tensors:
        dense = dequantize(tensor.data, GGMLQuantizationType(tensor.tensor_type)).astype(np.float32)
        writer.add_tensor(tensor.name, dense + changes.pop(tensor.name, np.float32(0)))
    assert not changes, f"the model has no {', '.join(changes)}"
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logprobs(url: str, model: str, texts: list[str]) -> list[list[float]]:
    said = []
    for text in texts:
        body = {"model": model, "prompt": text, "max_tokens": 0, "echo": True, "logprobs": 1, "palimpsest": {"edits": "off"}}
        request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            said.append(json.load(answer)["choices"][0]["logprobs"]["token_logprobs"][1:])
    return said


def served(flags: argparse.Namespace) -> dict[str, object]:
    texts = texts_of(flags)
    (first, second) = (logprobs(url, model, texts) for url, model in flags.ask)
    apart = [abs(a - b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)]
    return {"texts": len(texts), "tokens": len(apart), "largest": max(apart), "mean": sum(apart) / len(apart)}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("base", "adapter", "write"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--data", required=True)
    parser.add_argument("--cache", default=str(Path.home() / ".cache" / "palimpsest" / "handoff"))
    parser.add_argument("--ask", nargs=2, action="append", metavar=("URL", "MODEL"))
    parser.add_argument("--first", type=int, default=250)
    parser.add_argument("--edits", type=int, default=25)
    flags = parser.parse_args()
    torch.set_num_threads(2)
    print(json.dumps(served(flags) if flags.ask else in_torch(flags)))


if __name__ == "__main__":
    main()
