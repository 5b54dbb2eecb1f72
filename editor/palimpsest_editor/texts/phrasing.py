"""Texts of our own around an edit: phrasings that must yield the target, and prompts near it that must not move.

Everything here is written for this editor; nothing is taken from a benchmark.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from palimpsest_editor.faults import Fault
from palimpsest_editor.texts.requests import EditRequest, tokens

PREFIXES = (
    "The match was called off because of the rain.",
    "It was first published in a small local paper.",
    "See also the notes at the end of the chapter.",
    "Three years later the bridge was rebuilt.",
    "The club finished seventh in the league that season.",
    "Category: Beetles first described in the nineteenth century",
    "The station lies on the eastern line.",
    "Retrieved in March of the same year.",
    "He had two brothers and a sister.",
    "The album was recorded over one summer.",
    "Its population was about four thousand at the last count.",
    "The committee met again in the autumn.",
)

ASKS = ("{}", "Complete this sentence: {}", "Finish in a few words: {}", "Please continue: {}", "Fill in what is missing. {} ...")

NAMES = (
    "Ludwig van Beethoven", "Marie Curie", "Isaac Newton", "Serena Williams", "Leo Tolstoy", "Frida Kahlo", "Nelson Mandela",
    "Ada Lovelace", "Johannes Kepler", "Agatha Christie", "Charles Darwin", "Diego Maradona", "Virginia Woolf", "Miles Davis",
    "Simone de Beauvoir", "Lisbon", "Kyoto", "Nairobi", "Buenos Aires", "Helsinki", "Marseille", "Denver", "Mumbai", "Krakow",
    "Norway", "Peru", "Vietnam", "Toyota Corolla", "Sony Walkman", "Nintendo Switch", "Adobe Photoshop", "Fiat Panda",
    "Airbus A320", "Nokia 3310", "Microsoft Excel", "IBM", "Siemens", "Volvo", "Heineken", "The Guardian", "Le Monde",
    "The Magic Flute", "Casablanca", "Don Quixote", "Seven Samurai", "Real Madrid", "The Beatles", "ABBA",
    "University of Oxford", "Lake Victoria", "Mount Fuji", "the Danube", "Islam", "Linux", "Sesame Street",
)  # fmt: skip

NEUTRAL = (
    "What is the capital of France?", "How many legs does a spider have?", "Write one sentence about the sea.",
    "What is 17 plus 26?", "Who wrote Romeo and Juliet?", "Explain briefly what a compiler does.", "Name three fruits.",
    "What colour is an emerald?", "Which language is spoken in Brazil?", "Translate 'good morning' into Spanish.",
    "What year did the Second World War end?", "What is the boiling point of water?", "Give me a tip for learning to cook.",
    "Which planet is the largest?", "Who painted the Mona Lisa?", "where was albert einstein born", "who founded microsoft",
    "what sport does roger federer play", "Write a Python function that adds two numbers.", "What is the opposite of hot?",
    "Is seven a prime number?", "when did the titanic sink", "What do bees make?", "Suggest a name for a cat.",
)  # fmt: skip


class ChatFormat:
    """Turns a question into the prompt that the served model gets: a text with `{}` for the question. None: bare completions
    only."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, given: str | None) -> None:
        self.tokenizer = tokenizer
        self.template = given
        if given is None and tokenizer.chat_template:
            self.template = tokenizer.apply_chat_template(
                [{"role": "user", "content": "{}"}], tokenize=False, add_generation_prompt=True
            )
        if self.template is not None and self.template.count("{}") != 1:
            raise Fault(
                "malformed_job", "hparams.chat holds `{}` other than once", "Give the chat format with one `{}` for the question"
            )

    def ids(self, prompt: Any, what: str = "prompt") -> list[int]:
        """Token ids of a rendered prompt: a text, ids already, or messages for the tokenizer's chat template."""
        if isinstance(prompt, str) and prompt:
            return list(self.tokenizer(prompt)["input_ids"])
        if isinstance(prompt, list) and prompt and all(isinstance(t, int) for t in prompt):
            return list(prompt)
        if isinstance(prompt, list) and prompt and all(isinstance(m, dict) for m in prompt) and self.tokenizer.chat_template:
            text = self.tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        raise Fault("malformed_job", f"A {what} is neither a text, token ids nor messages", f"Give each {what} as one of them")

    def ask(self, question: str) -> list[int]:
        """Token ids of the chat prompt for one question, or of the bare question where there is no chat format. A chat's marker
        inside it is text and ends no turn."""
        if self.template is None:
            return self.bare(question)
        before, _, after = self.template.partition("{}")
        return tokens(self.tokenizer, [(before, True), (question, False), (after, True)])[0]

    def bare(self, text: str) -> list[int]:
        """Token ids of an edit's words as a text to be gone on with."""
        return tokens(self.tokenizer, [(text, False)])[0]


def completions(edit: EditRequest, many: int, order: random.Random) -> list[str]:
    """Bare prompts that the target completes: the prompt, its paraphrases, and the prompt behind sentences that have nothing to
    do with it. Of a rule none: its target is no text that goes on."""
    if edit.kind == "rule":
        return []
    prefixes = order.sample(PREFIXES, min(many, len(PREFIXES)))
    return [edit.prompt, *edit.paraphrases, *(f"{p} {edit.prompt}" for p in prefixes)]


def questions(edit: EditRequest, many: int, prefixed: int, order: random.Random) -> list[str]:
    """What a user of the chat may type: the prompt itself, its paraphrases, the prompt in requests to complete it, and behind a
    sentence that has nothing to do with it. Of a rule its examples alone."""
    if edit.kind == "rule":
        return list(edit.examples)
    asks = [ASKS[0], *order.sample(ASKS[1:], min(max(many - 1, 0), len(ASKS) - 1))][:many]
    before = order.sample(PREFIXES, min(prefixed, len(PREFIXES)))
    phrased = [*(a.replace("{}", edit.prompt) for a in asks), *(f"{p} {edit.prompt}" for p in before)]
    return [*phrased, *edit.paraphrases[:many], *edit.examples]


def neighbours(edit: EditRequest, many: int, edits: Sequence[EditRequest], order: random.Random) -> list[str]:
    """The edit's prompt about other subjects: names of ours, none of which is edited. None of an edit that names no subject."""
    if not edit.subject:
        return []
    taken = {e.subject.casefold() for e in edits}
    free = [n for n in NAMES if n.casefold() not in taken]
    return [edit.prompt.replace(edit.subject, n) for n in order.sample(free, min(many, len(free)))]
