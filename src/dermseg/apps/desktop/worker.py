"""Work beside the window: a thread for each kind of work; the newest request replaces those before it."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, QThread, Signal, Slot

from dermseg.errors import DermsegError

Job = Callable[[], Any]
Then = Callable[[Any], None]


class Worker(QThread):
    """A thread that does the newest job. What a newer job or ``cancel`` overtook is never delivered.

    Signals
    -------
    failed
        A job's error.
    busy
        Whether there is work.

    Attributes
    ----------
    working
        Whether an answer is still to come.
    """

    failed = Signal(object)
    busy = Signal(bool)
    _finished = Signal(int, object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._ready = threading.Condition()
        self._ticket = 0
        self._waiting: tuple[int, Job] | None = None
        self._then: Then = lambda result: None
        self._stop = False
        self.working = False
        self._finished.connect(self._deliver)

    def submit(self, job: Job, then: Then) -> None:
        """Run ``job`` in the thread and ``then`` with its result in the window's."""
        with self._ready:
            self._ticket += 1
            self._waiting = (self._ticket, job)
            self._then = then
            self._ready.notify()
        self.working = True
        self.busy.emit(True)
        if not self.isRunning():
            self.start()

    def cancel(self) -> None:
        """Nothing that was asked for is wanted any more."""
        with self._ready:
            self._ticket += 1
            self._waiting = None
        self.working = False
        self.busy.emit(False)

    def stop(self) -> None:
        """End the thread, after what it was asked for and was not cancelled."""
        with self._ready:
            self._ticket += 1
            self._stop = True
            self._ready.notify()
        self.wait()

    def run(self) -> None:
        """The thread."""
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._stop or self._waiting is not None)
                if self._waiting is None:
                    return
                ticket, job = self._waiting
                self._waiting = None
            error: Exception | None
            try:
                result, error = job(), None
            except (DermsegError, MemoryError, OSError) as problem:
                result, error = None, problem
            except Exception as problem:  # a defect: the window must not wait for ever
                traceback.print_exc()  # whoever reports it needs the place
                result, error = None, DermsegError(f"unexpected {type(problem).__name__}: {problem}")
            self._finished.emit(ticket, result, error)

    @Slot(int, object, object)
    def _deliver(self, ticket: int, result: Any, error: Exception | None) -> None:
        if ticket != self._ticket:
            return
        self.working = False
        self.busy.emit(False)
        if error is None:
            self._then(result)
        else:
            self.failed.emit(error)
