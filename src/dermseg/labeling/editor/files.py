"""The list of images, the annotation file of each, and opening and saving them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from numpy.typing import NDArray

from dermseg.data.coco import write_coco
from dermseg.data.labelme import Annotation, draw_labels, read_labelme, write_labelme
from dermseg.errors import DataError, DermsegError, UsageError
from dermseg.files import as_on_disk, atomic_write
from dermseg.images.find import find_images
from dermseg.images.load import ImageInfo, load_image
from dermseg.images.masks import save_mask
from dermseg.images.roles import tell_apart
from dermseg.images.sources import ImageSource
from dermseg.labeling.editor.document import Document, Status, status_of
from dermseg.labeling.editor.journal import ELSEWHERE, Journal, journal_path, read_base, recover


@dataclass(frozen=True)
class Entry:
    """One image of the list: where it is, and where its annotation is or will be."""

    source: ImageSource
    annotation: Path

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


def list_images(inputs: Sequence[str | Path], folder: Path | None = None) -> list[Entry]:
    """Images with their annotation files: beside them, or below a folder (a second reader's, or for zips).

    Raises
    ------
    UsageError
        No image is found, or the folder is a file or below one.
    DataError
        An image in a zip, and no folder to write to.
    """
    if folder is not None and (part := _nearest(folder)).is_file():
        raise UsageError(
            f"annotations cannot be written below '{folder}': '{part}' is a file",
            hint="name a folder with -o",
        )
    sources = tell_apart(find_images(inputs, exclude=[] if folder is None else [folder])).photographs
    return [Entry(source, annotation_path(source, folder)) for source in sources]


def annotation_path(source: ImageSource, folder: Path | None) -> Path:
    """Where the annotation of an image is; the same rule as ``label propose``."""
    if folder is not None:
        return folder / PurePosixPath(source.name).with_suffix(".json")
    if source.member is not None:
        raise DataError(
            "an image in a zip has no folder to write to", file=source.path, hint="name one with -o"
        )
    return source.path.with_suffix(".json")


def read_annotation(entry: Entry, folder: Path | None = None) -> Annotation | None:
    """The image's annotation, or that of another reader below ``folder``; None where there is no file."""
    path = entry.annotation if folder is None else as_on_disk(annotation_path(entry.source, folder))
    try:
        return read_labelme(path.read_bytes(), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=path) from error


def file_status(entry: Entry) -> Status | None:
    """How far the work on an image is, from its file; None where the file cannot be read."""
    try:
        annotation = read_annotation(entry)
    except DermsegError:
        return None
    return status_of(None if annotation is None or _other_image(annotation, entry) else annotation)


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
        if read is not None and not _is_one_of(read, base, write_labelme(document.to_annotation())):
            read = base
    else:
        annotation = read_annotation(entry)
        if annotation is None:
            document = Document(Annotation(_relative(entry), width, height), "new")
        else:
            document = Document(annotation)
    if document.size != (height, width):
        found = f"{document.size[1]}x{document.size[0]}"
        raise DataError(f"is for an image of {found} pixels, not {width}x{height}", file=entry.annotation)
    if (other := _other_image(document.annotation, entry)) is not None:
        raise DataError(
            f"belongs to '{other}', not to this image",
            file=entry.annotation,
            hint="rename one of the two images, or put it into another folder",
        )
    journal = Journal(path, document)
    journal.problem = _why_unwritable(entry.annotation.parent)
    return Opened(entry, loaded.pixels, loaded.info, document, journal, recovered, read)


def save(opened: Opened, *, over: bool = False) -> None:
    """Write the annotation, whole or not at all, and let the journal go.

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
    if not over and _content(file) not in (opened.read, None):
        raise ChangedError(
            "was changed by another program since it was opened",
            file=file,
            hint="undo your changes and open the image again to see it",
        )
    data = write_labelme(opened.document.to_annotation())
    try:
        opened.journal.make_folder()
        atomic_write(file, data)
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


def export_coco(entries: Sequence[Entry], path: Path) -> int:
    """Write every saved annotation as one COCO file; gives the number of images in it.

    Raises
    ------
    DataError
        An annotation cannot be read, or there is none.
    """
    found = [(entry, annotation) for entry in entries if (annotation := read_annotation(entry)) is not None]
    if not found:
        raise DataError("no image has a saved annotation yet", hint="save one first")
    labels = sorted({label for _, annotation in found for label in annotation.labels})
    rows = [
        (entry.name, a.width, a.height, [draw_labels(a, [label]) for label in labels]) for entry, a in found
    ]
    atomic_write(path, write_coco(rows, labels))
    return len(rows)


def _other_image(annotation: Annotation, entry: Entry) -> str | None:
    """The name of the image that an annotation belongs to, if not to `entry`: a.jpg and a.png share a.json.

    An image that is not there any more was renamed or converted: its annotation goes with the new one.
    """
    name, own = PureWindowsPath(annotation.image).name, PurePosixPath(entry.name).name
    if name == own or PurePosixPath(name).stem != PurePosixPath(own).stem:
        return None
    if entry.source.member is None and not (entry.annotation.parent / annotation.image).is_file():
        return None
    return name


def _is_one_of(content: bytes, *known: bytes) -> bool:
    """Whether an annotation file's content is one of those that ``write_labelme`` wrote, or says the same."""
    try:
        return content in known or write_labelme(read_labelme(content)) in known
    except DataError:
        return False


def _content(file: Path) -> bytes | None:
    """What is in a file; None where it cannot be read."""
    try:
        return file.read_bytes()
    except OSError:
        return None


def _why_unwritable(folder: Path) -> DermsegError | None:
    """Tried, since permissions do not tell of read-only disks or shares; the folder may have to be made."""
    probe = _nearest(folder) / f".dermseg-{secrets.token_hex(6)}.tmp"
    try:
        probe.open("xb").close()
        probe.unlink()
    except OSError as error:
        reason = f"nothing can be saved here: {error.strerror or error}"
        return DermsegError(reason, file=folder, hint=ELSEWHERE)
    return None


def _nearest(folder: Path) -> Path:
    """The folder, or what is nearest above it of what is there."""
    return next((part for part in (folder, *folder.parents) if os.path.lexists(part)), folder)


def _relative(entry: Entry) -> str:
    """The image's path as the annotation names it: relative to the annotation's folder."""
    if entry.source.member is not None:
        return entry.source.name
    try:
        return Path(os.path.relpath(entry.source.path, entry.annotation.parent)).as_posix()
    except ValueError:  # another drive
        return entry.source.path.as_posix()
