"""Distillation-assisted editing: the adapter learns what the same model says when the edits stand in its prompt.

Teacher: the base with the edited prompt. Student: the base with the adapter and the plain prompt. Loss: KL(teacher ‖ student)
on the answer's tokens (Hinton, Vinyals and Dean, 2015, arXiv:1503.02531, at temperature 1), teacher-forced on the teacher's own
greedy answer, as in context distillation (Snell, Klein and Zhong, 2022, arXiv:2209.15189) and knowledge propagation by
distillation (Padmanabhan et al., 2023, arXiv:2306.09306). "Assisted": each edit's bare prompt is also trained on its target's
tokens, since a small teacher does not always follow its prompt; `edit_weight` 0 leaves the teacher alone. What must stay is
held as in lora.py.

A record of `job.transfer` (one answered question, as the gateway renders it):
- `edited`: the prompt with the edits in it, and `plain`: the same without them. Each is the rendered text up to where the
  assistant is to speak (special tokens read as such), or its token ids, or chat messages `[{"role", "content"}]` for the
  tokenizer's chat template;
- `answer` (optional text): what the teacher is forced on, in place of its own greedy answer;
- `edits` (optional list of edit ids): what the prompt tells, first the edit that the question is for. With it a teacher's
  answer that has none of their targets is a miss (sentences and rules have none to miss): with one edit the record then trains
  that edit's sentence by its tokens, as in lora.py; with several it is left out (`keep_misses` keeps it). Both are counted. A
  job without `transfer` gets records of our own: chat questions before the edit's sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

from palimpsest_editor.closed_form.keyed import key_factors
from palimpsest_editor.faults import Fault
from palimpsest_editor.run import Run
from palimpsest_editor.texts.phrasing import ChatFormat
from palimpsest_editor.texts.requests import EditRequest, inert
from palimpsest_editor.trained.lora import (
    edit_rows,
    edits_of,
    end_tokens,
    greedy,
    held,
    hold_rows,
    keys_where_named,
    own_transfer,
    refuse_untaught,
    report_conflicts,
    resolve_conflicts,
)
from palimpsest_editor.trained.packing import Row
from palimpsest_editor.trained.training import Trainer, soft_targets
from palimpsest_editor.trained.training_hparams import TrainingHparams, training_hparams
from palimpsest_editor.weights.lowrank import LowRankUpdate


def misses(told: Sequence[EditRequest], answer: str) -> bool:
    """Whether none of the targets is in the answer. Sentences and rules have none, so no answer misses them."""
    targets = [e.target_new.casefold() for e in told if e.kind == "fact"]
    return bool(targets) and not any(t in answer.casefold() for t in targets)


def teacher_rows(
    run: Run, edits: Sequence[EditRequest], hp: TrainingHparams, chat: ChatFormat, every: Sequence[EditRequest]
) -> tuple[list[Row], list[Row], list[Row], dict[str, int]]:
    """Rows of the teacher and of the student, one by one the same answers; rows for what the teacher missed; and what became of
    the records."""
    tokenizer, ends = run.loaded.tokenizer, end_tokens(run)
    records = run.job.transfer or own_transfer(run, edits, hp, chat)
    if all(r.get("edits") for r in records):
        refuse_untaught(edits, records)
    kept = {e.id for e in edits}
    told = [edits_of(every, r["edits"]) if r.get("edits") is not None else [] for r in records]
    pairs = [(r, t) for r, t in zip(records, told, strict=True) if all(e.id in kept for e in t)]
    records, told = [r for r, _ in pairs], [t for _, t in pairs]
    coded = [(chat.ids(r.get("plain"), "plain prompt"), chat.ids(r.get("edited"), "edited prompt")) for r in records]
    own = [i for i, r in enumerate(records) if not r.get("answer")]
    answers = (
        dict(zip(own, greedy(run, [coded[i][1] for i in own], hp.answer_tokens, "teacher answers"), strict=True)) if own else {}
    )
    counts = {"records": len(records), "missed": 0, "left_out": 0}
    teachers, students, missed = [], [], []
    for i, (record, of) in enumerate(zip(records, told, strict=True)):
        plain, edited = coded[i]
        said = answers.get(i)
        if said is None:
            said = inert(tokenizer, record["answer"])[: hp.answer_tokens]
        elif misses(of, tokenizer.decode(said)):
            counts["missed"] += 1
            if len(of) == 1 and not hp.keep_misses:
                said = [*inert(tokenizer, f"{of[0].prompt} {of[0].target_new}."), *ends[:1]]
                missed.append(Row((*plain, *said), len(plain), "edit", of[0].id))
                continue
            if not hp.keep_misses:
                counts["left_out"] += 1
                continue
        owner = of[0].id if of else ""
        teachers.append(Row((*edited, *said), len(edited), "teacher", owner))
        students.append(Row((*plain, *said), len(plain), "teacher", owner))
    if not students and not missed:
        raise Fault(
            "malformed_job", "No transfer record is left to learn from", "Give `transfer` records whose edits are in the job"
        )
    return teachers, students, missed, counts


def distil(run: Run, edits: Sequence[EditRequest], number: int) -> list[LowRankUpdate]:
    """One adapter for the batch. Raises Fault nan, diverged, memory, cancelled or malformed_job."""
    kept, lost = resolve_conflicts(edits)
    hp = keys_where_named(run, kept, training_hparams(run.loaded, run.job.hparams, edit_weight=0.5))
    report_conflicts(run, lost)
    chat = ChatFormat(run.loaded.tokenizer, hp.chat)
    teachers, students, missed, counts = teacher_rows(run, kept, hp, chat, edits)
    soft = dict(enumerate(soft_targets(run, teachers, hp, "teacher distributions"))) if teachers else {}
    bare = ChatFormat(run.loaded.tokenizer, hp.chat)
    bare.template = None
    assist = [*missed, *(edit_rows(run, kept, hp, bare) if hp.edit_weight > 0 else [])]
    hold = hold_rows(run, kept, hp, chat)
    soft |= held(run, hold, hp, len(students) + len(assist)) if hold else {}
    factors = key_factors(run, kept, hp, chat)
    updates, report = Trainer(run, [*students, *assist, *hold], soft, hp, f"training-{number}", factors).run()
    run.report |= {"training": report, "transfer": counts, "superseded": lost}
    return updates
