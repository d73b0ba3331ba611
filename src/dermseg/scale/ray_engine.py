"""``dermseg segment --engine ray``: a job on Ray Data, on this machine or on a cluster.

One row of the data set is one part (see ``parts``), mapped by a pool of workers with one CPU each. Ray
starts a dead worker anew and gives its part out again; a part that kills its worker four times is given up,
reported, and tried again by the next run with ``--resume``.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from dermseg.errors import DermsegError
from dermseg.files import json_text
from dermseg.images.names import printable_name
from dermseg.images.roles import RUN
from dermseg.inference.machine import describe_machine, library_versions
from dermseg.inference.options import BatchOptions, describe_model, settle_margin
from dermseg.inference.outputs import LAYOUT, plan_stems
from dermseg.inference.predictor import Model
from dermseg.scale.cluster import connect
from dermseg.scale.manifest import Listed
from dermseg.scale.parts import (
    JOB,
    TABLE,
    check_arrived,
    check_files,
    claim,
    describe_job,
    forget_all_tries,
    part_size,
    read_done,
    read_failures,
)
from dermseg.scale.storage import Store
from dermseg.scale.worker import STATUSES, PartWorker, Work
from dermseg.version import __version__

SHOWN_FAILURES = 5
_ROW = pa.schema(
    {
        "part": pa.int64(),
        **dict.fromkeys(["locations", "names", "stems"], pa.list_(pa.string())),
        "entries": pa.list_(pa.int64()),
    }
)
_TEMPORARY = re.compile(r"\..{1,40}\.[0-9a-f]{12}\.tmp", re.DOTALL)
Listener = Callable[[int | None, "Counter[str]"], None]  # number of the finished part, counts so far


@dataclass(frozen=True, slots=True)
class RayResult:
    """How a job ended; the fields are those of ``batch.BatchResult`` where they have the same name.

    ``unfinished`` counts the images of parts that were given up, ``problems`` has the reasons;
    ``failures`` names the first images that failed, each with its reason.
    """

    out: str
    images: int
    model: dict[str, Any]
    counts: dict[str, int]
    processed: int
    seconds: float
    images_per_second: float | None
    interrupted: bool
    unfinished: int
    problems: tuple[str, ...]
    failures: tuple[tuple[str, str], ...]


def run_on_ray(
    model: Model,
    bundle: str,
    listed: Sequence[Listed],
    out: str,
    options: BatchOptions,
    *,
    workers: int | None = None,
    resume: bool = False,
    inputs: Sequence[str] = (),
    quiet: bool = False,
    listener: Listener | None = None,
    stop: threading.Event | None = None,
) -> RayResult:
    """Segment every listed image into the folder or URL `out`.

    Parameters
    ----------
    model, bundle
        The model, and the name or path under which the workers find it.
    workers
        Worker processes, one CPU each; None takes the CPUs of the cluster.
    quiet
        Keep what Ray says of workers that died off stderr, where every line is to be JSON.
    listener
        Told of finished parts; first, once, with None and what an earlier run has done.
    stop
        Set it to end early; parts under way are left to ``resume``.

    Raises
    ------
    UsageError
        `out` holds another job, or the model has no margins at the level asked for.
    ModelError
        Margins of a level are asked for and none were fitted for the model.
    DermsegError
        `out` cannot be written to, or is another folder on another machine, or Ray or its workers cannot
        start.
    """
    begin = time.perf_counter()
    stop = stop or threading.Event()
    store = Store(out)
    described = describe_model(model)
    options = settle_margin(options, model)
    job = describe_job(described, options.as_dict(), listed)
    new = claim(store, job, resume=resume)
    size = part_size(len(listed))
    parts = range(-(-len(listed) // size))
    earlier = {part: counts for part, counts in read_done(store).items() if not counts["failed"]}
    check_files(store, job, earlier)
    forget_all_tries(store)
    done = _Done(sum(earlier.values(), Counter[str]()), set(earlier))
    before = done.counts.total()
    if listener is not None:
        listener(None, done.counts)
    left = [part for part in parts if part not in earlier]
    used = 0
    if left:
        work = Work(
            __version__, bundle, model.variant, model.session.runtime, described, options, _absolute(store)
        )
        try:
            with connect(workers, quiet=quiet) as used:
                for row in _map(_tables(listed, left, size), work, min(used, len(left))):
                    if done.add(store, row) and listener is not None:
                        listener(row["part"], done.counts)
                    if stop.is_set():
                        break
        except DermsegError:
            if new and not store.names(TABLE):  # nothing was begun: the folder is free for another job
                store.remove(JOB)
            raise
    complete = len(done.parts) == len(parts)
    if store.local is not None and complete:
        _remove_leftovers(store)
    counts = done.with_verdicts(store)
    seconds = time.perf_counter() - begin
    processed = counts["images"] - before
    rate = round(processed / seconds, 3) if processed else None
    if complete:
        record = {
            "schema_version": 1,
            "engine": "ray",
            "model": described,
            "options": options.as_dict(),
            "inputs": [printable_name(given) for given in inputs],
            "counts": counts,
            "versions": library_versions(),
            "machine": describe_machine(),
            "timing": {
                "wall_seconds": round(seconds, 3),
                "images": processed,
                "images_per_second": rate,
                "workers": used,
                "parts": len(parts),
            },
        }
        store.write(RUN, json_text(record))
    interrupted = stop.is_set() and not complete
    return RayResult(
        out,
        len(listed),
        described,
        counts,
        processed,
        seconds,
        rate,
        interrupted,
        0 if interrupted else len(listed) - counts["images"],
        tuple(dict.fromkeys(done.problems)),
        tuple(read_failures(store, sorted(done.failing), SHOWN_FAILURES)),
    )


@dataclass(slots=True)
class _Done:
    """What is done so far, by earlier runs and this one; ``failing`` are parts of this one with failures."""

    counts: Counter[str]
    parts: set[int]
    failing: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def add(self, store: Store, row: dict[str, Any]) -> bool:
        """Take in what became of a part: whether it is done, and not given up."""
        if row["error"] is not None:
            self.problems.append(row["error"])
            return False
        check_arrived(store, row["part"])
        self.counts.update({status: row[status] for status in STATUSES})
        self.parts.add(row["part"])
        if row["failed"]:
            self.failing.add(row["part"])
        return True

    def with_verdicts(self, store: Store) -> dict[str, int]:
        """Images, each status, and the verdicts that ask for a person, which stand in the table only."""
        judged = read_done(store, "verdict")
        verdicts = sum((judged[part] for part in self.parts), Counter[str]())
        counts = {"images": self.counts.total(), **{status: self.counts[status] for status in STATUSES}}
        return counts | {verdict: verdicts[verdict] for verdict in ("review", "reject")}


def _absolute(store: Store) -> str:
    """Where the results go, for workers that may run in another folder."""
    return store.place if store.local is None else str(store.local.absolute())


def _tables(listed: Sequence[Listed], parts: Sequence[int], size: int) -> list[pa.Table]:
    """One table of one row for each part."""
    stems = plan_stems([image.name for image in listed])
    tables = []
    for part in parts:
        images = listed[part * size : (part + 1) * size]
        row = {
            "part": part,
            "locations": [image.location for image in images],
            "names": [image.name for image in images],
            "entries": [image.entry for image in images],
            "stems": [stems[image.name] for image in images],
        }
        tables.append(pa.Table.from_pylist([row], _ROW))
    return tables


def _map(tables: list[pa.Table], work: Work, workers: int) -> Iterator[dict[str, Any]]:
    """What became of each part, in the order of completion."""
    import ray.data
    from ray.exceptions import RayError

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a part that is given up does not end the others
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    results = ray.data.from_arrow(tables).map_batches(
        PartWorker,
        fn_constructor_args=(work,),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
    )
    try:
        yield from results.iter_rows()
    except RayError as error:  # no worker can start: another version, no such bundle, ...
        reason = str(error).strip().rpartition("\n")[2]
        raise DermsegError(f"the workers cannot go on: {reason}", hint="--resume goes on from here") from None


def _remove_leftovers(store: Store) -> None:
    """Remove files that a killed worker was writing: the folder is ours, and nobody writes any more."""
    assert store.local is not None
    for folder in {folder for folder, _ in LAYOUT.values()} | {TABLE}:
        for path in (store.local / folder).rglob(".*.tmp"):
            if _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)
