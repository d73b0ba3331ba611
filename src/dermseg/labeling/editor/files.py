"""The list of images, the annotation file of each, and opening and saving them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dermseg.data.coco import write_coco
from dermseg.data.labelme import Annotation, draw_labels, read_labelme, write_labelme
from dermseg.data.proposals import is_proposal
from dermseg.errors import DataError, DermsegError, UsageError
from dermseg.files import as_on_disk, atomic_write
from dermseg.images.load import ImageInfo, load_image
from dermseg.images.masks import save_mask
from dermseg.images.roles import find_photographs
from dermseg.images.sources import ImageSource
from dermseg.labeling.editor.document import Document, Status, status_of
from dermseg.labeling.editor.journal import ELSEWHERE, Journal, journal_path, read_base, recover
from dermseg.labeling.editor.shapes import labels_of
from dermseg.labeling.editor.writable import nearest, why_unwritable
from dermseg.labeling.owner import adopt, annotation_path, name_image, other_image, read_own

_APART = "rename one of the two images, put it into another folder, or name another one with -o"


@dataclass(frozen=True)
class Entry:
    """One image of the list: where it is, and where its annotation is or will be.

    Attributes
    ----------
    root
        The folder of the annotations, which was there when the list was made: where it is gone later, its
        disk was unplugged, and another folder in its place would take what belongs on that disk.
    """

    source: ImageSource
    annotation: Path
    root: Path | None = None

    @property
    def name(self) -> str:
        """What the list shows."""
        return self.source.name

    @property
    def unsaved(self) -> bool:
        """Whether there is work that a crash kept from the file."""
        return journal_path(self.annotation).exists()


class ChangedError(DermsegError):
    """The annotation is not the one that was opened."""


@dataclass
class Opened:
    """An image that is being worked on.

    Attributes
    ----------
    recovered
        Whether a journal brought work back.
    read
        The annotation file's content as it was opened or saved last; None where there was none. Where another
        program wrote it after a crash, what it was before.
    """

    entry: Entry
    pixels: NDArray[np.uint8]
    info: ImageInfo
    document: Document
    journal: Journal
    recovered: bool
    read: bytes | None = None


def list_images(
    inputs: Sequence[str | Path], folder: Path | None = None, remarks: list[str] | None = None
) -> list[Entry]:
    """Images with their annotation files: beside them, or below a folder (a second reader's, or for zips).

    The folder is made where there is none.

    Parameters
    ----------
    remarks
        Takes what was left out, in words.

    Raises
    ------
    UsageError
        No photograph is found, or the folder is a file or below one.
    DataError
        An image in a zip, and no folder to write to.
    """
    if folder is not None and (part := nearest(folder)).is_file():
        raise UsageError(
            f"annotations cannot be written below '{folder}': '{part}' is a file",
            hint="name a folder with -o",
        )
    sources, left_out = find_photographs(inputs, exclude=[] if folder is None else [folder])
    if remarks is not None:
        remarks += left_out
    if folder is not None:
        with contextlib.suppress(OSError):  # said when an image is opened: it can still be looked at
            folder.mkdir(parents=True, exist_ok=True)
    found = []
    for source in sources:
        annotation = annotation_path(source, folder)
        root = annotation.parent if folder is None else folder
        found.append(Entry(source, annotation, root if root.is_dir() else None))
    return found


def read_annotation(entry: Entry) -> Annotation | None:
    """What the image's annotation file holds, be it of another image; None where there is no file."""
    path = entry.annotation
    try:
        return read_own(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=path) from error


def read_second(entry: Entry, folder: Path) -> Annotation | None:
    """What another reader drew on the image, below ``folder``; None where that is nothing.

    A model's proposal that they have not worked on is none of theirs.

    Raises
    ------
    DataError
        The file cannot be read, or belongs to another image.
    """
    theirs = Entry(entry.source, as_on_disk(annotation_path(entry.source, folder)))
    annotation = read_annotation(theirs)
    if annotation is None or is_proposal(annotation):
        return None
    _check_own(annotation, theirs)
    return annotation


def look(entry: Entry) -> tuple[Status | None, list[str]]:
    """How far the work on an image is (None where the file cannot be read), and the classes of its file."""
    try:
        annotation = read_annotation(entry)
    except DermsegError:
        return None, []
    if annotation is not None and other_image(annotation, *_place(entry), quick=True):
        annotation = None
    return status_of(annotation), [] if annotation is None else labels_of(annotation)


def open_image(entry: Entry) -> Opened:
    """Load an image with its annotation, and with what a crash kept from the file.

    Where nothing can be saved, the journal's ``problem`` says so.

    Raises
    ------
    ImageError
        The image cannot be read.
    DataError
        Annotation or journal cannot be read, or are of another image or one of another size.
    """
    loaded = load_image(entry.source)
    height, width = loaded.pixels.shape[:2]
    path = journal_path(entry.annotation)
    read = _content(entry.annotation)
    document = recover(path)
    recovered = document is not None
    if document is not None:
        base = read_base(path)
        known = (base, write_labelme(document.to_annotation()))
        if read is not None and not _is_one_of(entry, read, known):
            read = base
    else:
        annotation = read_annotation(entry)
        if annotation is None:
            document = Document(name_image(Annotation("", width, height), *_place(entry)), "new")
        else:
            _check_own(annotation, entry)
            document = Document(adopt(annotation, *_place(entry)))
    _check_own(document.annotation, entry)
    if document.size != (height, width):
        found = f"{document.size[1]}x{document.size[0]}"
        raise DataError(
            f"is for an image of {found} pixels, not {width}x{height}",
            file=path if recovered else entry.annotation,
            hint="turn or scale the image back, or move the file away to begin anew",
        )
    journal = Journal(path, document, entry.root)
    journal.problem = why_unwritable(entry.annotation.parent, entry.root)
    return Opened(entry, loaded.pixels, loaded.info, document, journal, recovered, read)


def save(opened: Opened, *, over: bool = False) -> None:
    """Write the annotation, whole or not at all, and let the journal go.

    Of an image that is new again, everything taken back, there is nothing to write: a file without shapes
    would say that a person found no lesion. What was saved of it since it was opened is removed.

    Parameters
    ----------
    over
        Write over what another program has made of the file since it was opened.

    Raises
    ------
    ChangedError
        The file is not what was opened.
    DermsegError
        The file cannot be written, or its folder is gone.
    """
    file = opened.entry.annotation
    opened.document.settle()
    if not over and _content(file) not in (opened.read, None):
        raise ChangedError(
            "was changed by another program since it was opened",
            file=file,
            hint="undo your changes and open the image again to see it",
        )
    data = None if opened.document.status == "new" else write_labelme(opened.document.to_annotation())
    try:
        if data is not None:
            opened.journal.make_folder()
            atomic_write(file, data)
        elif opened.read is not None:
            file.unlink(missing_ok=True)
    except OSError as error:
        reason = f"cannot be written: {error.strerror or error}"
        raise DermsegError(reason, file=file, hint=ELSEWHERE) from error
    except DermsegError as error:
        raise DermsegError(error.message, file=error.file, hint=ELSEWHERE) from error
    opened.read = data
    opened.document.mark_saved()
    opened.journal.restart(opened.document)


def export_mask(document: Document, label: str, path: Path) -> None:
    """Write a class as PNG mask: 0 and 255, the image's size."""
    save_mask(document.layer(label), path)


class Exported(NamedTuple):
    """How many images an export has, and of how many it leaves out what a file holds."""

    written: int
    left_out: int


def export_coco(entries: Sequence[Entry], path: Path) -> Exported:
    """Write what people corrected or approved as one COCO file.

    As in every import, proposals that nobody has worked on are left out, and annotations of another image.

    Raises
    ------
    DataError
        An annotation cannot be read, or there is none.
    """
    saved = [(entry, annotation) for entry in entries if (annotation := read_annotation(entry)) is not None]
    found = [
        (entry, annotation)
        for entry, annotation in saved
        if not is_proposal(annotation) and not other_image(annotation, *_place(entry))
    ]
    if not found:
        raise DataError("no image has an outline that a person corrected or approved", hint="save one first")
    labels = sorted({label for _, annotation in found for label in annotation.labels})
    rows = (
        (entry.name, a.width, a.height, [draw_labels(a, [label]) for label in labels]) for entry, a in found
    )
    atomic_write(path, write_coco(rows, labels))
    return Exported(len(found), len(saved) - len(found))


def _place(entry: Entry) -> tuple[ImageSource, Path]:
    return entry.source, entry.annotation.parent


def _check_own(annotation: Annotation, entry: Entry) -> None:
    if other := other_image(annotation, *_place(entry)):
        raise DataError(f"belongs to '{other}', not to this image", file=entry.annotation, hint=_APART)


def _is_one_of(entry: Entry, content: bytes, known: Sequence[bytes]) -> bool:
    """Whether an annotation file's content is one of those that ``write_labelme`` wrote, or says the same."""
    if content in known:
        return True
    try:
        read = read_labelme(content)
    except DataError:
        return False
    return any(write_labelme(a) in known for a in (read, adopt(read, *_place(entry))))


def _content(file: Path) -> bytes | None:
    """What is in a file; None where it cannot be read."""
    try:
        return file.read_bytes()
    except OSError:
        return None
