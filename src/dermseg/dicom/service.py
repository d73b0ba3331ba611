"""``dermseg dicom listen`` and ``watch``: queue, worker and feeder started in order and ended in order."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dermseg.dicom.config import PacsConfig
from dermseg.dicom.queue import Queue
from dermseg.dicom.receive import Receiver
from dermseg.dicom.send import check_target
from dermseg.dicom.watch import Watcher
from dermseg.dicom.work import Worker, log
from dermseg.errors import ConfigError
from dermseg.inference.predictor import load_model


def listen(config: PacsConfig, stop: threading.Event) -> None:
    """Receive images over DICOM, segment them and send the results, until `stop` is set.

    Raises
    ------
    ConfigError
        A secret or certificate that the configuration names is missing or does not fit.
    UsageError
        The port is taken, or another process works in the folder.
    """
    with _working(config) as (queue, worker):
        receiver = Receiver(queue, worker, config)
        receiver.start()
        at = config.listen
        log("listening", ae_title=at.ae_title, address=at.address, port=at.port, **queue.counts())
        try:
            stop.wait()
        finally:
            receiver.stop()


def watch(config: PacsConfig, stop: threading.Event) -> None:
    """Ask an archive for images over DICOMweb, segment them and send the results, until `stop` is set.

    Raises
    ------
    ConfigError
        The configuration names no archive to watch, or a secret or certificate is missing.
    UsageError
        Another process works in the folder.
    """
    if config.watch is None:
        raise ConfigError("the configuration has no section 'watch'")
    with _working(config) as (queue, worker):
        watcher = Watcher(queue, worker, config, config.watch)
        log("watching", **queue.counts())
        watcher.run(stop)


@contextmanager
def _working(config: PacsConfig) -> Iterator[tuple[Queue, Worker]]:
    for name in ("pynetdicom", "pydicom", "dicomweb_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # theirs may hold names and values
    check_target(config.send)
    model = load_model(config.model, variant=config.variant)
    queue = Queue(config.folder)
    try:
        worker = Worker(queue, config, model)
        worker.start()
        try:
            yield queue, worker
        finally:
            worker.stop()
    finally:
        queue.close()


@contextmanager
def until_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set: what is under way is finished, then the service ends."""
    stop = threading.Event()

    def handle(number: int, frame: Any) -> None:
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
