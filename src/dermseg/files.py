"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path

from dermseg.errors import DermsegError


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all; folders are made.

    The temporary name begins with a dot, in the same folder, since a rename is atomic only within a file
    system.

    Raises
    ------
    DermsegError
        The folder cannot be made or written, or the disk is full.
    """
    # Not tempfile: its files can be read by their owner only, whatever the umask says.
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
        temporary.replace(path)
    except OSError as error:
        raise DermsegError(f"cannot be written: {error.strerror or error}", file=path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
