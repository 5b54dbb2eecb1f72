"""Second moments C = E[kkᵀ] of the inputs of an edited matrix, from text: once per model and text, cached, resumable,
checksummed.

The text is the user's (`statistics.text`: files, one text a paragraph) or, where none is given, what the model itself says
after a list of openings of ours: its own text is what it was trained to have keys for, and no corpus need be shipped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from palimpsest_editor.closed_form.hparams import Hparams, hparams
from palimpsest_editor.faults import Fault
from palimpsest_editor.protocol import Job, Reporter
from palimpsest_editor.texts.contexts import sample
from palimpsest_editor.weights.checkpoint import Pieces, fingerprint, sha256_of, write_atomically
from palimpsest_editor.weights.forward import keys_of_tokens
from palimpsest_editor.weights.loading import LoadedModel

DEFAULT_TOKENS = 20_000
LENGTH = 128
ROWS = 48
"""Texts a pass: adding to a sum of inputs² entries is dear, so many tokens are added at once."""
SAVE_EVERY_TOKENS = 20_000

OPENINGS = (
    "The city of", "Born in", "In 1987, the", "The river", "She studied", "The company was founded", "A short history of",
    "The film tells", "Scientists have found", "The capital", "He played for", "The language spoken in", "This album",
    "The museum holds", "During the war", "The recipe calls for", "My grandmother", "The island of", "The university",
    "Last summer we", "The king", "In mathematics,", "The bridge", "An engine works by", "The novel is set in", "Her first job",
    "The law says", "A triangle", "The team won", "Once upon a time", "The band formed in", "Doctors advise",
    "The president of", "The village", "On the east coast", "The painter", "To install the package,", "The animal lives in",
    "The church was built", "Question: What is", "The software was developed by", "He was a citizen of", "The airline",
    "The mountain", "According to the report,", "The television series", "His mother tongue", "The headquarters of",
    "Dear Sir,", "The planet", "The professor of", "In the kitchen", "The football club", "The train from", "def ",
    "The philosopher", "Her religion", "The harbour", "The car is made by", "A good way to", "The festival takes place",
    "The actor, known for", "The treaty", "The continent of",
)  # fmt: skip


@dataclass
class Moments:
    """Second moments on disk, one file a layer."""

    pieces: Pieces
    key: str
    layers: tuple[int, ...]
    tokens: int

    def moment(self, layer: int) -> Tensor:
        """C of a layer, inputs × inputs, float32."""
        found = self.pieces.load(f"layer-{layer}", self.key)
        if found is None:
            raise Fault(
                "internal", f"The statistics of layer {layer} were changed on disk", "Run the job again: they are computed anew"
            )
        return found["sum"] / found["count"]

    def about(self) -> dict[str, Any]:
        return {"folder": str(self.pieces.folder), "layers": list(self.layers), "tokens": self.tokens}


def statistics_layers(job: Job, loaded: LoadedModel) -> tuple[int, ...]:
    """Layers that a `statistics` job wants: its own list, else those of the method's preset."""
    wanted = job.statistics.get("layers")
    return tuple(int(n) for n in wanted) if wanted else hparams(loaded, job.method or "memit", job.hparams).layers


