"""Prefixes before a prompt, so that a target holds after other text as well: the bare prompt and a few texts of the model's own."""

from __future__ import annotations

import torch

from palimpsest_editor.loading import LoadedModel

STARTS = ("The", "Therefore", "Because", "I", "You", "In", "When", "A")


@torch.no_grad()
def sample(loaded: LoadedModel, starts: list[str], tokens: int, seed: int) -> list[str]:
    """Continues each start by `tokens` tokens, sampled at temperature 1 from the 50 likeliest; the start is part of the text."""
    tokenizer = loaded.tokenizer
    tokenizer.padding_side = "left"
    coded = tokenizer(starts, return_tensors="pt", padding=True).to(loaded.device)
    torch.manual_seed(seed)
    out = loaded.model.generate(**coded, do_sample=True, temperature=1.0, top_k=50, top_p=1.0, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=tokenizer.pad_token_id)
    tokenizer.padding_side = "right"
    return tokenizer.batch_decode(out, skip_special_tokens=True)


def contexts(loaded: LoadedModel, many: int, tokens: int, seed: int) -> list[str]:
    """Templates with `{}` for the prompt, the bare one first (Meng et al., 2023, §4: "{}" and generated texts before "{}")."""
    if many == 0:
        return ["{}"]
    starts = [STARTS[i % len(STARTS)] for i in range(many)]
    texts = (t.replace("{", " ").replace("}", " ").replace("\n", " ").strip() for t in sample(loaded, starts, tokens, seed))
    return ["{}", *(f"{t}. {{}}" for t in texts)]
