"""Batch jobs at work: one at a time, each exactly as ``dermseg segment JOB.zip -o OUT --resume`` would do it.

A job's folder holds ``input.zip`` as it came, ``out`` while it runs, and ``result.zip`` in the end. The
batch's own journal says which images are done, so a job that was interrupted, by SIGKILL too, goes on where
it was. It ends in this order, and each step may be done again after a crash without harm:

1. ``result.zip`` in one move, synced to the disk;
2. one audit record for each result, in one append, unless the log has them already;
3. the row says ``done``: only now can the result be fetched;
4. input and ``out`` are removed.

A job that ends the server itself, again and again before another image is done, fails: the others wait.

Where the disk refuses (full, read-only, the audit log moved) nothing of this can be trusted to happen, so the
job is neither done nor failed: it is taken up again until there is room.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from dermseg.apps.api.answers import config_sha256
from dermseg.apps.api.job_files import INPUT, OUT, RESULT, TRIES, list_images, pack_result, remove_files
from dermseg.apps.api.job_store import Job, JobStore
from dermseg.apps.api.metrics import Metrics
from dermseg.apps.api.problems import log_unexpected
from dermseg.apps.api.task import Ask
from dermseg.audit import AuditError, AuditLog, verdict_of
from dermseg.audit import Entry as AuditEntry
from dermseg.errors import DermsegError, UsageError
from dermseg.files import Tries
from dermseg.images.roles import JOURNAL
from dermseg.images.sources import ImageSource
from dermseg.images.zips import close_zips
from dermseg.inference.batch import run_batch
from dermseg.inference.journal import Entry, read_entries
from dermseg.inference.options import BatchOptions
from dermseg.inference.pipeline import Plan
from dermseg.inference.predictor import Model
from dermseg.inference.stages import FULL_DISK
from dermseg.report.batch import write_batch_report

_MOST_TRIES = 4  # that end the server before another image is done
_PROGRESS_S = 0.5
_PURGE_S = 600.0
_RETRY_S = 5.0
_log = logging.getLogger(__name__)


class JobRunner:
    """The thread that works on jobs.

    Parameters
    ----------
    folder
        Holds one folder for each job.
    threads
        Images of a job at once; single images have workers of their own beside them.
    """

    def __init__(
        self,
        store: JobStore,
        folder: Path,
        models: Mapping[str, Model],
        audit: AuditLog,
        metrics: Metrics,
        *,
        threads: int,
        max_megapixels: float,
        keep_s: float,
    ) -> None:
        self._store, self.folder, self._models = store, folder, models
        self._audit, self._metrics = audit, metrics
        self._threads, self._max_megapixels, self._keep_s = threads, max_megapixels, keep_s
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._stop_job = threading.Event()
        self._current: str | None = None
        self._lock = threading.Lock()
        self._clean()
        recovered = store.recover()
        if recovered:
            _log.info("jobs queued again", extra={"jobs": recovered})
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """There is a new job."""
        self._wake.set()

    def delete(self, job: Job) -> None:
        """End a job where it is, and remove its files."""
        self._store.end(job.id, "deleted", since=("queued", "running", "done", "failed"))
        with self._lock:
            if self._current == job.id:
                self._stop_job.set()
                return  # its files go when the images under way are done
        remove_files(self.folder / job.id)

    def stop(self) -> None:
        """Let the images under way end, then the thread; the job goes on at the next start."""
        self._stopping.set()
        self._stop_job.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        purged = 0.0
        left = False
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                if left:  # a job whose end could not be noted
                    self._store.recover()
                    left = False
                if time.monotonic() - purged > _PURGE_S or purged == 0.0:
                    purged = time.monotonic()
                    self._purge()
                job = self._store.next()
                if job is not None:
                    self._work(job)
                    continue
            except Exception as error:  # a full disk, say: the thread goes on and tries again
                left = True
                log_unexpected(error)
                self._stopping.wait(_RETRY_S)
                continue
            self._wake.wait(timeout=30.0)

    def _work(self, job: Job) -> None:
        with self._lock:
            self._current = job.id
            self._stop_job.clear()
            if self._stopping.is_set():
                self._stop_job.set()
        tries = Tries(self.folder / job.id / TRIES)
        try:
            if tries.begin(f"at {self._recorded(job.id)}") >= _MOST_TRIES:
                raise UsageError(
                    f"the server ended {_MOST_TRIES} times amid this job, at the same images",
                    hint="one of them may need more memory than there is",
                )
            self._segment(job)
        except Exception as error:
            if _refused(error):
                raise
            if isinstance(error, DermsegError):
                reason = f"{error.message} ({error.hint})" if error.hint else error.message
            else:
                reason = f"unexpected {type(error).__name__}"
            log_unexpected(error)
            self._store.end(job.id, "failed", problem=reason)
        finally:
            tries.end()
            close_zips()
            with self._lock:
                self._current = None
            now = self._store.get(job.id)
            if now is None or now.state == "deleted":
                shutil.rmtree(self.folder / job.id, ignore_errors=True)
            elif now.state in ("done", "failed"):
                self._tidy(job.id)
                _log.info(
                    "job",
                    extra={"job": job.id, "key": job.owner, "state": now.state, "images": now.images,
                           "failed": now.failed, "attempts": now.attempts},
                )  # fmt: skip

    def _recorded(self, job_id: str) -> int:
        """How many images of a job its journal has, below the line at its head."""
        try:
            with (self.folder / job_id / OUT / JOURNAL).open("rb") as file:
                return sum(1 for _ in file) - 1
        except OSError:
            return 0

    def _segment(self, job: Job) -> None:
        folder = self.folder / job.id
        options = job.options
        model = self._models.get(options["model"])
        if model is None:
            raise UsageError(f"this server no longer has the model '{options['model']}'")
        if not (folder / INPUT).is_file():  # of a database that came back from a backup, without the rest
            raise UsageError("the zip is no longer on the server", hint="send it as a new job")
        sources = list_images(folder / INPUT)
        batch = BatchOptions(
            threshold=options["threshold"],
            lesions=options["lesions"],
            tta=options["tta"],
            save=("mask", *(kind for kind in options["save"] if kind != "mask")),
            max_megapixels=self._max_megapixels,
        )
        noted = time.monotonic()

        def listen(entry: Entry | None, counts: Counter[str]) -> None:
            nonlocal noted
            if entry is not None:
                self._metrics.job_images.labels(entry.row.status).inc()
            if time.monotonic() - noted >= _PROGRESS_S:
                noted = time.monotonic()
                self._store.progress(job.id, counts)

        run = partial(
            run_batch,
            model,
            sources,
            folder / OUT,
            batch,
            plan=Plan(1, self._threads, 1),
            inputs=[INPUT],
            listener=listen,
            stop=self._stop_job,
        )
        try:
            result = run(resume=True)
        except UsageError as error:
            if _refused(error):
                raise
            result = run(overwrite=True)  # another model or version than before: nothing was given out yet
        self._store.progress(job.id, result.counts)
        if result.interrupted:
            return
        write_batch_report(result)
        pack_result(folder / OUT, folder / RESULT)
        self._record(job, model, sources, folder / OUT)
        self._store.end(job.id, "done")

    def _record(self, job: Job, model: Model, sources: list[ImageSource], out: Path) -> None:
        """One audit record for each mask; after a restart only those that the log does not have.

        Those of another model do not count: a server that comes back with one makes all masks anew.
        """
        prefix = f"job/{job.id}/"
        ask = Ask(job.options["model"], job.options["threshold"], job.options["lesions"], job.options["tta"])
        config = config_sha256(model, ask)
        same = {"model_sha256": model.sha256, "config_sha256": config}
        known = self._audit.find(prefix, **same) if job.attempts > 1 else set()
        entries = []
        names = [source.name for source in sources]
        for number, (source, entry) in enumerate(zip(sources, read_entries(out, names), strict=True), 1):
            row = entry.row
            if row.status == "failed" or f"{prefix}{number}" in known:
                continue
            assert row.mask is not None
            entries.append(
                AuditEntry(
                    "result",
                    job.owner,
                    f"{prefix}{number}",
                    hashlib.sha256(source.read_bytes()).hexdigest(),
                    model.sha256,
                    config,
                    hashlib.sha256((out / row.mask).read_bytes()).hexdigest(),
                    verdict_of(row.status, row.verdict, row.needs_review),
                )
            )
        if entries:
            self._metrics.audit_records.set(self._audit.append(entries)[-1].seq)

    def _tidy(self, job_id: str) -> None:
        """Only the result is kept of a job that has ended."""
        folder = self.folder / job_id
        (folder / INPUT).unlink(missing_ok=True)
        shutil.rmtree(folder / OUT, ignore_errors=True)

    def _purge(self) -> None:
        for job_id in self._store.forget(time.time() - self._keep_s):
            shutil.rmtree(self.folder / job_id, ignore_errors=True)

    def _clean(self) -> None:
        """Remove what a killed server left: uploads that were never accepted, inputs of finished jobs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        known = self._store.ids()
        for path in self.folder.iterdir():
            if path.name not in known:
                shutil.rmtree(path, ignore_errors=True)
                continue
            job = self._store.get(path.name)
            if job is not None and job.state in ("done", "failed"):
                self._tidy(job.id)
            elif job is not None and job.state == "deleted":
                shutil.rmtree(path, ignore_errors=True)


def _refused(error: BaseException) -> bool:
    """Whether it was not the job's fault but the disk's, which may be better later."""
    causes = (error, error.__cause__)
    return any(
        isinstance(cause, sqlite3.Error | AuditError)
        or (isinstance(cause, OSError) and cause.errno in FULL_DISK)
        for cause in causes
    )
