"""Batch editor: one LoRA trained on all edits of a batch, with phrasings as positives and a KL to the base on what must stay.

The recipe's parts: low-rank adapters (Hu et al., 2021, arXiv:2106.09685); target tokens only in the loss, several phrasings an
edit and unrelated prompts beside them (Gangadhar and Stratos, 2024, "Model Editing by Standard Fine-Tuning", arXiv:2402.11078);
a KL to the model as it was on prompts out of scope, as in MEND's locality loss (Mitchell et al., 2022, arXiv:2110.11309, §3)
and in MEMIT's on "{subject} is a".

A sentence or a rule has no single target: its rows are what the same model answers to its examples when it is told (`told_rows`,
by `job.transfer` as in distil.py), learnt as tokens.

Departures: the adapter's A is made from the subjects' keys and frozen (keyed.py), since a plain LoRA moved two answers in three
out of scope (docs/LOG.md; `keys` false gives it); held prompts are the model's own greedy answers, whole and in the served chat
format, since that is where a side effect would be seen; prompts about other subjects are made from each edit's own prompt (same
relation, so the adapter has to tell subjects apart); rows that have settled are visited less often; the layers below the lowest
adapted one run once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import StoppingCriteriaList

from palimpsest_editor.closed_form.keyed import key_factors
from palimpsest_editor.faults import Fault
from palimpsest_editor.run import Run
from palimpsest_editor.texts.contexts import Look
from palimpsest_editor.texts.phrasing import NEUTRAL, ChatFormat, completions, neighbours, questions
from palimpsest_editor.texts.requests import EditRequest, inert, tokens
from palimpsest_editor.trained.packing import Row
from palimpsest_editor.trained.training import Soft, Trainer, soft_targets
from palimpsest_editor.trained.training_hparams import TrainingHparams, training_hparams, unkeyed
from palimpsest_editor.weights.checkpoint import fingerprint
from palimpsest_editor.weights.lowrank import LowRankUpdate


def resolve_conflicts(edits: Sequence[EditRequest]) -> tuple[list[EditRequest], list[dict[str, str]]]:
    """Of two facts of one subject and relation the later wins. The relation is the edit's own where it names one; and its
    prompt with the subject taken out. Facts without a subject clash by their prompts alone, sentences and rules never. Returns
    the edits that stay, in order, and `{id, by}` of each that does not."""
    held: dict[tuple[str, str], EditRequest] = {}
    lost: dict[str, str] = {}
    for edit in edits:
        if edit.kind != "fact":
            continue
        subject = edit.subject.casefold()
        asked = edit.prompt.replace(edit.subject, "{}") if subject else edit.prompt
        keys = [(subject, "prompt:" + " ".join(asked.casefold().split()))]
        if edit.relation and subject:
            keys.append((subject, "relation:" + edit.relation.casefold()))
        for key in keys:
            earlier = held.get(key)
            if earlier is not None and earlier is not edit:
                lost[earlier.id] = edit.id
            held[key] = edit
    return [e for e in edits if e.id not in lost], [{"id": i, "by": by} for i, by in lost.items()]


def end_tokens(run: Run) -> list[int]:
    """The tokens that end an answer."""
    found = run.loaded.model.generation_config.eos_token_id
    if found is None:
        found = run.loaded.tokenizer.eos_token_id
    return list(found) if isinstance(found, (list, tuple)) else [] if found is None else [int(found)]


@torch.no_grad()
def greedy(run: Run, prompts: Sequence[Sequence[int]], most: int, stage: str, rows: int = 32) -> list[list[int]]:
    """The model's greedy answers (with the token that ends them, where it comes within `most`); each batch is a piece."""
    loaded, ends = run.loaded, end_tokens(run)
    fill = loaded.tokenizer.pad_token_id
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), rows):
        index = order[start : start + rows]
        run.reporter.progress(stage, start, len(order))

        def compute(index: list[int] = index) -> dict[str, torch.Tensor]:
            longest = max(len(prompts[i]) for i in index)
            ids = torch.tensor([[*[fill] * (longest - len(prompts[i])), *prompts[i]] for i in index], device=loaded.device)
            mask = torch.tensor(
                [[*[0] * (longest - len(prompts[i])), *[1] * len(prompts[i])] for i in index], device=loaded.device
            )
            look = StoppingCriteriaList([Look(run.reporter.check)])
            settings = dict(
                do_sample=False, temperature=None, top_p=None, top_k=None, repetition_penalty=1.0, max_new_tokens=most
            )
            made = loaded.model.generate(
                ids, attention_mask=mask, pad_token_id=fill, eos_token_id=ends or None, stopping_criteria=look, **settings
            )
            return {"ids": made[:, longest:].int()}

        name = f"{stage.replace(' ', '-')}-{start}"
        found = run.pieces.piece(name, fingerprint(run.key, [list(prompts[i]) for i in index], most), compute)["ids"].tolist()
        for i, row in zip(index, found, strict=True):
            end = next((t for t, token in enumerate(row) if token in ends), None)
            out[i] = row if end is None else row[: end + 1]
    run.reporter.progress(stage, len(order), len(order))
    return out


