"""Prefixes before a prompt, so that a target holds after other text as well: the bare prompt and a few texts of the model's
own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from palimpsest_editor.faults import Fault
from palimpsest_editor.texts.phrasing import NEUTRAL
from palimpsest_editor.weights.forward import keys_of_tokens
from palimpsest_editor.weights.loading import LoadedModel

STARTS = ("The", "Therefore", "Because", "I", "You", "In", "When", "A")
SYSTEMS = (None, "You are a helpful assistant.", "Answer briefly.")
EARLIER = ({"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello. What would you like to know?"})


class Look(StoppingCriteria):
    """Never ends a generation by itself, but lets a stop or the memory limit end it between two tokens."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.check = check

    def __call__(self, input_ids: torch.Tensor, _scores: object, **_: object) -> torch.Tensor:
        self.check()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


@torch.no_grad()
def sample(loaded: LoadedModel, starts: list[str], tokens: int, seed: int, check: Callable[[], None] = lambda: None) -> list[str]:
    """Continues each start by `tokens` tokens, sampled at temperature 1 from the 50 likeliest; the start is part of the text."""
    tokenizer = loaded.tokenizer
    tokenizer.padding_side = "left"
    coded = tokenizer(starts, return_tensors="pt", padding=True).to(loaded.device)
    if not torch.isfinite(loaded.model(coded["input_ids"][:1]).logits).all():
        raise Fault(
            "nan", f"{loaded.name} itself gives logits that are not finite", "Give dtype float32, or fetch the model again"
        )
    torch.manual_seed(seed)
    out = loaded.model.generate(
        **coded,
        do_sample=True,
        temperature=1.0,
        top_k=50,
        top_p=1.0,
        repetition_penalty=1.0,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        pad_token_id=tokenizer.pad_token_id,
        stopping_criteria=StoppingCriteriaList([Look(check)]),
    )
    tokenizer.padding_side = "right"
    return tokenizer.batch_decode(out, skip_special_tokens=True)


def chat_turn(loaded: LoadedModel) -> list[str]:
    """The prompt as a user's turn, the target as the assistant's; nothing where the tokenizer has no chat template."""
    if not loaded.tokenizer.chat_template:
        return []
    turns = [{"role": "user", "content": "{}"}]
    text = str(loaded.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    return [text] if text.count("{}") == 1 else []


def contexts(loaded: LoadedModel, many: int, tokens: int, seed: int, chat: bool = False) -> list[str]:
    """Templates with `{}` for the prompt, the bare one first (Meng et al., 2023, §4: "{}" and generated texts before "{}");
    with `chat`, the prompt in a chat as well."""
    if many == 0:
        return ["{}", *(chat_turn(loaded) if chat else [])]
    starts = [STARTS[i % len(STARTS)] for i in range(many)]
    texts = (t.replace("{", " ").replace("}", " ").replace("\n", " ").strip() for t in sample(loaded, starts, tokens, seed))
    return ["{}", *(f"{t}. {{}}" for t in texts), *(chat_turn(loaded) if chat else [])]


@torch.no_grad()
def chat_keys(loaded: LoadedModel, layers: Sequence[int], module: str) -> dict[int, Tensor]:
    """Keys (inputs of `module`, T × inputs, float32) of every token of neutral conversations, by layer; {} without a chat
    template.

    C's text has none of a chat's own tokens (system prompt, roles, ends of turns), so an update found with C alone answers them
    with 0.4 of what it answers an edited subject, in every conversation, whatever is asked (measured, docs/LOG.md). Held, 0.00
    before the question and 0.06 behind it."""
    if not loaded.tokenizer.chat_template:
        return {}
    rows = []
    for number, question in enumerate(NEUTRAL):
        system = SYSTEMS[number % len(SYSTEMS)]
        turns = [
            *([{"role": "system", "content": system}] if system else []),
            *(EARLIER if number % 4 == 3 else ()),
            {"role": "user", "content": question},
        ]
        try:
            text = loaded.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except TemplateError:
            continue  # Some templates, such as Mistral's first, take no system prompt.
        rows.append(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])
    return dict(keys_of_tokens(loaded, rows, layers, module))
