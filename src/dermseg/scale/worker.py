"""What one worker of a cluster does: opens the model once, then segments part after part.

A part never raises: what goes wrong with one image is its row, and a store that cannot be written to is
tried again, then reported, so that the other parts go on. A worker that dies is started anew by Ray, and its
part is given out again, at most four times.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from dermseg.errors import DermsegError, UsageError
from dermseg.inference.journal import Entry
from dermseg.inference.options import BatchOptions, open_segmenter
from dermseg.inference.outputs import output_files
from dermseg.inference.pipeline import run_threads
from dermseg.inference.predictor import load_model
from dermseg.inference.stages import Job as ImageJob
from dermseg.scale.manifest import Listed
from dermseg.scale.parts import count_try, forget_tries, write_part
from dermseg.scale.storage import Store
from dermseg.version import __version__

THREADS = 2  # per CPU: one waits for storage while the other computes
TRIES, WAIT_S = 4, 2.0
STATUSES = ("ok", "no_lesion", "failed")


@dataclass(frozen=True, slots=True)
class Work:
    """What every worker has to know."""

    version: str
    bundle: str  # name of a bundled model, or a path that every machine sees
    variant: str
    runtime: str
    model: dict[str, Any]  # as ``batch.describe_model`` gives it
    options: BatchOptions
    out: str


class PartWorker:
    """Segments parts; Ray makes one for each worker process."""

    def __init__(self, work: Work) -> None:
        import cv2

        cv2.setNumThreads(1)
        if work.version != __version__:
            raise UsageError(f"this machine has dermseg {__version__}, the job was sent by {work.version}")
        self.work = work
        self.store = Store(work.out)
        self._folder = self.store.local or Path(tempfile.mkdtemp(prefix="dermseg-"))
        if self.store.local is None:  # results are written there, then sent
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        model = load_model(work.bundle, variant=work.variant, runtime=work.runtime, threads=1)
        self._segmenter = open_segmenter(model, work.model, self._folder, work.options)

    def __call__(self, table: pa.Table) -> pa.Table:
        """One row with what became of the part, for one row as ``ray_engine._tables`` makes them."""
        (row,) = table.to_pylist()
        columns = (row[column] for column in ("locations", "names", "entries"))
        listed = [Listed(*values) for values in zip(*columns, strict=True)]
        counts: Counter[str] = Counter()
        error: str | None = None
        for attempt in range(TRIES):
            try:
                # Ray gives a part out for ever; an image that takes all memory must not hold up the job.
                if attempt == 0 and (deaths := count_try(self.store, row["part"])) >= TRIES:
                    error = f"part {row['part']} ended its worker {deaths} times, from {listed[0].place} on"
                    break
                counts, error = self.segment(row["part"], listed, row["stems"]), None
                forget_tries(self.store, row["part"])
                break
            except Exception as problem:
                error = str(problem) if isinstance(problem, DermsegError) else repr(problem)
                if attempt + 1 < TRIES:
                    time.sleep(WAIT_S * 2**attempt)
        return pa.table(
            {
                "part": [row["part"]],
                **{status: [counts[status]] for status in STATUSES},
                "error": pa.array([error], pa.string()),
            }
        )

    def segment(self, part: int, listed: Sequence[Listed], stems: Sequence[str]) -> Counter[str]:
        """Segment the images of a part and record it; how many ended with which status."""
        options = self.work.options
        jobs: list[ImageJob] = [
            (
                image.source(),
                output_files(
                    stem,
                    options.save,
                    labels=options.lesions == "all",
                    uncertainty=options.uncertainty,
                    margins=options.margin is not None,
                ),
            )
            for image, stem in zip(listed, stems, strict=True)
        ]
        stop = threading.Event()
        entries = {
            entry.row.file: entry for entry in run_threads(jobs, self._one, threads=THREADS, stop=stop)
        }
        rows = [entries[image.name].row for image in listed]
        write_part(self.store, part, zip((image.place for image in listed), rows, strict=True))
        return Counter(row.status for row in rows)

    def _one(self, job: ImageJob) -> Entry:
        entry = self._segmenter(job)
        if self.store.local is None:
            for name in entry.files:
                self.store.write(name, (self._folder / name).read_bytes())
                (self._folder / name).unlink()
        return entry
