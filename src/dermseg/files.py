"""Files that are there whole or not at all, and text in whatever form people save it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dermseg.errors import DermsegError, UsageError

_TRIES, _PAUSE_S = 40, 0.05


def check_writable(folder: Path) -> None:
    """See, before any work that would be lost, that an output folder can be made or written to.

    Raises
    ------
    UsageError
        It is a file, lies below one, or may not be written to.
    """
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    hint = "choose another one with -o"
    if not there.is_dir():
        what = "the output is" if there == folder else "is"
        raise UsageError(f"{what} a file, not a folder", file=there, hint=hint)
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError("cannot be written: Permission denied", file=folder, hint=hint)


def check_table(path: Path) -> None:
    """The same of an output that is one file: see `check_writable`.

    Raises
    ------
    UsageError
        It is a folder, or its folder cannot be made or written to.
    """
    if path.is_dir():
        raise UsageError(
            "is a folder, and the output is a file", file=path, hint="name the file: -o table.csv"
        )
    check_writable(path.parent)


def private_folder(folder: Path) -> None:
    """Make a folder that holds patients: its owner alone may look into it.

    Of the folders above only those that are missing are made. One that is there may be shared, or another's
    (a volume of a container), and keeps its mode.

    Raises
    ------
    OSError
        It cannot be made, or is another user's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.name != "nt":
        folder.chmod(0o700)


def private_file(path: Path) -> None:
    """Make an empty file that its owner alone may read, unless it is there."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def atomic_write(path: Path, data: bytes, *, new: bool = False) -> None:
    """Write a file so that it is there whole or not at all; see `atomic_open`."""
    with atomic_open(path, new=new) as file:
        file.write(data)


def write_json(path: Path, data: Any) -> None:
    """Write one JSON object as `atomic_write` does; see `json_text`."""
    atomic_write(path, json_text(data))


def json_text(data: Any) -> bytes:
    """One JSON object as the content of a file: indented, a final newline; unknown is null, never NaN."""
    return (json.dumps(data, indent=2, allow_nan=False) + "\n").encode()


@contextlib.contextmanager
def atomic_open(path: Path, *, new: bool = False) -> Iterator[BinaryIO]:
    """A file to write that gets its name once it is whole, and else is not there; folders are made.

    The temporary name begins with a dot, in the same folder, since a rename is atomic only within a file
    system.

    Parameters
    ----------
    new
        Never replace a file, also not one that another process makes at this moment.

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
            yield file
        if new:
            _place_new(temporary, path)
        else:
            put_in_place(temporary, path)
    except OSError as error:
        raise DermsegError(f"cannot be written: {error.strerror or error}", file=path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename a finished file to its name, and replace what has it.

    Windows refuses while a virus scanner or another program has one of the two open: tried again for a while.
    """
    for left in reversed(range(_TRIES)):
        try:
            temporary.replace(path)
            return
        except PermissionError:
            if os.name != "nt" or not left:
                raise
            time.sleep(_PAUSE_S)


def _place_new(temporary: Path, path: Path) -> None:
    """Give a file its name unless there is one of that name, in one step."""
    if os.name == "nt":  # where a rename never replaces a file
        temporary.rename(path)
        return
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:  # file systems without hard links, such as exFAT and some network shares
        temporary.replace(path)


def sync_folder(folder: Path) -> None:
    """Return when the disk has the names in a folder: a file that was synced may else lose its name."""
    if os.name == "nt":  # where a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Tries:
    """Counts, in a file, how often the same work was begun and the process ended amid it.

    Work that ends its process (an image that takes all memory, a decoder that crashes) would else be begun
    anew at every start, for ever, and nothing behind it be done. Where the disk refuses, nothing is counted.

    Parameters
    ----------
    path
        Of the file, which is there while the work lasts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, work: str) -> int:
        """Note that it begins; how often it was begun before and had no end."""
        before = 0
        with contextlib.suppress(OSError, ValueError):
            count, _, last = self._path.read_text("utf-8").partition(" ")
            before = int(count) if last == work else 0
        with contextlib.suppress(OSError):
            self._path.write_text(f"{before + 1} {work}", "utf-8")
        return before

    def end(self) -> None:
        """It came to an end, whatever that was."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def decode_text(data: bytes) -> str:
    """Text as people's programs save it: in UTF-16 where it begins as such, else in UTF-8.

    Raises
    ------
    UnicodeDecodeError
        It is in another encoding.
    """
    return data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")


def delimiter_of(table: str) -> str:
    """What stands between the columns of a CSV table, by its first line."""
    header = table.partition("\n")[0]
    return next((mark for mark in "\t;" if mark in header), ",")


def as_on_disk(path: Path) -> Path:
    """The path as its file is called: from a Mac it may hold as two signs what was typed as one ("ü")."""
    if os.path.lexists(path) or path.parent == path:
        return path
    parent = as_on_disk(path.parent)  # each folder has its own form
    forms = (parent / unicodedata.normalize(form, path.name) for form in ("NFD", "NFC"))
    return next((form for form in forms if os.path.lexists(form)), path)