def edit_rows(run: Run, edits: Sequence[EditRequest], hp: TrainingHparams, chat: ChatFormat) -> list[Row]:
    """Positives: bare prompts that the target completes, and chat questions answered by the edit as a sentence."""
    tokenizer, order = run.loaded.tokenizer, random.Random(f"{run.job.seed}-phrasing")
    ends = end_tokens(run)
    rows = []
    for edit in edits:
        for text in completions(edit, hp.completions, order):
            text = text.rstrip()
            ids, spans = tokens(tokenizer, [(f"{text} {edit.target_new}", False)])
            start = next(i for i, (_, b) in enumerate(spans) if b > len(text))
            rows.append(Row(tuple(ids), max(1, start), "edit", edit.id))
        if chat.template is not None and edit.kind != "rule":
            said = inert(tokenizer, f"{edit.prompt} {edit.target_new}.")
            for text in questions(edit, hp.questions, hp.prefixed, order):
                asked = chat.ask(text)
                rows.append(Row((*asked, *said, *ends[:1]), len(asked), "edit", edit.id))
    return rows


def own_transfer(run: Run, edits: Sequence[EditRequest], hp: TrainingHparams, chat: ChatFormat) -> list[dict[str, Any]]:
    """Transfer records for a job that brings none: questions, and the same with the edit before them."""
    order = random.Random(f"{run.job.seed}-transfer")
    records = []
    for edit in edits:
        told = (
            f"Do as this says: {edit.target_new}"
            if edit.kind == "rule"
            else f"Your answer must state this:\n- {edit.prompt} {edit.target_new}."
        )
        for text in questions(edit, hp.questions, hp.prefixed, order):
            plain, edited = (chat.ask(t) for t in (text, f"{text}\n\n{told}"))
            records.append({"plain": plain, "edited": edited, "edits": [edit.id]})
    return records


def refuse_untaught(edits: Sequence[EditRequest], records: Sequence[dict[str, Any]]) -> None:
    """Raises Fault("malformed_job") for rules that no record tells first."""
    taught = {r["edits"][0] for r in records if r.get("edits")}
    untaught = [e.id for e in edits if e.kind == "rule" and e.id not in taught]
    if untaught:
        raise Fault(
            "malformed_job",
            f"These rules have no examples to learn them from: {', '.join(untaught)}",
            "Give each rule `examples`: messages that need it",
        )


def told_rows(run: Run, edits: Sequence[EditRequest], hp: TrainingHparams, chat: ChatFormat) -> list[Row]:
    """Positives of the edits without a target, sentences and rules: what the model answers when it is told them. Raises
    Fault("malformed_job") for a rule that nothing can be learnt from."""
    names = {e.id for e in edits if e.kind != "fact"}
    if not names:
        return []
    records = run.job.transfer or own_transfer(run, [e for e in edits if e.id in names], hp, chat)
    records = [r for r in records if (r.get("edits") or [None])[0] in names]
    refuse_untaught(edits, records)
    coded = [(chat.ids(r.get("plain"), "plain prompt"), chat.ids(r.get("edited"), "edited prompt")) for r in records]
    answers = greedy(run, [edited for _, edited in coded], hp.answer_tokens, "teacher answers")
    return [
        Row((*plain, *said), len(plain), "edit", r["edits"][0])
        for r, (plain, _), said in zip(records, coded, answers, strict=True)
        if said
    ]


def keys_where_named(run: Run, edits: Sequence[EditRequest], hp: TrainingHparams) -> TrainingHparams:
    """Without keys where an edit names no subject: there is no place to take its key at, so A is trained too."""
    without = [e.id for e in edits if not e.subject]
    if not hp.keys or not without:
        return hp
    if run.job.hparams.get("keys"):
        raise Fault(
            "malformed_job", f"hparams.keys, and these edits name no subject: {', '.join(without)}", "Leave hparams.keys out"
        )
    run.reporter.note("no_keys", f"{len(without)} edits name no subject, so the whole adapter is trained without subjects' keys")
    return replace(hp, **{k: v for k, v in unkeyed(len(run.loaded.layers)).items() if k not in run.job.hparams})


