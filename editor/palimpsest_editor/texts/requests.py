"""Edits as the editor sees them: a prompt that holds the subject, a target, and the tokens of both; a sentence cut into two such
halves; or a rule, an instruction that is taught by examples."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from palimpsest_editor.faults import Fault

KINDS = ("fact", "sentence", "rule")


@dataclass(frozen=True)
class EditRequest:
    """One edit: `prompt` holds `subject` word for word ('' where it names none); `target_new` goes on after a space.

    `kind` is "fact", "sentence" (prompt and target are its two halves) or "rule" (`prompt` says when it holds, and may be '';
    `target_new` is what is to be done, and no answer). `examples` are messages that need it; with `always`, every one does."""

    id: str
    subject: str
    prompt: str
    target_new: str
    target_true: str | None = None
    paraphrases: tuple[str, ...] = ()
    relation: str | None = None
    kind: str = "fact"
    examples: tuple[str, ...] = ()
    always: bool = False


@dataclass(frozen=True)
class Encoded:
    """Tokens of context + prompt + target. `subject_last` is the last token of the subject, `target_start` the first of the
    target."""

    ids: tuple[int, ...]
    subject_last: int
    target_start: int


def parse_edits(raw: Iterable[dict[str, Any]]) -> list[EditRequest]:
    """Checks each edit; raises Fault("malformed_job") with its id."""
    edits = []
    for index, one in enumerate(raw):
        name = str(one.get("id", index)) if isinstance(one, dict) else str(index)
        if not isinstance(one, dict) or not all(isinstance(one.get(k), str) for k in ("subject", "prompt", "target_new")):
            raise Fault("malformed_job", f"edit {name} lacks subject, prompt or target_new", "Give all three as texts")
        kind = one.get("kind") or "fact"
        if kind not in KINDS:
            raise Fault("malformed_job", f"edit {name} is of the kind {kind!r}", f"One of {', '.join(KINDS)}")
        needed = ("target_new",) if kind == "rule" else ("prompt", "target_new")
        if not all(one[k].strip() for k in needed):
            raise Fault("malformed_job", f"edit {name}, a {kind}, has no {' or no '.join(needed)}", "Give each as a text")
        subject = one["subject"].strip()
        prompt = (one["prompt"].replace("{}", subject) if subject else one["prompt"]).rstrip()
        if subject not in prompt:
            raise Fault(
                "malformed_job", f"edit {name}: {subject!r} does not occur in {prompt!r}", "Write the subject as the prompt does"
            )
        paraphrases, examples = (
            tuple(p for p in one.get(k) or () if isinstance(p, str) and p.strip()) for k in ("paraphrases", "examples")
        )
        edits.append(
            EditRequest(
                name,
                subject,
                prompt,
                one["target_new"].strip(),
                one.get("target_true"),
                paraphrases,
                one.get("relation"),
                kind,
                examples,
                one.get("always") is True,
            )
        )
    return edits


def refuse_without_place(edits: Iterable[EditRequest], method: str | None) -> None:
    """MEMIT and its kin place one answer at one subject. Raises Fault("malformed_job") naming each edit that has none."""
    without = [f"{e.id} ({e.kind if e.kind != 'fact' else 'no subject'})" for e in edits if e.kind != "fact" or not e.subject]
    if without:
        raise Fault(
            "malformed_job",
            f"{method} places one answer at one subject, which these edits do not have: {', '.join(without)}",
            "Hand them off with lora or distil",
        )


def batches(edits: list[EditRequest], most: int) -> list[list[EditRequest]]:
    """At most `most` edits a batch and one a subject (case aside), the rest in the next: two keys of one subject would collide.

    Order is kept within a subject, so a later edit of a subject is made on top of an earlier one.
    """
    left = list(edits)
    made: list[list[EditRequest]] = []
    while left:
        batch: list[EditRequest] = []
        rest: list[EditRequest] = []
        held: set[str] = set()
        for edit in left:
            subject = edit.subject.casefold()
            if subject in held or len(batch) == most:
                rest.append(edit)
                held.add(subject)
            else:
                batch.append(edit)
                held.add(subject)
        made.append(batch)
        left = rest
    return made


def encode(tokenizer: PreTrainedTokenizerBase, context: str, prompt: str, subject: str, target: str | None = None) -> Encoded:
    """Tokens of `context` (holds `{}` once, for the prompt) with the places of subject and target, found by character offsets.

    The target goes on after a space, or at once on a line of its own (an assistant's turn). Without one, `target_start` is the
    end.
    """
    before, _, after = context.partition("{}")
    start = (before + prompt).rindex(subject, len(before))
    after = after.rstrip(" ")
    prompt = prompt if after else prompt.rstrip(" ")
    end = len(before) + len(prompt) + len(after)
    gap = "" if (before + prompt + after).endswith("\n") else " "
    said = "" if target is None else gap + target.strip()
    ids, spans = tokens(tokenizer, [(before, True), (prompt, False), (after, True), (said, False)])
    subject_last = max(i for i, (a, b) in enumerate(spans) if a < start + len(subject) and b > start)
    target_start = next((i for i, (_, b) in enumerate(spans) if b > end), len(spans))
    return Encoded(tuple(ids), subject_last, target_start)


def tokens(tokenizer: PreTrainedTokenizerBase, parts: list[tuple[str, bool]]) -> tuple[list[int], list[tuple[int, int]]]:
    """Tokens of the joined parts and their places in it. Only in parts that are ours (True) does a chat's marker such as
    `<|im_end|>` count as one; in an edit's words it is cut up like any other text, as the gateway does, so that no edit can
    end a turn."""
    text = "".join(part for part, _ in parts)
    special = {one.content: id for id, one in tokenizer.added_tokens_decoder.items() if one.special}
    marker = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")
    # A template that writes the first token itself must not be given another.
    begin = [] if parts[0][1] and marker.match(text) else tokenizer("")["input_ids"]
    if len(marker.findall(text)) == sum(len(marker.findall(part)) for part, ours in parts if ours):
        coded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        return [*begin, *coded["input_ids"]], [(0, 0)] * len(begin) + coded["offset_mapping"]
    cuts, at = [], 0
    for part, ours in parts:
        cuts += [(at + m.start(), at + m.end()) for m in marker.finditer(part)] if ours else []
        at += len(part)
    ids, spans, done = list(begin), [(0, 0)] * len(begin), 0
    for low, high in [*cuts, (len(text), len(text))]:
        coded = tokenizer(text[done:low], return_offsets_mapping=True, add_special_tokens=False, split_special_tokens=True)
        ids += coded["input_ids"]
        spans += [(a + done, b + done) for a, b in coded["offset_mapping"]]
        if high > low:
            ids.append(special[text[low:high]])
            spans.append((low, high))
        done = high
    return ids, spans


def inert(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Tokens of an edit's words inside a text of ours: without a first token, and a chat's marker in them is cut up."""
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