def _own_text(loaded: LoadedModel, tokens: int, seed: int, path: Path, reporter: Reporter) -> list[str]:
    """Texts that the model wrote after our openings, kept in one file a model: more tokens go on where fewer stopped."""
    texts: list[str] = json.loads(path.read_text()) if path.exists() else []
    openings = [o for o in OPENINGS for _ in range(2)]
    of = -(-tokens // (LENGTH - 8))
    while len(texts) < of:
        reporter.progress("text", len(texts), of)
        at = len(texts) % len(openings)
        texts += sample(loaded, openings[at : at + of - len(texts)], LENGTH - 8, seed + len(texts), reporter.check)
        said = json.dumps(texts, ensure_ascii=False)
        write_atomically(path, partial(Path.write_text, data=said))
    reporter.progress("text", of, of)
    return texts[:of]


def _texts(job: Job, loaded: LoadedModel, tokens: int, reporter: Reporter) -> list[str]:
    given = job.statistics.get("text")
    if not given:
        seed = int(job.statistics.get("seed", 0))
        named = fingerprint(loaded.sha256 or str(job.base.path), seed, OPENINGS, LENGTH)
        return _own_text(loaded, tokens, seed, job.cache_dir / "statistics" / f"text-{named}.json", reporter)
    paths = [Path(p) for p in ([given] if isinstance(given, str) else given)]
    try:
        return [t.strip() for p in paths for t in p.read_text(encoding="utf-8").split("\n\n") if t.strip()]
    except OSError as error:
        raise Fault(
            "malformed_job", f"The text for the statistics cannot be read: {error}", "Name text files in statistics.text"
        ) from error


def _key(job: Job, loaded: LoadedModel) -> tuple[str, int, str]:
    """What names the statistics: a digest of model, text and sizes; the tokens wanted; the module."""
    wanted = int(job.statistics.get("tokens", DEFAULT_TOKENS))
    module = str(job.hparams.get("module", "mlp.down_proj"))
    given = job.statistics.get("text")
    files = [given] if isinstance(given, str) else given or []
    sources = [sha256_of(Path(p)) if Path(p).exists() else p for p in files]
    model = loaded.sha256 or str(job.base.path)
    return fingerprint(model, str(loaded.dtype), module, wanted, sources, job.statistics.get("seed", 0), LENGTH), wanted, module


def cached(job: Job, loaded: LoadedModel, layers: Sequence[int], what: str = "layer") -> bool:
    """Whether the statistics of these layers are there (their checksums are looked at when they are read), or what is made of
    them."""
    folder = job.cache_dir / "statistics" / _key(job, loaded)[0]
    return all((folder / f"{what}-{n}.json").exists() for n in layers)


def null_space_name(hp: Hparams) -> str:
    """Of the files that AlphaEdit's bases lie in, short of the layer."""
    return f"null-space-share-{hp.nullspace_share:g}" if hp.nullspace_share else f"null-space-{hp.nullspace_threshold:g}"


@torch.no_grad()
def second_moments(job: Job, loaded: LoadedModel, reporter: Reporter, layers: Sequence[int]) -> Moments:
    """Statistics of these layers on the untouched model, from the cache where they are there, else computed and kept."""
    key, wanted, module = _key(job, loaded)
    pieces = Pieces(job.cache_dir / "statistics" / key)
    missing = [n for n in layers if pieces.load(f"layer-{n}", key) is None]
    if missing:
        texts = _texts(job, loaded, wanted, reporter)
        _accumulate(loaded, texts, wanted, missing, module, pieces, key, reporter)
    return Moments(pieces, key, tuple(layers), wanted)


def _accumulate(
    loaded: LoadedModel,
    texts: list[str],
    wanted: int,
    layers: list[int],
    module: str,
    pieces: Pieces,
    key: str,
    reporter: Reporter,
) -> None:
    coded = sorted(
        (ids for ids in (loaded.tokenizer(t, truncation=True, max_length=LENGTH)["input_ids"] for t in texts) if len(ids) > 1),
        key=len,
    )
    # Shuffled, so that a limit on tokens takes a fair share of every length.
    order = torch.randperm(len(coded), generator=torch.Generator().manual_seed(0)).tolist()
    name = f"partial-{'-'.join(map(str, layers))}"
    inputs = loaded.module(layers[0], module).weight.shape[1]
    found = pieces.load(name, key)
    sums = {n: (found[str(n)] if found else torch.zeros(inputs, inputs)).to(loaded.device) for n in layers}
    count, at = (int(found["count"]), int(found["at"])) if found else (0, 0)
    saved = count
    while at < len(order) and count < wanted:
        reporter.progress("statistics", count, wanted)
        part = [coded[i] for i in order[at : at + ROWS]]
        at += len(part)
        for n, k in keys_of_tokens(loaded, part, layers, module):
            sums[n].addmm_(k.T, k)
        count += sum(map(len, part))
        if count - saved >= SAVE_EVERY_TOKENS:
            pieces.save(name, key, {**{str(n): s for n, s in sums.items()}, "count": torch.tensor(count), "at": torch.tensor(at)})
            saved = count
    if count < inputs:
        reporter.note("few_tokens", f"{count} tokens for {inputs} inputs: C is singular, the ridge carries it")
    for n in layers:
        pieces.save(f"layer-{n}", key, {"sum": sums[n], "count": torch.tensor(float(count))})
    for ending in ("safetensors", "json"):
        (pieces.folder / f"{name}.{ending}").unlink(missing_ok=True)
    reporter.progress("statistics", wanted, wanted)
