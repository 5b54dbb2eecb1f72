"""What a job asks for: edit, statistics, score, merge, import."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch

from palimpsest_editor.closed_form.hparams import of_easyedit
from palimpsest_editor.faults import Fault
from palimpsest_editor.methods import TRAINED, method
from palimpsest_editor.protocol import Job, Reporter
from palimpsest_editor.run import Run
from palimpsest_editor.texts.requests import EditRequest, batches, parse_edits, refuse_without_place
from palimpsest_editor.weights.adapter import export, read_adapter
from palimpsest_editor.weights.checkpoint import Pieces, fingerprint
from palimpsest_editor.weights.loading import LoadedModel, load
from palimpsest_editor.weights.lowrank import LowRankUpdate, applied, check_finite, merge, truncate


def perform(job: Job, reporter: Reporter) -> dict[str, Any]:
    """Runs one job and returns the fields of its result event. Raises Fault."""
    began = time.monotonic()
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    random.seed(job.seed)
    if "alg_name" in job.hparams:
        job = replace(job, hparams=of_easyedit(job.hparams, job.method))
    edits = parse_edits(job.edits)
    edit = method(job.method) if job.task == "edit" else None
    if edit is not None and not edits:
        raise Fault("malformed_job", "There are no edits", "Give `edits`")
    if edit is not None and job.method not in TRAINED:
        refuse_without_place(edits, job.method)
    if job.method in TRAINED:
        from palimpsest_editor.trained.training_hparams import check_memory

        check_memory(job)
    loaded = load(job.base, job.cache_dir, reporter, job.device, job.dtype)
    in_force = merge([read_adapter(a.path, loaded.model.config)[0] for a in job.adapters], [a.scale for a in job.adapters])
    for u in in_force:
        check_shape(loaded, u)
    if edit is not None:
        result = _edit(job, loaded, reporter, in_force, edits)
    elif job.task == "statistics":
        from palimpsest_editor.closed_form.statistics import second_moments, statistics_layers

        paths = second_moments(job, loaded, reporter, statistics_layers(job, loaded))
        result = {"statistics": paths.about()}
    elif job.task == "score":
        from palimpsest_editor.score import score_probes

        with applied(loaded, in_force):
            result = {"scores": score_probes(loaded, job.probes, reporter, "score")}
    else:
        sets = [in_force] if job.task == "merge" else [in_force, _imported(job, loaded)]
        result = {"adapter": _export(job, loaded, merge(sets), {"method": job.method or job.task})}
    reporter.check()
    seconds = {k: round(v, 1) for k, v in reporter.stage_seconds.items()}
    return {
        **result,
        "task": job.task,
        "seconds": round(time.monotonic() - began, 1),
        "stages": seconds,
        "peak_bytes": reporter.peak_bytes,
    }


def check_shape(loaded: LoadedModel, update: LowRankUpdate) -> None:
    """Raises Fault("wrong_base") where an update does not fit the model's matrix."""
    fits = update.layer < len(loaded.layers)
    if fits:
        out, inputs = loaded.module(update.layer, update.module).weight.shape
        fits = (out, inputs) == (update.b.shape[0], update.a.shape[1])
    if not fits:
        shape = f"{update.b.shape[0]} × {update.a.shape[1]}"
        message = f"An adapter changes layer {update.layer} {update.module} by {shape}, which {loaded.name} has not"
        raise Fault("wrong_base", message, "Use the base that the adapter was made for")


