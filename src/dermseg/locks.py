"""One process at a time: a lock on an open file, on every system."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

_LOCK_AT = 1 << 40  # Windows locks bytes, not files: far beyond the end, so that reading stays possible


def lock_file(file: BinaryIO) -> None:
    """Lock an open file without waiting. The lock ends with the file, or with the process, however that ends.

    Where the file system has no locks (some mounted drives) there is nothing to tell others by, and no error.

    Raises
    ------
    BlockingIOError, PermissionError
        Another process holds it.
    """
    try:
        _lock(file)
    except (BlockingIOError, PermissionError):
        raise
    except OSError:
        return


def _lock(file: BinaryIO) -> None:
    if os.name == "nt":  # pragma: no cover - exercised on Windows only
        import msvcrt

        file.seek(_LOCK_AT)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(descriptor: int) -> Iterator[None]:
    """Hold the lock of an open file; waits for other processes."""
    if os.name == "nt":  # pragma: no cover - exercised on Windows only
        import msvcrt

        def at_the_lock(mode: int) -> None:
            place = os.lseek(descriptor, 0, os.SEEK_CUR)
            os.lseek(descriptor, _LOCK_AT, os.SEEK_SET)
            msvcrt.locking(descriptor, mode, 1)  # type: ignore[attr-defined, unused-ignore]
            os.lseek(descriptor, place, os.SEEK_SET)

        at_the_lock(msvcrt.LK_LOCK)  # type: ignore[attr-defined, unused-ignore]
        try:
            yield
        finally:
            at_the_lock(msvcrt.LK_UNLCK)  # type: ignore[attr-defined, unused-ignore]
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
