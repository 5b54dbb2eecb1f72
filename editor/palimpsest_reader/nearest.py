"""The edits nearest to each question by the embedder's vectors (mean pooling of the body, "query: " before every text)."""

import numpy as np
import torch

from .body import Body, tokenizer
from .network import Reader

LONGEST_TOKENS = 128
BATCH_TOKENS = 8192


def embed(body: Body, texts: list[str]) -> np.ndarray:
    """Unit vectors, shape (texts, width)."""
    network = Reader(body, list(range(body.layers)), dropout=0.0).eval()
    encode = tokenizer(body)
    rows = [[body.bos, *e.ids[: LONGEST_TOKENS - 2], body.eos] for e in encode.encode_batch([f"query: {t}" for t in texts])]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    out = np.zeros((len(rows), body.width), np.float32)
    at = 0
    with torch.inference_mode():
        while at < len(order):
            size = max(1, BATCH_TOKENS // len(rows[order[min(len(order), at + 64) - 1]]))
            some = order[at : at + size]
            longest = max(len(rows[i]) for i in some)
            ids = torch.tensor([rows[i] + [body.pad] * (longest - len(rows[i])) for i in some])
            lengths = torch.tensor([len(rows[i]) for i in some])
            hidden = network.hidden(ids, lengths).float()
            mask = (torch.arange(longest)[None] < lengths[:, None]).unsqueeze(-1)
            mean = (hidden * mask).sum(1) / lengths[:, None]
            out[some] = torch.nn.functional.normalize(mean, dim=1).numpy()
            at += size
    return out


def nearest(questions: np.ndarray, edits: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k nearest edits, best first, shape (questions, min(k, edits))."""
    k = min(k, len(edits))
    out = []
    for start in range(0, len(questions), 512):
        similar = questions[start : start + 512] @ edits.T
        top = np.argpartition(-similar, k - 1, axis=1)[:, :k]
        out.append(np.take_along_axis(top, np.argsort(-np.take_along_axis(similar, top, 1), axis=1), 1))
    return np.concatenate(out) if out else np.zeros((0, k), int)
