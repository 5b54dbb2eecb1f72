"""Protocol 1 between the gateway and this worker.

The worker reads one job (a JSON file) and writes one JSON object a line on its standard output; anything that libraries print
goes to standard error. Events:

- `{"event":"started","protocol":1,"version":…,"pid":…}`
- `{"event":"plan","estimate_s":…,"stages":[{"stage":…,"estimate_s":…}]}` once the model is loaded and its speed is known
- `{"event":"progress","stage":…,"done":…,"of":…,"seconds":…,"estimate_s":…}`: seconds since the stage began, and the
  estimate of what is left of it (null before anything is done); further fields may follow
- `{"event":"note","code":…,"message":…}`: something worth showing that stops nothing
- `{"event":"result",…}` once, last; or `{"event":"error","code":…,"message":…,"change":…}` once, last

Exit status: 0 with a result; 1 internal, 2 malformed job, 3 wrong base, 4 memory, 5 NaN or divergence, 6 unsupported,
7 cancelled (SIGTERM or SIGINT). The gateway pauses the worker by SIGSTOP while answers are written, and lets it go on by SIGCONT. After 4, 7, or a kill, the same job goes on from its work folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from palimpsest_editor.faults import Fault

PROTOCOL = 1
TASKS = ("edit", "statistics", "score", "merge", "import")


@dataclass(frozen=True)
class Base:
    """The model that is edited: a GGUF file, or a Hugging Face folder. `sha256` is the file's (a folder has none)."""

    path: Path
    sha256: str | None = None


@dataclass(frozen=True)
class AdapterRef:
    """An adapter by its file (GGUF) or folder (PEFT), in force with this scale."""

    path: Path
    scale: float = 1.0


@dataclass(frozen=True)
class Job:
    """One job, read and checked. Folders are made where they are missing; the base is never written. `kept`: the edits that
    `adapters` hold, which alphaedit keeps."""

    task: str
    base: Base
    work_dir: Path
    out_dir: Path
    cache_dir: Path
    method: str | None = None
    edits: list[dict[str, Any]] = field(default_factory=list)
    probes: list[dict[str, Any]] = field(default_factory=list)
    adapters: list[AdapterRef] = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)
    hparams: dict[str, Any] = field(default_factory=dict)
    statistics: dict[str, Any] = field(default_factory=dict)
    transfer: list[dict[str, Any]] = field(default_factory=list)
    locality: list[Any] = field(default_factory=list)
    source: str | None = None
    device: str = "cpu"
    dtype: str = "auto"
    threads: int = 2
    seed: int = 0
    memory_bytes: int | None = None
    export: dict[str, Any] = field(default_factory=dict)


def _expect(raw: dict[str, Any], name: str, kind: type | tuple[type, ...], default: Any) -> Any:
    value = raw.get(name, default)
    if value is None and default is None:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        shown = kind.__name__ if isinstance(kind, type) else "/".join(k.__name__ for k in kind)
        raise Fault("malformed_job", f"`{name}` should be {shown}, and is {type(value).__name__}", f"Give `{name}` as {shown}")
    return value


