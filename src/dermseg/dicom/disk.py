"""Files that are on the disk when the call returns, for work whose receipt is confirmed to others."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from dermseg.files import sync_folder


def write_synced(path: Path, data: bytes) -> None:
    """Write a file that is whole and on the disk when this returns, or not there."""
    temporary = path.with_name(f"{path.name}.{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)  # the name too
