"""One window at a time: who has an image open is the only one to write its annotation and its journal."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

from dermseg.errors import DermsegError
from dermseg.locks import lock_file


class Claim:
    """Held while an image is open; a lock on a hidden file beside the annotation, which a crash ends too.

    Where nothing can be written, or the file system has no locks, it stops nobody.

    Parameters
    ----------
    annotation
        The annotation file; its folder is made.
    root
        A folder at or above it that was there. If that is gone, nothing is made: see ``Entry``.

    Raises
    ------
    DermsegError
        Another window has the image open.
    """

    def __init__(self, annotation: Path, root: Path | None = None) -> None:
        self.path = annotation.with_name(f".{annotation.name}.lock")
        self._file: BinaryIO | None = None
        try:
            if root is None or root.is_dir():
                self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("ab")
        except OSError:
            return
        try:
            lock_file(file)
        except (BlockingIOError, PermissionError):
            file.close()
            raise DermsegError(
                "is open in another window", file=annotation, hint="close it there to work on it here"
            ) from None
        self._file = file

    def release(self) -> None:
        """Others may open the image."""
        file, self._file = self._file, None
        if file is None:
            return
        with contextlib.suppress(OSError):
            if os.name == "nt":  # where an open file cannot be removed
                file.close()
            self.path.unlink()  # while it is locked: never that of the next one
        file.close()