def read_job(path: Path) -> Job:
    """Reads a job file; raises Fault("malformed_job") naming the field."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Fault("malformed_job", f"{path} is no readable JSON: {error}", "Give the path of a JSON job") from error
    return parse_job(raw)


def parse_job(raw: Any) -> Job:
    """A job from parsed JSON; see `Job` for the fields. Unknown fields are refused, so that a misspelt one is not ignored."""
    if not isinstance(raw, dict):
        raise Fault("malformed_job", "A job is one JSON object", "Wrap the fields in {…}")
    if raw.get("protocol") != PROTOCOL:
        found = raw.get("protocol")
        raise Fault(
            "malformed_job", f"This worker speaks protocol {PROTOCOL}, the job {found!r}", "Run `palimpsest handoff setup`"
        )
    known = {"protocol", "limits", *Job.__dataclass_fields__} - {"memory_bytes"}
    unknown = sorted(set(raw) - known)
    if unknown:
        raise Fault("malformed_job", f"Unknown fields: {', '.join(unknown)}", f"Known are {', '.join(sorted(known))}")
    task = _expect(raw, "task", str, "edit")
    if task not in TASKS:
        raise Fault("malformed_job", f"`task` is {task!r}", f"One of {', '.join(TASKS)}")
    base = _expect(raw, "base", dict, {})
    if not isinstance(base.get("path"), str):
        raise Fault("malformed_job", "`base.path` is missing", "Name the GGUF file or the folder of the model")
    for name in ("work_dir", "out_dir"):
        if not isinstance(raw.get(name), str):
            raise Fault("malformed_job", f"`{name}` is missing", f"Give `{name}`, a folder")
    work_dir = Path(raw["work_dir"])
    memory = _expect(_expect(raw, "limits", dict, {}), "memory_bytes", int, None)
    return Job(
        task=task,
        base=Base(Path(base["path"]), base.get("sha256")),
        work_dir=work_dir,
        out_dir=Path(raw["out_dir"]),
        cache_dir=Path(_expect(raw, "cache_dir", str, str(work_dir))),
        method=_expect(raw, "method", str, None),
        edits=_expect(raw, "edits", list, []),
        probes=_expect(raw, "probes", list, []),
        adapters=[AdapterRef(Path(a["path"]), float(a.get("scale", 1.0))) for a in _expect(raw, "adapters", list, [])],
        kept=_expect(raw, "kept", list, []),
        hparams=_expect(raw, "hparams", dict, {}),
        statistics=_expect(raw, "statistics", dict, {}),
        transfer=_expect(raw, "transfer", list, []),
        locality=_expect(raw, "locality", list, []),
        source=_expect(raw, "source", str, None),
        device=_expect(raw, "device", str, "cpu"),
        dtype=_expect(raw, "dtype", str, "auto"),
        threads=_expect(raw, "threads", int, 2),
        seed=_expect(raw, "seed", int, 0),
        memory_bytes=memory,
        export=_expect(raw, "export", dict, {}),
    )


def resident_bytes() -> int:
    """Resident memory of this process now, or 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


class Reporter:
    """Writes events; at each progress it also looks whether to stop, and whether the memory limit still holds."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic, memory_bytes: int | None = None) -> None:
        self._out = out
        self._clock = clock
        self._began: dict[str, tuple[float, int]] = {}
        self.memory_bytes = memory_bytes
        self.peak_bytes = 0
        self.stopped = False
        self.stage_seconds: dict[str, float] = {}

    def event(self, event: str, **fields: Any) -> None:
        self._out.write(json.dumps({"event": event, **fields}, ensure_ascii=False) + "\n")
        self._out.flush()

    def note(self, code: str, message: str, **fields: Any) -> None:
        self.event("note", code=code, message=message, **fields)

    def progress(self, stage: str, done: int, of: int, **fields: Any) -> None:
        """`done` of `of` pieces of a stage. The estimate leaves out what was already done when the stage was first reported."""
        now = self._clock()
        start, first = self._began.setdefault(stage, (now, done))
        seconds = now - start
        self.stage_seconds[stage] = seconds
        left = seconds / (done - first) * (of - done) if done > first else None
        estimate = None if left is None else round(left, 1)
        self.event("progress", stage=stage, done=done, of=of, seconds=round(seconds, 2), estimate_s=estimate, **fields)
        self.check()

    def check(self) -> None:
        """Raises Fault("cancelled") after a signal, and Fault("memory") past the limit. Cheap: call it in every loop."""
        if self.stopped:
            raise Fault("cancelled", "Stopped by a signal; what was finished is kept", "Start the same job again to go on")
        used = resident_bytes()
        self.peak_bytes = max(self.peak_bytes, used)
        if self.memory_bytes is not None and used > self.memory_bytes:
            raise Fault(
                "memory",
                f"{used / 1e9:.1f} GB in use, the limit is {self.memory_bytes / 1e9:.1f} GB",
                "Raise limits.memory_bytes, lower hparams.chunk_edits, or give dtype bfloat16; finished pieces are kept",
            )

    def listen(self) -> None:
        """SIGTERM and SIGINT stop at the next check; a second one ends the process at once."""

        def stop(number: int, _frame: FrameType | None) -> None:
            self.stopped = True
            signal.signal(number, signal.SIG_DFL)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)


def private_stdout() -> TextIO:
    """Our own copy of standard output; what libraries print from here on goes to standard error."""
    ours = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return ours
