"""Whether a zip from a stranger may be opened: Python reads the whole directory of a zip into memory first.

A directory entry takes 46 bytes in the file and a thousand as an object, so a zip of 2 GB that is all
directory would take 40 GB. Its size stands at the end of the file.
"""

from __future__ import annotations

import struct
from pathlib import Path

from dermseg.apps.api.problems import Problem

MAX_DIRECTORY = 16_000_000  # 100,000 images with names of 60 letters have 11 MB
_END = b"PK\x05\x06"
_END_BYTES = 22
_ZIP64 = b"PK\x06\x07"
_ZIP64_BYTES = 20


def check_directory(path: Path) -> None:
    """Refuse what is not a zip, and a zip whose directory is too large.

    Raises
    ------
    Problem
        400 or 413.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - (1 << 16) - _END_BYTES - _ZIP64_BYTES))
        tail = file.read()
    # As zipfile looks for it: at the very end where there is no comment, else the last mark.
    at = len(tail) - _END_BYTES
    if at < 0 or not (tail.startswith(_END, at) and tail.endswith(b"\0\0")):
        at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        raise Problem(400, "zip", "the body is not a zip file")
    if at >= _ZIP64_BYTES and tail.startswith(_ZIP64, at - _ZIP64_BYTES):
        raise Problem(
            413, "zip", "zip files in the 64-bit form are not read", hint="send several smaller ones"
        )
    (directory,) = struct.unpack_from("<I", tail, at + 12)
    if directory > MAX_DIRECTORY:
        raise Problem(413, "zip", "the directory of the zip is too large", hint="send several smaller ones")
