"""The log on disk: appended to by any number of threads and processes, one write and one fsync per append.

Decisions
---------
- Append-only: the file is opened so that the system itself writes at the end only. A writer holds the file's
  lock, takes the last line from the file (another process may have written) and goes on from there.
- A chain does not show that its end was cut off. Beside the log lies its *head* (``NAME.head``): number and
  hash of the last line, rewritten after every append. A log that is shorter than its head was cut. The head
  lags after a crash at most, which does no harm. Whoever can rewrite both is found only by comparing with a
  head that was noted elsewhere: answers and logs of the API carry number and hash of their record.
- A process that is killed amid a write leaves a torn line that nobody was told of. It is cut off, and a
  ``repaired`` record says so. A *whole* last line that does not fit is no accident: the log is then refused.
- A file that is open can be removed or moved (``logrotate``), and records would go where nobody looks for
  them. So every append sees that both files are still the ones at their paths.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermseg.audit.record import START, AuditError, Entry, decode_line, encode_line, key_name
from dermseg.files import sync_folder
from dermseg.locks import locked

_TAIL = 1 << 16  # more than the longest line
_MOVED = "put it back; to begin a new log, end the program first and move LOG and LOG.head away together"
_VERIFY = "dermseg audit verify finds the place; keep the file as it is and start a new one elsewhere"


@dataclass(frozen=True, slots=True)
class Receipt:
    """Number and hash of a record. Noted elsewhere, it fixes everything up to this record."""

    seq: int
    hash: str


class AuditLog:
    """An audit log that can be appended to. Threads may share it, processes may open it side by side.

    Parameters
    ----------
    path
        The file; it is begun where there is none.
    key
        Makes the chain an HMAC chain; the same for the whole life of the log.

    Raises
    ------
    AuditError
        The end of the log does not fit its chain or its head, or it was begun with another key.
    """

    def __init__(self, path: Path, key: bytes | None = None) -> None:
        self.path = path
        self._key = key
        self._lock = threading.Lock()
        self._seq, self._hash, self._end = 0, START, -1  # the end of the chain, and the size of the file then
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._file = os.open(path, flags, 0o600)
            head_flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._head = os.open(head_path(path), head_flags, 0o600)
        except OSError as error:
            raise AuditError(f"cannot be opened: {error.strerror or error}", file=path) from None
        try:
            with self._lock, locked(self._file):
                self._check_first()
                self._catch_up()
        except OSError as error:
            self.close()
            raise AuditError(
                f"cannot be used: {error.strerror or error}",
                file=path,
                hint="a log needs a disk with file locks, such as a local one",
            ) from None
        except BaseException:
            self.close()
            raise

    def append(self, entries: Sequence[Entry]) -> list[Receipt]:
        """Add records, all or none (after a crash: a part from the front); returns when the disk has them.

        Raises
        ------
        AuditError
            The disk is full, the log was moved or removed, or what is in the file no longer fits.
        """
        with self._lock, locked(self._file):
            self._check_place()
            self._catch_up()
            return self._write(entries)

    def find(self, prefix: str, **fields: str) -> set[str]:
        """The subjects in the log that begin with `prefix`; reads the whole log.

        Parameters
        ----------
        fields
            Only of records that say just this, as in ``model_sha256=...``.

        Raises
        ------
        AuditError
            One of these records was changed, or the log was moved or removed.
        """
        self._check_place()
        mark = f'"subject":"{prefix}'.encode()
        found = set()
        with self.path.open("rb") as file:
            for line in file:
                if mark in line and line.endswith(b"\n"):
                    record = self._decode(line)
                    if all(record[name] == value for name, value in fields.items()):
                        found.add(str(record["subject"]))
        return found

    def get(self, seq: int) -> dict[str, Any] | None:
        """The record of that number, or None; reads the log up to it.

        Raises
        ------
        AuditError
            It was changed, or the log was moved or removed.
        """
        self._check_place()
        mark = f'{{"seq":{seq},'.encode()
        with self.path.open("rb") as file:
            for line in file:
                if line.startswith(mark) and line.endswith(b"\n"):
                    return self._decode(line)
        return None

    @property
    def last(self) -> Receipt:
        """The last record that this object wrote or saw."""
        return Receipt(self._seq, self._hash)

    def close(self) -> None:
        """Close the files; the log cannot be appended to any more."""
        for name in ("_file", "_head"):
            descriptor = getattr(self, name, -1)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, name, -1)

    def _decode(self, line: bytes) -> dict[str, Any]:
        try:
            return decode_line(line, self._key)
        except ValueError as error:
            raise AuditError(f"a record {error}", file=self.path, hint=_VERIFY) from None

    def _settle(self) -> None:
        """A new head and both names to the disk: a head that a power failure emptied would be no head."""
        os.fsync(self._head)
        sync_folder(self.path.parent)

    def in_place(self) -> bool:
        """Whether the log still lies where it was opened; where it does not, nothing can be added."""
        try:
            self._check_place()
        except AuditError:
            return False
        return True

    def _check_place(self) -> None:
        for path, descriptor in ((self.path, self._file), (head_path(self.path), self._head)):
            try:
                there = os.path.samestat(path.stat(), os.fstat(descriptor))
            except OSError:
                there = False
            if not there:
                raise AuditError("was moved, removed or replaced while it is in use", file=path, hint=_MOVED)

    def _write(self, entries: Sequence[Entry]) -> list[Receipt]:
        seq, digest = self._seq, self._hash
        lines, receipts = [], []
        for entry in entries:
            seq += 1
            line, digest = encode_line(entry, seq, digest, self._key)
            lines.append(line)
            receipts.append(Receipt(seq, digest))
        data = memoryview(b"".join(lines))
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
            self._write_head(seq, digest)
        except OSError as error:
            with suppress(OSError):  # nobody was told of what is there of them
                os.ftruncate(self._file, self._end)
            raise AuditError(f"cannot be written: {error.strerror or error}", file=self.path) from None
        self._seq, self._hash, self._end = seq, digest, os.fstat(self._file).st_size
        return receipts

    def _write_head(self, seq: int, digest: str) -> None:
        os.lseek(self._head, 0, os.SEEK_SET)
        os.write(self._head, f"{seq:020d} {digest}\n".encode())  # fixed length: it replaces the one before

    def _last_break(self, size: int) -> int:
        """Where the last whole line ends. A power failure can leave many zeros behind it."""
        end = size
        while end:
            start = max(0, end - _TAIL)
            found = self._read(start, end).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0

    def _read(self, start: int, end: int) -> bytes:
        os.lseek(self._file, start, os.SEEK_SET)
        data = b""
        while chunk := os.read(self._file, end - start - len(data)):
            data += chunk
        return data

    def _check_first(self) -> None:
        """The first line tells which key the log was begun with."""
        os.lseek(self._file, 0, os.SEEK_SET)
        first, newline, _ = os.read(self._file, _TAIL).partition(b"\n")
        if not newline:
            return
        try:
            record = decode_line(first + newline, self._key)
        except ValueError as error:
            hint = "give the key it was begun with" if "key" in str(error) else _VERIFY
            if "without a key" in str(error):
                hint = "to begin a new log, with the key, move LOG and LOG.head away together"
            raise AuditError(f"record 1 {error}", file=self.path, hint=hint) from None
        if record.get("subject") != key_name(self._key):
            raise AuditError(
                "was begun with another key", file=self.path, hint="give the key it was begun with"
            )

    def _catch_up(self) -> None:
        """Take the end of the chain from the file where it is not the one that is known; begin a new log."""
        size = os.fstat(self._file).st_size
        if size == self._end:
            return
        end = self._last_break(size)
        torn = size - end
        start = max(0, end - _TAIL)
        lines = self._read(start, end).splitlines(keepends=True)
        self._seq, self._hash = 0, START
        if lines:
            try:
                record = decode_line(lines[-1], self._key)
            except ValueError as error:
                raise AuditError(f"the last record {error}", file=self.path, hint=_VERIFY) from None
            self._seq, self._hash = record["seq"], record["hash"]
        problem = compare_head(read_head(self.path), Receipt(self._seq, self._hash))
        if problem is not None:
            raise AuditError(problem, file=self.path, hint=_VERIFY)
        self._end = end
        begins = self._seq == 0  # also where the very first record was torn
        entries = [Entry("opened", "dermseg", key_name(self._key))] if begins else []
        if torn:
            os.ftruncate(self._file, self._end)
            entries.append(Entry("repaired", "dermseg", f"bytes/{torn}"))
        if entries:
            self._write(entries)
        if begins:
            self._settle()


def head_path(path: Path) -> Path:
    """Where the head of a log lies."""
    return path.with_name(path.name + ".head")


def read_head(path: Path) -> Receipt | None:
    """The head of the log at `path`; None where there is none yet.

    Raises
    ------
    AuditError
        It is not a head.
    """
    try:
        text = head_path(path).read_text("ascii")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise AuditError(f"cannot be read: {error}", file=head_path(path)) from None
    if not text:
        return None
    seq, _, digest = text.rstrip("\n").partition(" ")
    if not seq.isdigit() or len(digest) != 64:
        raise AuditError("is not the head of an audit log", file=head_path(path), hint=_VERIFY)
    return Receipt(int(seq), digest)


def compare_head(head: Receipt | None, last: Receipt) -> str | None:
    """What does not fit between a head and the last record of its log; None where all does."""
    if head is None:  # it is written just after the first record
        return "the head of the log is missing" if last.seq > 1 else None
    if head.seq > last.seq:
        return f"{head.seq - last.seq} records are missing at the end"
    if head.seq == last.seq and head.hash != last.hash:
        return "the last record is not the one that was written"
    return None
