"""Teaches the reader. `python -m palimpsest_reader.train --help`; `npm run train:reader` calls it. Seeded, saved as it goes, resumed by itself."""

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .body import read_body, tokenizer
from .data import Pool, Question, corpus_pools, corpus_teams, held_out, public_pool
from .export import export
from .nearest import embed, nearest
from .network import Reader

LONGEST_TOKENS = 320
NEAR = 12
#: a nearest edit is drawn from this many
DRAWN_FROM = 6
BATCH_TOKENS = 4096
SAVE_SECONDS = 120

Pair = tuple[str, str, int]


def pairs_of(pool: Pool, near: np.ndarray, rng: random.Random, spare: float = 0.0, share: float = 1.0) -> list[Pair]:
    """A share of the questions, and all everyday ones, with the edits they need, those that are wrong for certain, and some of the nearest others."""
    pairs: list[Pair] = []
    write = lambda i: rng.choice([pool.edits[i], *pool.variants.get(i, [])])  # noqa: E731
    for question, order in zip(pool.questions, near, strict=True):
        if not question.source.startswith("traffic") and rng.random() > share:
            continue
        keys = {pool.keys[i] for i in question.right | question.wrong}
        for i in question.right:
            pairs.append((question.text, write(i), 1))
        for i in question.wrong:
            pairs.append((question.text, write(i), 0))
        others = [i for i in order if pool.keys[i] not in keys and i not in question.unsure and i not in question.right]
        count = question.nearest if spare == 0.0 or rng.random() > spare else 0
        for i in rng.sample(others[:DRAWN_FROM], min(count, len(others[:DRAWN_FROM]))):
            pairs.append((question.text, write(i), 0))
    return pairs


def crowd_pairs(questions: list[Question], near: np.ndarray, crowd: Pool, share: float, rng: random.Random) -> list[Pair]:
    """A share of the teams' questions, each with one of the nearest public edits, which all name their subject: none of them is needed."""
    asked = [(q, order) for q, order in zip(questions, near, strict=True) if rng.random() < share]
    return [(q.text, crowd.edits[rng.choice(order[:DRAWN_FROM])], 0) for q, order in asked]