def given_locality(run: Run, chat: ChatFormat) -> list[tuple[list[int], list[int] | None]]:
    """`job.locality`: each a rendered prompt (text, ids or messages), or `{"prompt": …}` with an `answer` (text) or as
    `{"question": …}` for the chat format. Returns prompt ids and answer ids, None where the model is to answer itself."""
    made: list[tuple[list[int], list[int] | None]] = []
    for one in run.job.locality:
        if not isinstance(one, dict):
            made.append((chat.ids(one, "locality prompt"), None))
            continue
        question = one.get("question")
        ids = chat.ask(question) if isinstance(question, str) else chat.ids(one.get("prompt"), "locality prompt")
        answer = one.get("answer")
        made.append(
            (
                ids,
                inert(run.loaded.tokenizer, answer) if isinstance(answer, str) and answer else None,
            )
        )
    return made


def hold_rows(run: Run, edits: Sequence[EditRequest], hp: TrainingHparams, chat: ChatFormat) -> list[Row]:
    """What must stay: the job's locality prompts, else ours: the edits' prompts about other subjects (chat and bare, by turns),
    "SUBJECT is a", and neutral questions; each with the model's own greedy answer."""
    order = random.Random(f"{run.job.seed}-locality")
    prompts = given_locality(run, chat)
    short: list[tuple[list[int], list[int] | None]] = []
    # A rule for every message leaves nothing as it is but what the job names.
    if not prompts and not any(e.always for e in edits):
        for edit in edits:
            for number, text in enumerate(neighbours(edit, hp.neighbours, edits, order)):
                bare = chat.template is None or number % 2 == 1
                (short if bare else prompts).append((chat.bare(text) if bare else chat.ask(text), None))
            if not hp.keys and edit.subject:
                short.append((chat.bare(f"{edit.subject} is a"), None))
        prompts += [(chat.ask(q), None) for q in NEUTRAL]
    rows = []
    for stage, most, given in (
        ("locality answers", hp.answer_tokens, prompts),
        ("locality completions", min(4, hp.answer_tokens), short),
    ):
        unknown = [i for i, (_, answer) in enumerate(given) if answer is None]
        answers = dict(zip(unknown, greedy(run, [given[i][0] for i in unknown], most, stage), strict=True)) if unknown else {}
        for i, (ids, answer) in enumerate(given):
            said = answers[i] if answer is None else answer[:most]
            if said and ids:
                rows.append(Row((*ids, *said), len(ids), "hold"))
    return rows


def held(run: Run, rows: Sequence[Row], hp: TrainingHparams, start: int) -> dict[int, Soft]:
    """The stored distributions of the `hold` rows, keyed by their place in the whole list, which begins at `start`."""
    return {start + i: s for i, s in enumerate(soft_targets(run, rows, hp, "locality distributions"))}


def lora(run: Run, edits: Sequence[EditRequest], number: int) -> list[LowRankUpdate]:
    """One adapter for the batch. Raises Fault nan, diverged, memory, cancelled or malformed_job."""
    kept, lost = resolve_conflicts(edits)
    hp = keys_where_named(run, kept, training_hparams(run.loaded, run.job.hparams))
    report_conflicts(run, lost)
    chat = ChatFormat(run.loaded.tokenizer, hp.chat)
    rows = [*edit_rows(run, kept, hp, chat), *told_rows(run, kept, hp, chat)]
    hold = hold_rows(run, kept, hp, chat)
    soft = held(run, hold, hp, len(rows)) if hold else {}
    factors = key_factors(run, kept, hp, chat)
    updates, report = Trainer(run, [*rows, *hold], soft, hp, f"training-{number}", factors).run()
    run.report |= {"training": report, "superseded": lost}
    return updates


def report_conflicts(run: Run, lost: Sequence[dict[str, Any]]) -> None:
    for one in lost:
        run.reporter.note(
            "superseded", f"Edit {one['id']} has the subject and relation of the later {one['by']} and is left out", **one
        )


def edits_of(edits: Sequence[EditRequest], names: Any) -> list[EditRequest]:
    """The edits with these ids. Raises Fault("malformed_job") for one that the job does not have."""
    known = {e.id: e for e in edits}
    if not isinstance(names, list) or any(str(n) not in known for n in names):
        raise Fault("malformed_job", f"`edits` of a transfer record is {names!r}", "Name edits of the job by their ids")
    return [known[str(n)] for n in names]
