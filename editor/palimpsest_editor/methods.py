"""The editing methods by name. Each takes a run and one batch and returns low-rank updates on top of what is in force."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from palimpsest_editor.checkpoint import Pieces
from palimpsest_editor.faults import Fault
from palimpsest_editor.loading import LoadedModel
from palimpsest_editor.lowrank import LowRankUpdate
from palimpsest_editor.protocol import Job, Reporter
from palimpsest_editor.requests import EditRequest


@dataclass
class Run:
    """What a method works with. `pieces` is the job's work folder; `key` names all that a piece depends on; `in_force` are the
    updates already applied to the model (earlier adapters, earlier batches of this job), `former` the edits that these hold, as
    far as the job says. What a method puts into `report` is in the result."""

    job: Job
    loaded: LoadedModel
    reporter: Reporter
    pieces: Pieces
    key: str
    in_force: list[LowRankUpdate]
    former: Sequence[EditRequest] = ()
    report: dict[str, Any] = field(default_factory=dict)


Method = Callable[[Run, Sequence[EditRequest], int], list[LowRankUpdate]]
"""(run, the batch's edits, the batch's number) -> updates. The updates in force are already hooked onto the model."""


TRAINED = ("lora", "distil")
"""Methods that train one adapter on all edits at once: a subject may occur more than once in their batch."""


def method(name: str | None) -> Method:
    """Imported when it is asked for, so that a method's libraries are needed by that method only."""
    if name == "memit":
        from palimpsest_editor.memit import memit

        return memit
    if name == "pmet":
        from palimpsest_editor.pmet import pmet

        return pmet
    if name == "alphaedit":
        from palimpsest_editor.alphaedit import alphaedit

        return alphaedit
    if name == "lora":
        from palimpsest_editor.lora import lora

        return lora
    if name == "distil":
        from palimpsest_editor.distil import distil

        return distil
    raise Fault("malformed_job", f"`method` is {name!r}", "One of memit, alphaedit, pmet, lora, distil")
