"""The memory of a batch: an append-only file that says which images are done.

Decisions
---------
- One JSON line per finished image, appended after its files are in place. Whatever is killed, the
  journal never claims more than the disk holds; a torn last line is dropped when it is read.
- The first line is the header: options that shape the result, model hash, inputs. ``--resume`` goes on
  only where all of it agrees, because a table of two models' results would look like one.
- The line carries the report's thumbnail too (a few kB), so that table and report of 10,000 images are
  made from this one file, read line by line, without opening an output again.
- When the batch is complete, the lines are put into input order, so that an interrupted and an
  undisturbed run end with the same bytes (timings apart).
- The file is locked while a batch writes it: two runs into one folder would undo each other. Its worker
  processes hold the lock too, and need a moment to notice when the run was killed.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dermseg.errors import DermsegError, UsageError
from dermseg.files import atomic_write, put_in_place
from dermseg.images.roles import JOURNAL
from dermseg.inference.header import Header
from dermseg.inference.outputs import Row
from dermseg.locks import lock_file

_LOCK_WAIT_S = 1.0
_BASE64 = re.compile(r"[A-Za-z0-9+/=]*")
RESUME_HINT = "make room or change its permissions, then run the same command with --resume"


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished image: its row, its files (relative to OUT), seconds per stage, thumbnail."""

    row: Row
    files: tuple[str, ...]
    stages: dict[str, float]
    thumbnail: str = ""  # base64 of a JPEG, empty where there is no image to show

    def to_line(self) -> bytes:
        """The line of the journal, with its line break."""
        data = {
            "row": {key: value for key, value in self.row.as_dict().items() if value is not None},
            "files": list(self.files),
            "stages": {key: round(value, 5) for key, value in self.stages.items()},
            "thumbnail": self.thumbnail,
        }
        return json.dumps(data, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Entry:
        """The reverse of `to_line`; ValueError, KeyError or TypeError where the line is not one."""
        data = json.loads(line)
        row, thumbnail = Row(**data["row"]), str(data["thumbnail"])
        named = (row.mask, row.overlay, row.probability, row.labels)  # become links of the report
        if not {*named} <= {None, *data["files"]} or not _BASE64.fullmatch(thumbnail):
            raise ValueError("not a line of a run")
        stages = {str(stage): float(seconds) for stage, seconds in dict(data["stages"]).items()}
        return cls(row, tuple(data["files"]), stages, thumbnail)


class Journal:
    """The journal of one output folder: read once, then appended to under a lock.

    Use `create` or `open`; `entries` streams what is recorded, the last line of a name counts.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.header = header
        self._file: BinaryIO | None = None
        self._places: dict[str, tuple[int, int]] = {}  # name -> (offset, length) of its last line
        self._end = 0  # of what can be read

    @classmethod
    def create(cls, path: Path, header: Header) -> Journal:
        """Start a new journal at `path`; the header is there whole or not at all.

        Raises
        ------
        DermsegError
            It cannot be written, or another run has just begun one there.
        """
        atomic_write(path, header.to_line(), new=True)
        journal = cls(path, header)
        journal._lock()
        return journal

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Read the journal at `path` and lock it. Before anything is added, see `cut_tail`.

        Raises
        ------
        UsageError
            The file is not a journal, or another run is writing it.
        """
        journal = cls(path, read_header(path))
        journal._lock()
        assert journal._file is not None
        journal._end = journal._scan(journal._file)
        return journal

    def cut_tail(self) -> None:
        """Cut off what cannot be read at the end: a torn line.

        Not before it is known that the run may go on: of a later version every line may be unreadable here.
        """
        assert self._file is not None, "the journal is closed"
        with self._writing():
            self._file.truncate(self._end)

    def _scan(self, file: BinaryIO) -> int:
        file.seek(0)
        end = len(file.readline())
        for line in file:
            try:
                if not line.endswith(b"\n"):
                    break
                name = Entry.from_line(line).row.file
            except (ValueError, KeyError, TypeError, RecursionError):
                break
            self._places[name] = (end, len(line))
            end += len(line)
        return end

    def _lock(self) -> None:
        self._file = self.path.open("r+b")
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                lock_file(self._file)
                if self._is_current():
                    return
                # whoever held the lock has put a new file in place meanwhile (`sort`)
                self._file.close()
                self._file = self.path.open("r+b")
            except OSError:
                if time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                self._file.close()
                raise UsageError(
                    "another dermseg is writing into this folder",
                    file=self.path.parent,
                    hint="wait for it to end, or choose another folder with -o",
                ) from None

    def _is_current(self) -> bool:
        """Whether the open file is the one that the path names."""
        assert self._file is not None
        return os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())

    def fileno(self) -> int:
        """The descriptor that holds the lock."""
        assert self._file is not None, "the journal is closed"
        return self._file.fileno()

    def append(self, entry: Entry) -> None:
        """Record a finished image; returns when the operating system has the line.

        Raises
        ------
        DermsegError
            The disk is full or cannot be written to.
        """
        assert self._file is not None, "the journal is closed"
        line = entry.to_line()
        with self._writing():
            offset = self._file.seek(0, os.SEEK_END)
            self._file.write(line)
            self._file.flush()
        self._places[entry.row.file] = (offset, len(line))

    def entries(self, order: Sequence[str]) -> Iterator[Entry]:
        """The recorded entries in the given order, read one at a time (flat memory)."""
        with self.path.open("rb") as file:
            for name in order:
                if name in self._places:
                    offset, length = self._places[name]
                    file.seek(offset)
                    yield Entry.from_line(file.read(length))

    def sort(self, order: Sequence[str]) -> None:
        """Rewrite the journal with its header and one line per input in the given order; go on with that.

        Raises
        ------
        DermsegError
            The disk is full or cannot be written to; the journal is as it was.
        """
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        places: dict[str, tuple[int, int]] = {}
        with self._writing(), self.path.open("rb") as old, temporary.open("wb") as new:
            new.write(self.header.to_line())
            for name in order:
                if name in self._places:
                    offset, length = self._places[name]
                    old.seek(offset)
                    places[name] = (new.tell(), length)
                    new.write(old.read(length))
        self._places = places
        if os.name == "nt":  # where a file that is open cannot be replaced
            self.close()
            with self._writing():
                put_in_place(temporary, self.path)
            self._lock()
            return
        file = temporary.open("r+b")
        lock_file(file)  # before it takes its place: nobody else gets it in between
        temporary.replace(self.path)
        self.close()
        self._file = file

    def close(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            with suppress(OSError):  # a full disk refuses again what `append` has reported
                self._file.close()
            self._file = None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DermsegError(
                f"cannot be written: {error.strerror or error}", file=self.path, hint=RESUME_HINT
            ) from error


def read_header(path: Path) -> Header:
    """The header of the journal at `path`.

    Raises
    ------
    UsageError
        The file cannot be read or is not a journal of this format.
    """
    try:
        with path.open("rb") as file:
            return Header.from_line(file.readline())
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise UsageError(
            f"the journal of the earlier run cannot be read: {error}",
            file=path,
            hint="choose another folder with -o, or remove this one",
        ) from None


def read_entries(out: Path, order: Sequence[str] | None = None) -> Iterator[Entry]:
    """The entries of the complete run in the folder `out`, one at a time, in input order or in `order`."""
    path = out / JOURNAL
    journal = Journal(path, read_header(path))
    with path.open("rb") as file:
        journal._scan(file)
    return journal.entries(order or list(journal._places))
