"""`python -m palimpsest_editor run JOB.json` runs one job (see protocol.py); `… versions` prints the libraries' versions."""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import signal
import sys
import traceback
from pathlib import Path

from palimpsest_editor.faults import EXIT_CODES, Fault
from palimpsest_editor.protocol import PROTOCOL, Reporter, private_stdout, read_job


def versions() -> dict[str, str]:
    names = ("palimpsest-editor", "torch", "transformers", "peft", "safetensors", "gguf")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent" if name != "palimpsest-editor" else "from source"
    return {"protocol": str(PROTOCOL), "python": sys.version.split()[0], **found}


def end_with_parent() -> None:
    """Linux: killed when the gateway that started this process ends, also while it is paused (SIGSTOP); only where the gateway
    names itself, so that a job started by hand outlives its shell."""
    parent = os.environ.get("PALIMPSEST_EDITOR_PARENT")
    if parent is None or not sys.platform.startswith("linux"):
        return
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGKILL)


def run(path: Path) -> int:
    """Runs the job at `path`; returns the exit status that protocol.py documents."""
    end_with_parent()
    reporter = Reporter(private_stdout())
    reporter.listen()
    reporter.event("started", protocol=PROTOCOL, version="0.1.0", pid=os.getpid())
    try:
        job = read_job(path)
        reporter.memory_bytes = job.memory_bytes
        from palimpsest_editor.tasks import perform

        result = perform(job, reporter)
    except Fault as fault:
        reporter.event("error", code=fault.code, message=fault.message, change=fault.change)
        return fault.exit_code
    except MemoryError as error:
        change = "Free memory, lower hparams.chunk_edits, or give dtype bfloat16; finished pieces are kept"
        reporter.event("error", code="memory", message=f"Out of memory: {error}", change=change)
        return EXIT_CODES["memory"]
    except Exception as error:
        traceback.print_exc()
        short = "out of memory" in str(error).lower() or "can't allocate memory" in str(error)
        change = "Free memory or give dtype bfloat16" if short else "See the standard error of this worker"
        reporter.event("error", code="memory" if short else "internal", message=f"{type(error).__name__}: {error}", change=change)
        return EXIT_CODES["memory" if short else "internal"]
    reporter.event("result", **result)
    return 0


def main(arguments: list[str]) -> int:
    if arguments == ["versions"]:
        print(json.dumps(versions()))
        return 0
    if len(arguments) == 2 and arguments[0] == "run":
        return run(Path(arguments[1]))
    print("usage: python -m palimpsest_editor run JOB.json | versions", file=sys.stderr)
    return EXIT_CODES["malformed_job"]


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.exit(status)
