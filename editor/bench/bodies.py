"""The reader's body chosen by figures: the same pairs taught to three, from their public weights, for the same number of pairs.

    python bench/bodies.py --body e5-small-q4.bin --minilm FOLDER --out RESULT.json [--pairs 12000]

FOLDER has model.safetensors and vocab.txt of all-MiniLM-L6-v2 (English, six layers). The others are multilingual-e5-small, whose own
body began as the multilingual MiniLM (Wang et al. 2024, section 3), with its twelve layers and with every second one. Teams are held
out as in training; their neighbours come from e5's vectors for all three. Seconds are those of teaching and of reading.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from tokenizers import BertWordPieceTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from palimpsest_reader.body import Body, read_body, tokenizer
from palimpsest_reader.data import Pool, corpus_pools, corpus_teams, held_out
from palimpsest_reader.network import Reader
from palimpsest_reader.train import batches, learn, pairs_of, report, share_of_rate, with_neighbours

ROOT = Path(__file__).resolve().parents[2]
RATE = 1.5e-4
SMOOTH = 0.02
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
PARTS = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value", "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm", "fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip
EMBEDDINGS = {
    "emb.word": "word_embeddings.weight", "emb.pos": "position_embeddings.weight", "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight", "emb.ln.b": "LayerNorm.bias",
}  # fmt: skip


class WordPiece:
    """As the tokenizer of body.py: ids without special tokens."""

    def __init__(self, vocabulary: Path):
        self.made = BertWordPieceTokenizer(str(vocabulary), lowercase=True)

    def encode_batch(self, texts: list[str]):
        return self.made.encode_batch(texts, add_special_tokens=False)


def minilm(folder: Path, like: Body) -> Body:
    """all-MiniLM-L6-v2 in the shape that the network reads; its width, heads and inner width are e5-small's."""
    stored = load_file(folder / "model.safetensors")
    pieces = (folder / "vocab.txt").read_text("utf-8").splitlines()
    at = {name: pieces.index(f"[{name}]") for name in ("CLS", "SEP", "PAD", "UNK")}
    tensors = {own: stored[f"embeddings.{theirs}"] for own, theirs in EMBEDDINGS.items()}
    for layer in range(6):
        for own, theirs in PARTS.items():
            for kind, part in (("w", "weight"), ("b", "bias")):
                tensors[f"l{layer}.{own}.{kind}"] = stored[f"encoder.layer.{layer}.{theirs}.{part}"]
    special = {"bos": at["CLS"], "eos": at["SEP"], "pad": at["PAD"], "unk": at["UNK"]}
    return replace(like, layers=6, positions=512, epsilon=1e-12, pieces=pieces, scores=np.zeros(0), tensors=tensors, **special)


def english(pool: Pool) -> bool:
    """By its letters: a team whose edits hardly leave ASCII."""
    text = " ".join([*pool.edits, *(q.text for q in pool.questions)])
    return sum(c.isascii() for c in text) / len(text) > 0.995


def teach(reader: Reader, pairs: list, encode, body: Body, seed: int) -> float:
    """One pass over the pairs; its seconds."""
    steps = batches(pairs, encode, body, random.Random(seed))
    optimizer = torch.optim.AdamW([p for p in reader.parameters() if p.requires_grad], RATE, weight_decay=0.01, fused=True)
    began, total, mean = time.monotonic(), len(steps), 0.0
    for step, rows in enumerate(steps):
        loss = learn(reader, optimizer, rows, RATE * share_of_rate(step, total), SMOOTH, body.pad)
        mean = loss if step == 0 else 0.97 * mean + 0.03 * loss
        if step % 25 == 0:
            print(f"  step {step}/{total} loss {mean:.4f} {time.monotonic() - began:.0f} s", flush=True)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("body", "minilm", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, default=ROOT / "corpus")
    parser.add_argument("--pairs", type=int, default=12_000)
    parser.add_argument("--held", type=int, default=24, help="held-out teams asked, half of them English where there are so many")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    rng = random.Random(flags.seed)
    e5 = read_body(flags.body)
    pools = corpus_pools(corpus_teams(flags.corpus))
    rng.shuffle(pools)
    kept = [p for p in pools if held_out(p)]
    asked = {
        "English": [p for p in kept if english(p)][: flags.held // 2],
        "other languages": [p for p in kept if not english(p)][: flags.held // 2],
    }
    taught: list[Pool] = []
    for pool in (p for p in pools if not held_out(p)):
        taught.append(pool)
        if sum(len(p.questions) for p in taught) > flags.pairs / 2:
            break
    every = [*taught, *(p for some in asked.values() for p in some)]
    near = with_neighbours(every, e5)
    pairs = [pair for pool, orders in zip(taught, near, strict=False) for pair in pairs_of(pool, orders, rng)]
    pairs = rng.sample(pairs, min(flags.pairs, len(pairs)))
    print(f"{len(taught)} teams taught by {len(pairs)} pairs; asked: {({k: len(v) for k, v in asked.items()})}", flush=True)
    small = minilm(flags.minilm, e5)
    contenders = {
        "multilingual-e5-small": (e5, list(range(12)), tokenizer(e5)),
        "multilingual-e5-small, every second layer": (e5, list(range(1, 12, 2)), tokenizer(e5)),
        "all-MiniLM-L6-v2": (small, list(range(6)), WordPiece(flags.minilm / "vocab.txt")),
    }
    found = {}
    for name, (body, layers, encode) in contenders.items():
        torch.manual_seed(flags.seed)
        reader = Reader(body, layers, 0.05).train()
        print(name, flush=True)
        seconds = teach(reader, pairs, encode, body, flags.seed)
        figures, first = {}, len(taught)
        began = time.monotonic()
        for language, some in asked.items():
            orders = near[first : first + len(some)]
            first += len(some)
            reports = report(reader, some, orders, encode, body, THRESHOLDS)
            figures[language] = {f"{t}": {k: r[k] for k in ("found", "false")} for t, r in zip(THRESHOLDS, reports, strict=True)}
        found[name] = {"taught_s": round(seconds), "read_s": round(time.monotonic() - began), **figures}
        print(json.dumps(found[name]), flush=True)
        flags.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
