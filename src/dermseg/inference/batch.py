"""A batch: many images in, one output folder out, interruptible at any moment.

``run_batch`` claims the folder, has what is not done yet segmented on threads or processes, records every
finished image in the journal, and at the end writes ``results.csv`` and ``run.json`` from the journal. The
order of images in the tables is the order of the inputs, whatever was finished first.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from dermseg.files import write_json
from dermseg.images.names import printable_name
from dermseg.images.roles import RUN
from dermseg.images.sources import ImageSource
from dermseg.inference.folder import claim_folder, done_names, plan_files
from dermseg.inference.header import Header, stamp_inputs
from dermseg.inference.journal import Entry, Journal
from dermseg.inference.machine import describe_machine, library_versions
from dermseg.inference.options import DEFAULTS, BatchOptions, describe_model, open_segmenter, settle_margin
from dermseg.inference.outputs import RESULTS, write_results
from dermseg.inference.pipeline import Plan, plan_work, run_threads
from dermseg.inference.predictor import Model
from dermseg.inference.stages import STAGES, Encoder, Segmenter
from dermseg.version import __version__


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How a batch ended.

    ``counts`` has ``images``, ``ok``, ``no_lesion`` and ``failed`` over the whole run, and how many of them
    have the verdicts ``review`` and ``reject``; ``processed`` is what was done in this session, ``seconds``
    the time that took, and ``images_per_second`` its rate (None where nothing was left to do).
    ``record`` is the content of ``run.json``, empty where the batch was interrupted.
    """

    out: Path
    order: tuple[str, ...]
    model: dict[str, Any]
    counts: dict[str, int]
    processed: int
    seconds: float
    images_per_second: float | None
    interrupted: bool
    record: dict[str, Any]


# Called with each finished image; first, once, with None and what an earlier session has done.
Listener = Callable[[Entry | None, "Counter[str]"], None]


def run_batch(
    model: Model,
    sources: Sequence[ImageSource],
    out: Path,
    options: BatchOptions = DEFAULTS,
    *,
    plan: Plan | None = None,
    encoders: Sequence[Encoder] = (),
    resume: bool = False,
    overwrite: bool = False,
    inputs: Sequence[str] = (),
    listener: Listener | None = None,
    stop: threading.Event | None = None,
) -> BatchResult:
    """Segment every source into the folder `out`.

    Parameters
    ----------
    plan
        Processes and threads, of ``pipeline.plan_work``; None takes the CPUs, within this process.
    encoders
        Make the LabelMe and DICOM files of ``--save``: ``labeling.propose.LabelmeEncoder``,
        ``dicom.write.DicomEncoder``.
    inputs
        What the user named, for the record.
    listener
        Told of progress: the finished image and the counts so far.
    stop
        Set it (from a signal handler, say) to end early: images under way are finished, the rest is left
        to ``resume``.

    Raises
    ------
    UsageError
        `out` cannot be used: another run, other options than the run to resume, foreign files. Or the model
        has no margins at the level asked for.
    ModelError
        Margins of a level are asked for and none were fitted for the model.
    OutputError
        The disk is full or `out` cannot be written to.
    """
    started = datetime.now(UTC)
    clock = time.perf_counter()
    plan = plan_work(len(sources), processes=1) if plan is None else plan
    options = settle_margin(options, model)
    header = Header(__version__, describe_model(model), options.as_dict(), stamp_inputs(sources))
    order = tuple(source.name for source in sources)
    journal = claim_folder(out, header, resume=resume, overwrite=overwrite)
    try:
        start = partial(open_segmenter, model, header.model, out, options, encoders)
        counts, processed = _process(
            start, out, sources, journal, plan=plan, listener=listener, stop=stop or threading.Event()
        )
        wall = time.perf_counter() - clock
        rate = round(processed / wall, 3) if processed else None
        interrupted = counts["images"] < len(order)
        record: dict[str, Any] = {}
        if not interrupted:
            journal.sort(order)
            write_results(out / RESULTS, (entry.row for entry in journal.entries(order)))
            record = {
                "schema_version": 1,
                "model": header.model,
                "options": header.options,
                "inputs": [printable_name(given) for given in inputs],
                "counts": counts,
                "versions": library_versions(),
                "machine": describe_machine(),
                "timing": {
                    "started": started.isoformat(timespec="seconds"),
                    "ended": datetime.now(UTC).isoformat(timespec="seconds"),
                    "wall_seconds": round(wall, 3),
                    "images": processed,
                    "images_per_second": rate,
                    "workers": plan.processes * plan.threads,
                    "processes": plan.processes,
                    "network_threads": model.session.threads,
                    "stage_seconds": _stage_seconds(journal, order),
                },
            }
            write_json(out / RUN, record)
        return BatchResult(out, order, header.model, counts, processed, wall, rate, interrupted, record)
    finally:
        journal.close()


def _process(
    start: Callable[[], Segmenter],
    out: Path,
    sources: Sequence[ImageSource],
    journal: Journal,
    *,
    plan: Plan,
    listener: Listener | None,
    stop: threading.Event,
) -> tuple[dict[str, int], int]:
    """Segment what is left; the counts over all that is done, and how many were left."""
    files = plan_files(journal.header)
    done = done_names(journal, out)
    statuses, verdicts = Counter[str](), Counter[str]()
    for entry in journal.entries(sorted(done)):
        statuses[entry.row.status] += 1
        verdicts[entry.row.verdict or ""] += 1
    if listener is not None:
        listener(None, statuses)
    processed = 0
    jobs = ((source, files[source.name]) for source in sources if source.name not in done)
    if plan.processes == 1:
        finished = run_threads(jobs, start(), threads=plan.threads, stop=stop)
    else:
        from dermseg.inference.processes import SharedFile, run_processes

        finished = run_processes(
            jobs,
            start,
            processes=plan.processes,
            threads=plan.threads,
            stop=stop,
            lock=SharedFile(journal.fileno()),
        )
    with closing(finished):  # else what an error ends goes on writing behind it
        for entry in finished:
            journal.append(entry)
            statuses[entry.row.status] += 1
            verdicts[entry.row.verdict or ""] += 1
            processed += 1
            if listener is not None:
                listener(entry, statuses)
    total = {"images": statuses.total(), **{key: statuses[key] for key in ("ok", "no_lesion", "failed")}}
    return total | {key: verdicts[key] for key in ("review", "reject")}, processed


def _stage_seconds(journal: Journal, order: Sequence[str]) -> dict[str, float]:
    """Seconds per stage, summed over the images of all sessions; threads run side by side."""
    total = dict.fromkeys(STAGES, 0.0)
    for entry in journal.entries(order):
        for stage, seconds in entry.stages.items():
            total[stage] += seconds
    return {stage: round(seconds, 3) for stage, seconds in total.items()}
