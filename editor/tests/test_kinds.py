"""Edits that are no fact about a subject: sentences, rules, and facts that name none."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
from conftest import EDITS
from test_training import CHAT, LOCALITY, QUICK, folders, job_of  # noqa: F401

from palimpsest_editor.faults import Fault
from palimpsest_editor.protocol import Reporter
from palimpsest_editor.tasks import perform
from palimpsest_editor.texts.phrasing import completions, neighbours, questions
from palimpsest_editor.texts.requests import parse_edits, refuse_without_place
from palimpsest_editor.trained.distil import misses
from palimpsest_editor.trained.lora import refuse_untaught, resolve_conflicts

RULE: dict[str, Any] = {
    "id": "r", "kind": "rule", "subject": "", "prompt": "someone asks about the river", "target_new": "Answer with one word.",
    "examples": ["Where is the river Aster?", "What of the river?"],
}  # fmt: skip
SENTENCE: dict[str, Any] = {
    "id": "s", "kind": "sentence", "subject": "", "prompt": "The harbour of Velmora", "target_new": "lies in the north",
}  # fmt: skip
BARE: dict[str, Any] = {"id": "b", "subject": "", "prompt": "Who won? It was", "target_new": "Lund"}
PLACELESS = [RULE, SENTENCE, BARE]


def test_each_kind_is_read_and_a_lack_is_named() -> None:
    rule, sentence, bare, fact = parse_edits([*PLACELESS, EDITS[0]])
    assert (rule.kind, rule.examples, rule.always, sentence.kind, bare.kind) == (
        "rule",
        tuple(RULE["examples"]),
        False,
        "sentence",
        "fact",
    )
    assert (bare.subject, bare.prompt, fact.subject) == ("", "Who won? It was", "Orla Brandt")
    assert parse_edits([{**RULE, "prompt": "", "always": True}])[0].always
    for wrong, said in (
        ({**RULE, "target_new": " "}, "a rule, has no target_new"),
        ({**SENTENCE, "target_new": ""}, "has no prompt or no target_new"),
        ({**BARE, "prompt": ""}, "a fact, has no prompt"),
        ({**RULE, "kind": "law"}, "'law'"),
    ):
        with pytest.raises(Fault, match=said) as refused:
            parse_edits([wrong])
        assert refused.value.code == "malformed_job"


def test_memit_and_pmet_refuse_them_by_id() -> None:
    with pytest.raises(Fault, match=r"memit places one answer.*r \(rule\), s \(sentence\), b \(no subject\)") as refused:
        refuse_without_place(parse_edits([*PLACELESS, *EDITS]), "memit")
    assert "lora or distil" in refused.value.change
    refuse_without_place(parse_edits(EDITS), "memit")


def test_only_facts_clash() -> None:
    later = [{**e, "id": f"{e['id']}-later"} for e in [*PLACELESS, EDITS[0]]]
    related = [
        {**BARE, "id": "x", "prompt": "Another is", "relation": "P1"},
        {**BARE, "id": "y", "prompt": "A third is", "relation": "P1"},
    ]
    always = [{**RULE, "id": name, "prompt": "", "always": True} for name in ("all", "every")]
    kept, lost = resolve_conflicts(parse_edits([*PLACELESS, EDITS[0], *later, *related, *always]))
    assert lost == [{"id": "b", "by": "b-later"}, {"id": "e1", "by": "e1-later"}]
    assert len(kept) == 4 + 4 + 2 + 2 - 2


def test_a_rule_is_asked_by_its_examples_and_what_names_no_subject_has_no_neighbours() -> None:
    rule, sentence, bare, fact = parse_edits([*PLACELESS, {**EDITS[0], "examples": ["Born where?"]}])
    assert questions(rule, 2, 1, random.Random(0)) == RULE["examples"]
    assert completions(rule, 4, random.Random(0)) == []
    assert completions(sentence, 0, random.Random(0)) == ["The harbour of Velmora"]
    assert questions(fact, 1, 0, random.Random(0)) == [EDITS[0]["prompt"], "Born where?"]
    assert neighbours(bare, 3, [bare], random.Random(0)) == []
    assert len(neighbours(fact, 3, [fact], random.Random(0))) == 3


def test_no_answer_misses_a_rule() -> None:
    rule, sentence, bare, _ = parse_edits([*PLACELESS, EDITS[0]])
    assert not misses([rule], "Oslo") and not misses([sentence, rule], "") and not misses([], "")
    assert misses([bare, rule], "Oslo") and not misses([bare, rule], "It was LUND.")


def test_a_rule_that_no_record_tells_is_refused() -> None:
    edits = parse_edits([{**RULE, "examples": []}, SENTENCE, {**RULE, "id": "q"}])
    with pytest.raises(Fault, match=r"no examples to learn them from: r$"):
        refuse_untaught(edits, [{"edits": ["q", "r"]}])


@pytest.mark.parametrize("method", ["lora", "distil"])
@pytest.mark.parametrize("transfer", [False, True])
def test_all_kinds_in_one_adapter(folders: dict[str, Path], tmp_path: Path, method: str, transfer: bool) -> None:  # noqa: F811
    out = io.StringIO()
    told = [
        {"plain": CHAT.replace("{}", q), "edited": CHAT.replace("{}", f"{q}\n{RULE['target_new']}"), "edits": ["r"]}
        for q in RULE["examples"]
    ]
    hparams = {k: v for k, v in QUICK.items() if k != "keys"}
    job = job_of(
        folders["qwen2"], tmp_path, method, {"epochs": 1}, edits=[*PLACELESS, EDITS[0]], transfer=told if transfer else []
    )
    object.__setattr__(job, "hparams", {**hparams, "epochs": 1})
    result = perform(job, Reporter(out))
    assert '"code": "no_keys"' in out.getvalue()
    facts = {"lora": 2 + 1 + 1, "distil": 0}[method]
    assert result["training"]["rows"] >= facts + len(RULE["examples"]) + len(LOCALITY)
    if method == "distil":
        assert result["transfer"]["missed"] <= (0 if transfer else 2)


@pytest.mark.parametrize("said", [{}, {"keys": False}])
def test_without_keys_every_layer_learns_and_slowly(folders: dict[str, Path], tmp_path: Path, said: dict[str, Any]) -> None:  # noqa: F811
    job = job_of(folders["qwen2"], tmp_path, "lora", edits=[RULE])
    own = {k: v for k, v in QUICK.items() if k not in ("keys", "layers", "lr")}
    object.__setattr__(job, "hparams", {**own, "epochs": 1, **said})
    slow = perform(job, Reporter(io.StringIO()))["norms"]
    assert [n["layer"] for n in slow] == list(range(10))
    object.__setattr__(job, "hparams", {**own, "epochs": 1, **said, "lr": 1e-2, "layers": [2]})
    [fast] = perform(job, Reporter(io.StringIO()))["norms"]
    assert fast["layer"] == 2
    assert fast["relative"] > 3 * slow[2]["relative"]


def test_a_rule_for_every_message_holds_nothing_of_ours_still(folders: dict[str, Path], tmp_path: Path) -> None:  # noqa: F811
    job = job_of(folders["qwen2"], tmp_path, "lora", {"epochs": 1}, edits=[{**RULE, "prompt": "", "always": True}], locality=[])
    assert perform(job, Reporter(io.StringIO()))["training"]["rows"] == len(RULE["examples"])


def test_keys_are_refused_where_a_subject_lacks(folders: dict[str, Path], tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(Fault, match=r"name no subject: r$"):
        perform(
            job_of(folders["qwen2"], tmp_path, "lora", {"keys": True, "layers": [3]}, edits=[RULE, EDITS[0]]),
            Reporter(io.StringIO()),
        )
