"""The autosave: every stroke is on disk before the next begins, so a crash loses at most the one under way.

A journal is a file beside the annotation that only ever grows: the annotation as it was opened, then each
step, undo, redo and status. Reading it back repeats them, so undo works after a crash too. What a crash cut
off at the end is noticed by its checksum and left out. It is removed when the annotation has been saved.

One that was begun anew has two beginnings: the annotation as it was opened, and as it was then.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Literal, get_args

from dermseg.data.labelme import Annotation, read_labelme, write_labelme
from dermseg.errors import DataError, DermsegError
from dermseg.labeling.editor.document import Document, Status
from dermseg.labeling.editor.tiles import Step

_MAGIC = b"dermseg journal 1\n"
_MAX_NAME = 251  # bytes: disks take 255, and ".new" may follow
_HEAD = struct.Struct("<cII")  # kind, length, CRC-32 of kind and content
ELSEWHERE = "make room or the folder writable, or name another one with -o"  # where nothing can be saved
_KINDS = {"base": b"B", "step": b"S", "undo": b"U", "redo": b"R", "status": b"T", "origin": b"O"}


def journal_path(annotation: Path) -> Path:
    """Where the journal of an annotation file lies: beside it, hidden; a hash where the name is too long."""
    name = f".{annotation.name}.journal"
    if len(os.fsencode(name)) > _MAX_NAME:
        name = f".{hashlib.sha256(os.fsencode(annotation.name)).hexdigest()[:32]}.journal"
    return annotation.with_name(name)


class Journal:
    """Writes what is done to a document. Nothing is written before the first change.

    A full disk or a read-only folder does not stop the work. The first record that can be written after one
    that could not begins the file anew: steps are differences, so later ones do not fit without the lost one.

    Parameters
    ----------
    path
        The file; one that is there is continued, if ``document`` came from it.
    document
        Its changes are written from now on.
    root
        A folder at or above the file's that was there. If that is gone, nothing is made.

    Attributes
    ----------
    problem
        Why the last change is not in the file, or the next one will not be; None where all is well.
    lost
        Whether the last change is not in the file.
    """

    def __init__(self, path: Path, document: Document, root: Path | None = None) -> None:
        self.path, self._root = path, root
        self.problem: DermsegError | None = None
        self._document = document
        self.lost = False
        self._base: tuple[Annotation, Status] | None = (document.annotation, document.status)
        self._opened: Annotation | bytes = document.annotation
        self._there = path.parent.is_dir()
        if path.exists():
            self._base, self._opened = None, read_base(path)
        document.on_record = self.write

    def make_folder(self) -> None:
        """Make the folder, unless it or its root was there before: it may lie on a disk that was unplugged.

        Raises
        ------
        OSError
            It cannot be made, or is gone.
        """
        if not self._there and (self._root is None or self._root.is_dir()):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._there = True
        self.path.parent.stat()

    def write(self, kind: str, content: Any) -> None:
        """Add a record, or say in ``problem`` why that cannot be."""
        try:
            self.make_folder()
            if self.lost:
                new = self.path.with_name(f"{self.path.name}.new")
                opened = _MAGIC + _record("base", _content("base", self._opened))
                now = _beginning(self._document.to_annotation(), self._document.status)
                _write(new, "wb", opened + now)
                new.replace(self.path)
            else:
                begin = b"" if self._base is None else _MAGIC + _beginning(*self._base)
                _write(self.path, "ab", begin + _record(kind, _content(kind, content)))
        except OSError as error:
            self.lost = True
            if self.problem is None:  # else it was known before: the first cause tells most
                reason = f"cannot be written: {error.strerror or error}"
                self.problem = DermsegError(reason, file=self.path, hint=ELSEWHERE)
        else:
            self.problem, self._base, self.lost = None, None, False

    def restart(self, document: Document) -> None:
        """The document has been saved: what is there is not needed any more."""
        self._opened = document.to_annotation()
        self.problem, self._base, self.lost = None, (self._opened, document.status), False
        try:
            self.path.unlink(missing_ok=True)
        except OSError:  # held by another program: the next record must not go behind what is there
            self.lost = True

    def drop(self) -> None:
        """What is there is not wanted."""
        _drop(self.path)


def _write(path: Path, mode: Literal["ab", "wb"], data: bytes) -> None:
    with path.open(mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _beginning(annotation: Annotation, status: Status) -> bytes:
    return _record("base", write_labelme(annotation)) + _record("status", status.encode())


def _content(kind: str, content: Any) -> bytes:
    if isinstance(content, Step):
        return content.pack()
    if isinstance(content, Annotation):
        return write_labelme(content)
    if isinstance(content, bytes):
        return content
    return str(content).encode() if kind == "status" else b""


def _record(kind: str, content: bytes) -> bytes:
    code = _KINDS[kind]
    return _HEAD.pack(code, len(content), zlib.crc32(code + content)) + content


def recover(path: Path) -> Document | None:
    """The document that a journal tells of; None where there is no usable one. The cut-off end is removed.

    Raises
    ------
    DataError
        The file is not a journal.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if not data:
        _drop(path)
        return None
    if not data.startswith(_MAGIC[: len(data)]):
        raise DataError(
            "not a journal of dermseg", file=path, hint="move it away to open the image without it"
        )
    at, document, beginnings = len(_MAGIC), None, 0
    while at + _HEAD.size <= len(data):
        code, length, checksum = _HEAD.unpack_from(data, at)
        content = data[at + _HEAD.size : at + _HEAD.size + length]
        if len(content) < length or zlib.crc32(code + content) != checksum:
            break
        document = _repeat(document, code, content, path)
        beginnings += code == _KINDS["base"]
        at += _HEAD.size + length
    if document is None:
        _drop(path)
        return None
    if at < len(data):
        with contextlib.suppress(OSError):  # a read-only folder: what is there can still be looked at
            os.truncate(path, at)
    document.mark_unsaved(begun_anew=beginnings > 1)
    return document


def read_base(path: Path) -> bytes:
    """The annotation that a journal begins with, as ``write_labelme`` writes it; empty if there is none."""
    with path.open("rb") as file:
        head = file.read(len(_MAGIC) + _HEAD.size)[len(_MAGIC) :]
        return file.read(_HEAD.unpack(head)[1]) if len(head) == _HEAD.size else b""


def _drop(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _repeat(document: Document | None, code: bytes, content: bytes, path: Path) -> Document:
    if code == _KINDS["base"]:
        return Document(read_labelme(content, path))
    if document is None:
        raise DataError("the journal has no beginning", file=path)
    if code in (_KINDS["step"], _KINDS["undo"], _KINDS["redo"]):
        try:
            step = Step.unpack(content)
            if code == _KINDS["step"]:
                document.repeat(step)
            else:
                document.repeat_turn("undo" if code == _KINDS["undo"] else "redo", step)
        except ValueError as error:
            raise DataError(f"the journal does not fit: {error}", file=path) from None
    elif code == _KINDS["origin"]:
        document.learn(read_labelme(content, path))
    elif code == _KINDS["status"]:
        document.set_status(next((s for s in get_args(Status) if s == content.decode()), document.status))
    return document
