"""The editing methods by name."""

from __future__ import annotations

from palimpsest_editor.faults import Fault
from palimpsest_editor.run import Method

TRAINED = ("lora", "distil")
"""Methods that train one adapter on all edits at once: a subject may occur more than once in their batch."""


def method(name: str | None) -> Method:
    """Imported when it is asked for, so that a method's libraries are needed by that method only."""
    if name == "memit":
        from palimpsest_editor.closed_form.memit import memit

        return memit
    if name == "pmet":
        from palimpsest_editor.closed_form.pmet import pmet

        return pmet
    if name == "alphaedit":
        from palimpsest_editor.closed_form.alphaedit import alphaedit

        return alphaedit
    if name == "lora":
        from palimpsest_editor.trained.lora import lora

        return lora
    if name == "distil":
        from palimpsest_editor.trained.distil import distil

        return distil
    raise Fault("malformed_job", f"`method` is {name!r}", "One of memit, alphaedit, pmet, lora, distil")
