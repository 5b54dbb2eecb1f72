"""What a method works with, and the shape that all methods have: a run and one batch in, low-rank updates on top of what is in force out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from palimpsest_editor.protocol import Job, Reporter
from palimpsest_editor.texts.requests import EditRequest
from palimpsest_editor.weights.checkpoint import Pieces
from palimpsest_editor.weights.loading import LoadedModel
from palimpsest_editor.weights.lowrank import LowRankUpdate


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
