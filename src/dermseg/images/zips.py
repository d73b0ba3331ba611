"""Zip files read in place: one open handle per file and process, limits on declared and on real bytes.

Opening a zip parses its whole directory. A batch reads thousands of members of one zip, so handles are kept
(the last few used) and looked up by path, size and time of change. Nothing is ever unpacked to disk.
"""

from __future__ import annotations

import os
import stat
import threading
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import IO

from dermseg.errors import ImageError

_MAX_HANDLES = 4
_UTF8_NAME = 0x800  # of a member's flags
_Key = tuple[str, int, int]
_lock = threading.RLock()
_handles: OrderedDict[_Key, zipfile.ZipFile] = OrderedDict()


def open_zip(path: Path) -> zipfile.ZipFile:
    """Return the process-wide handle of a zip file; do not close it.

    Raises
    ------
    ImageError
        The file is missing, or its directory is damaged.
    """
    try:
        status = path.stat()
        key = (os.path.realpath(path), status.st_size, status.st_mtime_ns)
        with _lock:
            handle = _handles.get(key)
            if handle is None:
                if not stat.S_ISREG(status.st_mode):
                    raise ImageError("is not a regular file", file=path)
                handle = _handles[key] = zipfile.ZipFile(path)
                _name_as_meant(handle)
            _handles.move_to_end(key)
            while len(_handles) > _MAX_HANDLES:
                # Members still being read keep the file open until they are closed.
                _handles.popitem(last=False)[1].close()
            return handle
    except FileNotFoundError:
        raise ImageError("the zip file does not exist", file=path) from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, IndexError) as error:
        raise ImageError(f"the zip file is damaged: {error}", file=path, hint="copy it again") from error
    except OSError as error:
        raise ImageError(f"cannot be opened: {error.strerror or error}", file=path) from error


def _name_as_meant(archive: zipfile.ZipFile) -> None:
    """Macs store names in UTF-8 without the flag that says so, and Python takes them for code page 437.

    A name of that code page is hardly ever UTF-8 by chance. The old one finds its member, too.
    """
    for info in archive.infolist():
        if not info.flag_bits & _UTF8_NAME and not info.filename.isascii():
            with suppress(UnicodeError):
                info.filename = info.filename.encode("cp437").decode("utf-8")
                archive.NameToInfo.setdefault(info.filename, info)


def open_member(path: Path, member: str, entry: int | None = None) -> tuple[IO[bytes], int]:
    """Open a member for reading and return it with the size that the directory declares.

    Parameters
    ----------
    path
        The zip file.
    member
        The member's name as stored.
    entry
        Position in the directory; tells apart members that share a name.

    Raises
    ------
    ImageError
        No such member, or it is encrypted, a link, or packed in a way that is not read.
    """
    label = f"{path}!{member}"
    with _lock:  # the handle must not be evicted between look-up and open
        archive = open_zip(path)
        info = _find(archive, member, entry)
        if info is None:
            raise ImageError("the zip file has no such member", file=label)
        if info.flag_bits & 0x1:
            raise ImageError("is encrypted", file=label, hint="unpack it with its password first")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ImageError("is a symbolic link inside a zip, which is not followed", file=label)
        try:
            return archive.open(info), info.file_size
        except NotImplementedError as error:
            hint = "pack it again with the usual 'deflate' method"
            raise ImageError(
                f"is packed in a way that is not read: {error}", file=label, hint=hint
            ) from error
        except (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, OSError, LookupError) as error:
            raise ImageError(f"the zip file is damaged here: {error}", file=label) from error


def find_member(path: Path, member: str, entry: int | None = None) -> zipfile.ZipInfo | None:
    """What the directory of the zip says about a member; None where there is none of that name.

    Raises
    ------
    ImageError
        As ``open_zip``.
    """
    with _lock:
        return _find(open_zip(path), member, entry)


def _find(archive: zipfile.ZipFile, member: str, entry: int | None) -> zipfile.ZipInfo | None:
    if entry is not None:
        infos = archive.infolist()
        if entry < len(infos) and infos[entry].filename == member:
            return infos[entry]
    return archive.NameToInfo.get(member)


def close_zips() -> None:
    """Close all handles, so that Windows lets the zip files be moved or deleted."""
    with _lock:
        while _handles:
            _handles.popitem()[1].close()


def _after_fork() -> None:
    # A forked child shares the file position with its parent: it must open its own handles. The lock may
    # have been held by a thread that does not exist in the child.
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()
    _handles.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
