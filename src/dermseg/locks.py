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
def locked(descriptor: int, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of an open file; waits for other processes.

    Parameters
    ----------
    shared
        Of one who only reads: the file need not be open for writing, which network drives (NFS) want for the
        whole lock, and where there are no locks, nobody is waited for.
    """
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

        held = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except OSError:
            if not shared:
                raise
            held = False
        try:
            yield
        finally:
            if held:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
