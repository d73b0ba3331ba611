"""From the queue to the archive: one thread segments, one sends; both pick up where a crash left them."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
import time
from collections.abc import Callable
from datetime import datetime
from io import BytesIO

from pydicom import dcmread

from dermseg.audit import AuditLog, Entry, image_mark, read_key, verdict_of
from dermseg.dicom.config import PacsConfig
from dermseg.dicom.disk import write_synced
from dermseg.dicom.identity import Origin, unquoted, work_key
from dermseg.dicom.queue import Job, Queue, State
from dermseg.dicom.send import SendError, send
from dermseg.dicom.write import to_bytes, write_objects
from dermseg.errors import DermsegError, ImageError
from dermseg.files import Tries
from dermseg.images.dicom import read_dataset
from dermseg.images.load import load_image, load_view
from dermseg.images.masks import encode_mask
from dermseg.images.resize import shrink
from dermseg.inference.options import describe_model
from dermseg.inference.pictures import OVERLAY_SIDE, draw_described, resize_mask
from dermseg.inference.predictor import Model
from dermseg.inference.result import Result

_log = logging.getLogger(__name__)
_IDLE_S = 1.0
_MOST_TRIES = 4  # of a step that end the process


class Worker:
    """Segments and sends what is in a queue, on two threads.

    Parameters
    ----------
    queue
        Owned by this process.
    config
        What to make and where to send it.
    model
        Ready to run.
    """

    def __init__(self, queue: Queue, config: PacsConfig, model: Model) -> None:
        self.queue = queue
        self.config = config
        self.model = model
        self.described = describe_model(model)
        # With the kinds of results: where one was added, an image that is sent again is not done yet. UIDs do
        # without: those that were made before stay the same objects.
        self.work_key = work_key(self.described, config.options | {"results": config.kinds})
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._audit: AuditLog | None = None
        self._audited: set[str] = set()
        if config.audit is not None:
            key = None if config.audit_key is None else read_key(config.audit_key)
            self._audit = AuditLog(config.audit, key)
            self._audited = self._audit.find("dicom/")

    def start(self) -> None:
        """Begin; returns at once."""
        self.queue.adopt(self.work_key)
        self.queue.tidy(keep_received=self.config.listen.storage_commitment)
        for state, step in (("received", self.make), ("made", self.send)):
            thread = threading.Thread(target=self._loop, args=(state, step), name=f"dermseg-{state}")
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End after what is under way; waits."""
        self._stop.set()
        self.queue.changed.set()
        for thread in self._threads:
            thread.join()
        if self._audit is not None:
            self._audit.close()

    def _loop(self, state: State, step: Callable[[Job], None]) -> None:
        forgotten = -math.inf  # of a clock that nobody sets
        while not self._stop.is_set():
            try:
                job = self.queue.take(state)
                if job is not None:
                    self._try(job, step)
                    continue
                days = self.config.record_days
                if state == "made" and days is not None and time.monotonic() - forgotten > 3600:
                    forgotten = time.monotonic()
                    self.queue.forget(time.time() - 86400 * days)
            except DermsegError as error:  # the disk is full, say: everything waits
                log("queue_error", reason=error.message)
                self._stop.wait(5 * _IDLE_S)
                continue
            self.queue.changed.wait(_IDLE_S)
            self.queue.changed.clear()

    def _try(self, job: Job, step: Callable[[Job], None]) -> None:
        """One step; a failure is a later try or a dead letter, never the end of the loop."""
        started = time.perf_counter()
        tries = Tries(self.queue.folder / f"{step.__name__}.tries")
        try:
            if tries.begin(str(job.id)) >= _MOST_TRIES:
                raise ImageError(f"the service ended {_MOST_TRIES} times amid this: is there memory enough?")
            step(job)
            log(step.__name__, job=job.id, seconds=round(time.perf_counter() - started, 3))
        except Exception as error:
            reason = reason_of(error)
            _log.debug("job %s", job.id, exc_info=True)
            final = isinstance(error, ImageError) or (isinstance(error, SendError) and error.final)
            if final or job.attempts + 1 >= self.config.retry.attempts:
                self.queue.move(job, "dead", reason)
                log("dead_letter", job=job.id, step=step.__name__, reason=reason)
            else:
                wait = self.config.retry.delay_s(job.attempts + 1)
                self.queue.postpone(job, wait, reason)
                log("postponed", job=job.id, step=step.__name__, seconds=wait, reason=reason)
        finally:
            tries.end()

    def make(self, job: Job) -> None:
        """Segment a received image and write its results into ``made/``."""
        data = self.queue.received_path(job.image_uid).read_bytes()
        image = read_dataset(data)
        max_pixels = round(self.config.max_megapixels * 1e6)
        loaded = load_image(data, min_side=self.model.min_side, max_pixels=max_pixels)
        options = self.config
        result = self.model.segment(
            loaded, threshold=options.threshold, lesions=options.lesions, tta=options.tta
        )
        overlay = None
        if "dicom-sc" in options.kinds:
            pixels = shrink(load_view(data, loaded, max_pixels=max_pixels), OVERLAY_SIDE)
            mask = resize_mask(result.mask, pixels.shape[:2])
            overlay = draw_described(pixels, mask, result, self.model)
        del image.PixelData
        # The moment of receipt, not of now: done again after a crash, the objects are the same to the byte.
        origin = Origin(image, self.described, options.options, datetime.fromtimestamp(int(job.received)))
        try:
            made = write_objects(origin, result, options.kinds, overlay=overlay)
            files = {kind: to_bytes(dataset) for kind, dataset in made.items()}
        except (ImageError, MemoryError):
            raise
        except Exception as error:  # highdicom and pydicom refuse headers in many ways
            raise ImageError(f"no result can be written for this header ({type(error).__name__})") from error
        for kind, made_file in files.items():
            write_synced(self.queue.made_path(job, kind), made_file)
        self._record(job, data, result)
        self.queue.move(job, "made")

    def _record(self, job: Job, data: bytes, result: Result) -> None:
        """One audit record for each job and file, however often its results are made."""
        if self._audit is None:
            return
        input_sha256 = hashlib.sha256(data).hexdigest()
        # Job numbers begin again with every queue, and one log may outlive many.
        digest = hashlib.sha256(f"{job.received!r} {self.work_key} {input_sha256}".encode()).hexdigest()
        subject = f"dicom/{job.id}/{digest[:32]}/{image_mark(job.image_uid)}"
        if subject in self._audited:
            return
        verdict, judged = result.verdict, result.judgement
        self._audit.append(
            [
                Entry(
                    "result",
                    actor="pacs",
                    subject=subject,
                    input_sha256=input_sha256,
                    model_sha256=self.described["sha256"],
                    config_sha256=self.work_key,
                    output_sha256=hashlib.sha256(encode_mask(result.mask)).hexdigest(),
                    verdict=verdict_of(
                        result.status,
                        None if verdict is None else verdict.level,
                        None if judged is None else judged.needs_review,
                    ),
                )
            ]
        )
        self._audited.add(subject)

    def send(self, job: Job) -> None:
        """Send the results of a job and remove its files."""
        paths = [self.queue.made_path(job, kind) for kind in self.config.kinds]
        objects = [dcmread(BytesIO(path.read_bytes())) for path in paths if path.exists()]
        if not objects:
            self.queue.move(job, "received", "its results were gone")
            return
        send(objects, self.config.send)
        self.queue.finish(job, keep_received=self.config.listen.storage_commitment)
        for path in paths:
            path.unlink(missing_ok=True)


def reason_of(error: Exception) -> str:
    """Why, for the log and the queue: in dermseg's own words or the system's (a full disk).

    Those of libraries may hold values from the header, in quotation marks where dermseg passes them on.
    """
    if isinstance(error, ImageError):
        return unquoted(error.message)
    if isinstance(error, DermsegError):
        return error.message
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


def log(event: str, **values: object) -> None:
    """One JSON line in the log ``dermseg.dicom``; job numbers only, nothing about a patient."""
    _log.info(json.dumps({"event": event, **values}))
