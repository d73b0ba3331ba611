"""Ctrl-C and SIGTERM as a request to end well."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# The second is how containers, services and the jobs of a cluster are told to end. The first process of a
# container that does not handle it never gets it, and is killed some time later.
_ASKS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """The first Ctrl-C (or SIGTERM) lets the images under way end, the second ends the program."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in _ASKS}

    def handle(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    if threading.current_thread() is not threading.main_thread():  # only there are signals delivered
        yield stop
        return
    for number in _ASKS:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