def batches(pairs: list[Pair], encode, body, rng: random.Random):
    """Batches of about BATCH_TOKENS, of pairs of like length, in random order."""
    texts = {t for q, e, _ in pairs for t in (q, e)}
    ids = {t: e.ids for t, e in zip(texts, encode.encode_batch(list(texts)), strict=True)} if texts else {}
    rows = [([body.bos, *ids[q], body.eos, body.eos, *ids[e], body.eos][:LONGEST_TOKENS], label) for q, e, label in pairs]
    rng.shuffle(rows)
    rows.sort(key=lambda row: len(row[0]) // 6)
    out, some = [], []
    for row in rows:
        some.append(row)
        if (len(some) + 1) * len(row[0]) > BATCH_TOKENS:
            out.append(some)
            some = []
    if some:
        out.append(some)
    rng.shuffle(out)
    return out


def tensors(rows, pad: int):
    longest = max(len(r) for r, _ in rows)
    ids = torch.tensor([r + [pad] * (longest - len(r)) for r, _ in rows])
    return ids, torch.tensor([len(r) for r, _ in rows]), torch.tensor([float(y) for _, y in rows])


def vectors_of(pools: list[Pool], body) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each pool, the vectors of its edits and of its questions."""
    vectors = embed(body, [t for p in pools for t in (*p.edits, *(q.text for q in p.questions))])
    ends = np.cumsum([n for p in pools for n in (len(p.edits), len(p.questions))])
    parts = np.split(vectors, ends[:-1])
    return list(zip(parts[::2], parts[1::2], strict=True))


def with_neighbours(pools: list[Pool], body) -> list[np.ndarray]:
    """The edits nearest to each question of each pool."""
    return [nearest(asked, edits, NEAR) for edits, asked in vectors_of(pools, body)]


@torch.inference_mode()
def score(reader: Reader, pairs: list[Pair], encode, body) -> np.ndarray:
    """Logits in the order of `pairs`."""
    reader.eval()
    rows = [
        [body.bos, *q.ids, body.eos, body.eos, *e.ids, body.eos][:LONGEST_TOKENS]
        for q, e in zip(encode.encode_batch([p[0] for p in pairs]), encode.encode_batch([p[1] for p in pairs]), strict=True)
    ]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    out = np.zeros(len(rows), np.float32)
    at = 0
    while at < len(order):
        size = max(1, BATCH_TOKENS // len(rows[order[min(len(order) - 1, at + 40)]]))
        some = order[at : at + size]
        ids, lengths, _ = tensors([(rows[i], 0) for i in some], body.pad)
        out[some] = reader(ids, lengths).numpy()
        at += size
    reader.train()
    return out


def report(reader: Reader, pools: list[Pool], near: list[np.ndarray], encode, body, thresholds: tuple[float, ...]) -> list[dict]:
    """Found (the right edit is taken) and false (anything is taken) by type of message, over memories of one team each; at each threshold."""
    pairs, owners = [], []
    for pool, orders in zip(pools, near, strict=True):
        for question, order in zip(pool.questions, orders, strict=True):
            some = list(dict.fromkeys([*order[:6], *question.right, *question.wrong]))
            for i in some:
                pairs.append((question.text, pool.edits[i], 0))
                owners.append((id(question), question, i))
    logits = score(reader, pairs, encode, body)
    return [tally_of(owners, logits, math.log(t / (1 - t))) for t in thresholds]


def tally_of(owners: list[tuple[int, Question, int]], logits: np.ndarray, cut: float) -> dict[str, str]:
    """By type of message. `owners`: whose pair each logit is, a key of the message, the message and the edit."""
    taken: dict[int, set[int]] = {}
    asked = {}
    for (key, question, i), logit in zip(owners, logits, strict=True):
        asked[key] = question
        if logit >= cut:
            taken.setdefault(key, set()).add(i)
    tally: dict[str, list[int]] = {}
    for key, question in asked.items():
        hit = taken.get(key, set())
        good = bool(hit & question.right) if question.right else bool(hit - question.unsure)
        kind = question.source if not (question.source.startswith("-") and question.right) else f"{question.source}(is)"
        for name in (kind, "found" if question.right else "false"):
            counts = tally.setdefault(name, [0, 0])
            counts[0] += good
            counts[1] += 1
    return {name: f"{100 * a / b:.1f} ({b})" for name, (a, b) in sorted(tally.items())}


def learn(reader: Reader, optimizer: torch.optim.Optimizer, rows, rate: float, smooth: float, pad: int) -> float:
    """One step over a batch, at this rate, towards labels smoothed by so much; the loss before it."""
    trained = [p for p in reader.parameters() if p.requires_grad]
    ids, lengths, labels = (t.to(trained[0].device) for t in tensors(rows, pad))
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = F.binary_cross_entropy_with_logits(reader(ids, lengths), labels * (1 - 2 * smooth) + smooth)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def share_of_rate(step: int, total: int) -> float:
    """It rises over the first twentieth, and then falls to a fiftieth."""
    warm = max(1, total // 20)
    return min((step + 1) / warm, max(0.02, (total - step) / (total - warm + 1)))


def seeded(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, random.Random]:
    """What was typed, --seed and --threads among it; torch has both."""
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    return options, random.Random(options.seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--body", type=Path, required=True, help="the 4-bit file of multilingual-e5-small")
    parser.add_argument("--corpus", type=Path, help="folder of our corpus, JSON lines")
    parser.add_argument("--public", type=Path, help="folder of the public development sets")
    parser.add_argument("--counterfact", type=int, default=5000, help="flat CounterFact records among them")
    parser.add_argument("--start", type=Path, help="a checkpoint to begin from")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the weights")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--repeat", type=int, default=1, help="passes over the corpus for each over the public sets")
    parser.add_argument("--spare", type=float, default=0.0, help="share of the public questions asked without nearest others")
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--layers", default="0,1,2,3,4,5,6,7,8,9,10,11")
    parser.add_argument("--smooth", type=float, default=0.02)
    parser.add_argument("--rehearse", type=float, default=1.0, help="share of the pairs of teams that --start was taught already")
    parser.add_argument("--public-share", type=float, default=1.0)
    parser.add_argument("--crowd", type=float, default=0.1, help="share of the teams' questions taught with a public edit near them")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--freeze", type=int, default=0, help="so many of the first layers are taught no more")
    parser.add_argument("--keep-all", action="store_true", help="teach the held-out teams too")
    options, rng = seeded(parser)
    options.out.mkdir(parents=True, exist_ok=True)
    body = read_body(options.body)
    encode = tokenizer(body)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    began = time.monotonic()
    say = lambda text: print(f"[{time.monotonic() - began:7.1f} s] {text}", flush=True)  # noqa: E731
    own = corpus_pools(corpus_teams(options.corpus)) if options.corpus else []
    taught = [p for p in own if options.keep_all or not held_out(p)]
    kept = [p for p in own if held_out(p)]
    public = [public_pool(options.public, rng, options.counterfact)] if options.public else []
    vectors = vectors_of([*taught, *kept, *public], body)
    near = [nearest(asked, edits, NEAR) for edits, asked in vectors]
    say(f"{len(taught)} teams taught, {len(kept)} held out, {sum(len(p.questions) for p in [*taught, *public])} questions")
    pairs: list[Pair] = []
    for pool, orders in zip(public, near[len(taught) + len(kept) :], strict=True):
        pairs += pairs_of(pool, orders, rng, options.spare, options.public_share)
        many, _ = vectors[-1]
        for team, (_, asked) in zip(taught, vectors, strict=False):
            pairs += crowd_pairs(team.questions, nearest(asked, many, DRAWN_FROM), pool, options.crowd, rng)
    start = torch.load(options.start, map_location="cpu") if options.start else {}
    known = set(start.get("teams", []))
    for _ in range(options.repeat):
        for pool, orders in zip(taught, near, strict=False):
            some = pairs_of(pool, orders, rng)
            pairs += rng.sample(some, int(len(some) * options.rehearse)) if pool.name in known else some
    teams = sorted(known | {pool.name for pool in taught})
    reader = Reader(body, [int(i) for i in options.layers.split(",")], options.dropout).to(device).train()
    reader.freeze(options.freeze)
    if options.start:
        reader.load_state_dict(start["reader"], strict=False)
    steps = batches(pairs, encode, body, rng)
    total = max(1, int(len(steps) * options.epochs))
    say(f"{len(pairs)} pairs, {sum(y for _, _, y in pairs)} right; {len(steps)} batches, {total} steps on {device}")
    trained = [p for p in reader.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, options.rate, weight_decay=0.01, fused=True)
    state, first = options.out / "state.pt", 0
    if state.exists():
        saved = torch.load(state, map_location=device)
        reader.load_state_dict(saved["reader"], strict=False)
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
        say(f"goes on at step {first}")
    saved_at, mean = time.monotonic(), 0.0

    def save(step: int) -> None:
        part = state.with_suffix(".part")
        torch.save({"reader": reader.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "teams": teams}, part)
        part.replace(state)

    for step in range(first, total):
        rate = options.rate * share_of_rate(step, total)
        loss = learn(reader, optimizer, steps[step % len(steps)], rate, options.smooth, body.pad)
        mean = loss if step == first else 0.97 * mean + 0.03 * loss
        if step % 25 == 0:
            say(f"step {step}/{total} loss {mean:.4f}")
        if time.monotonic() - saved_at > SAVE_SECONDS:
            save(step + 1)
            saved_at = time.monotonic()
    save(total)
    size = export(reader, options.out / "reader.safetensors", {"seed": str(options.seed), "pairs": str(len(pairs))})
    say(f"wrote {size / 1e6:.1f} MB")
    if kept:
        (figures,) = report(reader, kept, near[len(taught) : len(taught) + len(kept)], encode, body, (0.5,))
        (options.out / "held-out.json").write_text(json.dumps(figures, indent=1))
        say(f"held out: {json.dumps(figures)}")


if __name__ == "__main__":
    main()
