"""Asking an archive for new images over DICOMweb: QIDO-RS to find them, WADO-RS to fetch them.

A study is looked into again only when its number of instances has changed; what is in the queue is not
fetched again. Nothing is remembered before it is in the queue, so a crash costs a second look and no image.
What the archive lists and does not give (off line, damaged) is asked for again later and later, and does not
keep the others waiting.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import partial
from typing import Any

import requests
from dicomweb_client.api import DICOMwebClient

from dermseg.dicom.config import PacsConfig, Watch
from dermseg.dicom.identity import is_ours
from dermseg.dicom.queue import Queue, State
from dermseg.dicom.receive import IMAGE_CLASSES
from dermseg.dicom.send import cause_of, web_client
from dermseg.dicom.work import Worker, log
from dermseg.dicom.write import to_bytes
from dermseg.errors import DermsegError

_STUDY, _SERIES, _INSTANCE, _CLASS = "0020000D", "0020000E", "00080018", "00080016"
_STUDY_INSTANCES = "00201208"
_PAGE = 100


class Watcher:
    """Polls one archive into a queue.

    Parameters
    ----------
    queue, worker
        Where images go.
    config, watch
        The whole configuration, and the archive to ask.
    """

    def __init__(self, queue: Queue, worker: Worker, config: PacsConfig, watch: Watch) -> None:
        self.queue = queue
        self.worker = worker
        self.config = config
        self.watch = watch
        self._client: DICOMwebClient = web_client(watch.web)
        self._missed: dict[str, tuple[int, float]] = {}  # UID -> failures, when to ask again
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Poll until `stop` is set, amid a poll too; an archive that is away is asked again later."""
        self._stop = stop
        failures = 0
        while not stop.is_set():
            try:
                found = self.poll()
                failures = 0
                log("polled", found=found)
            except Exception as error:  # what an archive answers can be anything: it is asked again
                failures += 1
                log("poll_failed", reason=cause_of(error))
            wait = self.watch.poll_s
            stop.wait(max(wait, self.config.retry.delay_s(failures)) if failures else wait)

    def poll(self) -> int:
        """Look once; returns how many new images are in the queue now.

        Raises
        ------
        ConfigError
            The secret or the authority can no longer be read.
        requests.RequestException
            The archive cannot be reached or refuses.
        """
        self._client = web_client(self.watch.web)  # a new password, or authority, counts from now on
        found = 0
        for modality in self.watch.modalities:
            filters: dict[str, Any] = {"ModalitiesInStudy": modality}
            if self.watch.days is not None:
                first = date.today() - timedelta(days=self.watch.days)
                filters["StudyDate"] = f"{first:%Y%m%d}-"
            search = partial(
                self._client.search_for_studies,
                search_filters=filters,
                fields=["NumberOfStudyRelatedInstances"],
            )
            for study in _pages(search, _STUDY):
                if self._stop.is_set():
                    return found
                uid, count = str(_value(study, _STUDY)), int(_value(study, _STUDY_INSTANCES) or -1)
                if count >= 0 and not self.queue.study_changed(uid, count):
                    continue
                new, whole = self._fetch(uid)
                found += new
                if whole:
                    self.queue.note_study(uid, count)
        return found

    def _fetch(self, study: str) -> tuple[int, bool]:
        """How many images of a study are new in the queue, and whether all that it has are."""
        search = partial(self._client.search_for_instances, study_instance_uid=study, fields=["SOPClassUID"])
        found, whole = 0, True
        for instance in _pages(search, _INSTANCE):
            if self._stop.is_set():
                return found, False
            uid = str(_value(instance, _INSTANCE))
            if str(_value(instance, _CLASS)) not in IMAGE_CLASSES or self.queue.knows(
                uid, self.worker.work_key
            ):
                continue
            if self.queue.waiting() >= self.config.max_waiting:
                raise DermsegError("too many images wait")
            failures, again = self._missed.get(uid, (0, 0.0))
            if time.monotonic() < again:
                whole = False
                continue
            try:
                dataset = self._client.retrieve_instance(
                    study, str(_value(instance, _SERIES)), uid, media_types=(("application/dicom", "*"),)
                )
                state: State = "ignored" if is_ours(dataset) else "received"
                data = to_bytes(dataset)
            except (requests.ConnectionError, requests.Timeout):  # the archive is away, not the image
                raise
            except Exception as error:
                whole = False
                wait = self.config.retry.delay_s(failures + 1)
                self._missed[uid] = failures + 1, time.monotonic() + wait
                log("not_fetched", seconds=wait, reason=cause_of(error))
                continue
            self._missed.pop(uid, None)
            found += self.queue.add(uid, self.worker.work_key, "web", data, state=state)
        return found, whole


def _pages(search: Callable[..., list[dict[str, Any]]], key: str) -> Iterator[dict[str, Any]]:
    """Every answer to a query once, page by page.

    Not the client's ``get_remaining``: it asks for ever where an archive gives the same page for every offset
    (Orthanc's plugin 1.7 does).
    """
    seen: set[str] = set()
    while True:
        page = [item for item in search(limit=_PAGE, offset=len(seen)) if str(_value(item, key)) not in seen]
        if not page:
            return
        for item in page:
            seen.add(str(_value(item, key)))
            yield item


def _value(item: dict[str, Any], tag: str) -> Any:
    """The first value of an attribute of a DICOM JSON object, or None."""
    values = item.get(tag, {}).get("Value") or [None]
    return values[0]