def _edit(
    job: Job, loaded: LoadedModel, reporter: Reporter, before: list[LowRankUpdate], edits: list[EditRequest]
) -> dict[str, Any]:
    """Batch after batch, each on the model as the earlier ones left it; then the adapter of all of them."""
    edit = method(job.method)
    made: list[list[LowRankUpdate]] = []
    parts = [edits] if job.method in TRAINED else batches(edits, int(job.hparams.get("batch_edits", 1000)))
    reports: dict[str, Any] = {}
    known: list[Any] = [job.transfer, job.locality] if job.method in TRAINED else [job.kept]
    former = parse_edits(job.kept)
    known += [loaded.sha256, job.method, job.hparams, job.seed, str(loaded.dtype), [(str(a.path), a.scale) for a in job.adapters]]
    _plan(job, loaded, reporter)
    with ExitStack() as stack:
        stack.enter_context(applied(loaded, before))
        if job.probes:
            from palimpsest_editor.score import score_probes

            scores = {"before": score_probes(loaded, job.probes, reporter, "score before")}
        for number, batch in enumerate(parts):
            reporter.progress("batch", number, len(parts), edits=len(batch))
            known.append([[e.id, e.subject, e.prompt, e.target_new, e.paraphrases, e.kind, e.examples, e.always] for e in batch])
            key = fingerprint(known, job.statistics)
            run = Run(job, loaded, reporter, Pieces(job.work_dir), key, [*before, *merge(made)], tuple(former))
            updates = edit(run, batch, number)
            former += batch
            reports |= run.report
            check_finite(updates)
            stack.enter_context(applied(loaded, updates))
            made.append(updates)
        reporter.progress("batch", len(parts), len(parts))
        if job.probes:
            scores["after"] = score_probes(loaded, job.probes, reporter, "score after")
    total = merge(made)
    about = {"method": job.method or "", "edits": str(len(edits)), "batches": str(len(parts))}
    result: dict[str, Any] = {
        "adapter": _export(job, loaded, total, about),
        "batches": [[e.id for e in batch] for batch in parts],
    }
    result |= {"norms": [norm(loaded, u) for u in total], **reports}
    return {**result, "scores": scores} if job.probes else result


def _plan(job: Job, loaded: LoadedModel, reporter: Reporter) -> None:
    if job.method in TRAINED:
        from palimpsest_editor.trained.training_hparams import plan as training_plan

        reporter.event("plan", **training_plan(job, loaded))
        return
    from palimpsest_editor.closed_form.hparams import hparams
    from palimpsest_editor.closed_form.statistics import cached
    from palimpsest_editor.estimate import plan

    hp = hparams(loaded, job.method or "", job.hparams)
    reporter.event("plan", **plan(job, loaded, hp, cached(job, loaded, hp.layers)))


def norm(loaded: LoadedModel, u: LowRankUpdate) -> dict[str, Any]:
    """‖ΔW‖/‖W‖ (Frobenius) of one matrix."""
    weight = float(loaded.module(u.layer, u.module).weight.float().norm())
    delta = float(torch.einsum("ij,ij->", u.b.T @ u.b, u.a @ u.a.T).clamp(min=0).sqrt())
    return {"layer": u.layer, "module": u.module, "rank": u.rank, "relative": round(delta / weight, 4)}


def _export(job: Job, loaded: LoadedModel, updates: list[LowRankUpdate], about: dict[str, str]) -> dict[str, Any]:
    if not updates:
        raise Fault("malformed_job", "There is nothing to export", "Give adapters or a source")
    for u in updates:
        check_shape(loaded, u)
    check_finite(updates)
    lost = 0.0
    most = job.export.get("max_rank")
    if most is not None:
        cut = [truncate(u, int(most)) for u in updates]
        updates, lost = [u for u, _ in cut], max(share for _, share in cut)
    about = {**about, "base.sha256": loaded.sha256 or "", "base.name": loaded.name}
    name = str(job.export.get("name", "adapter"))
    half = job.export.get("type", "f32") == "f16"
    written = export(job.out_dir, name, updates, loaded.architecture, loaded.model.config, str(job.base.path), about, half)
    return {**written, "left_out": lost}


def _imported(job: Job, loaded: LoadedModel) -> list[LowRankUpdate]:
    from palimpsest_editor.weights.importing import read_deltas

    if job.source is None:
        raise Fault("malformed_job", "`source` is missing", "Name the PEFT folder or the file of deltas")
    return read_deltas(job, loaded)
