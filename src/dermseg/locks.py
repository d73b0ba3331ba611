"""One process at a time: a lock on an open file, on every system."""

from __future__ import annotations

import errno
import os
from typing import BinaryIO

LOCK_AT = 1 << 40  # Windows locks bytes, not files: far beyond the end, so that reading stays possible
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


def lock_file(file: BinaryIO) -> None:
    """Lock an open file without waiting. The lock ends with the file, or with the process, however that ends.

    On a file system without locks nothing is locked.

    Raises
    ------
    OSError
        Another process holds it.
    """
    try:
        if os.name == "nt":  # pragma: no cover - exercised on Windows only
            import msvcrt

            file.seek(LOCK_AT)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
