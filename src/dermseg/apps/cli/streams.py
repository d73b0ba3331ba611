"""The standard streams as the program finds them: closed, of a narrow encoding, or with nobody listening."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, cast


class Told:
    """Stands for stderr: what nobody can hear any more is dropped.

    The terminal was closed, the program that reads the log has ended, or the disk of the log is full: hours
    of work are not to end with a line that says how far they are. What is left of stderr is that of before.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or drop it."""
        with suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or drop it."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def prepare_streams() -> None:
    """Make stdout and stderr such that the work does not depend on them.

    Stdout still raises where nobody reads it, or its disk is full: it carries results.
    """
    # Without a console (pythonw, a service) there are no streams; the work is to be done all the same.
    if sys.stdout is None or sys.stderr is None:
        nowhere = Path(os.devnull).open("w", encoding="utf-8", errors="replace")  # noqa: SIM115
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    # A file name with characters that a redirected stdout cannot encode must not cost the whole table.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr = cast("TextIO", Told(sys.stderr))
