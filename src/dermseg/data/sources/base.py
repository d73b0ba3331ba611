"""What every data set layout shares: listing folders and zips, and telling images from masks by their names.

A layout is a value (two patterns and some facts), not a class to derive from: it says which paths are
images, which are masks, and what the image is called. Everything else is the same for all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dermseg.errors import DataError, ImageError
from dermseg.images.names import portable_name, typed_name
from dermseg.images.roles import MASK_FOLDERS
from dermseg.images.sources import DICOM_EXTENSIONS, IMAGE_EXTENSIONS, ImageSource
from dermseg.images.zips import open_zip

NNUNET_FOLDERS = frozenset(["imagestr", "imagests"])
# "_segmentation", "-mask", "_gt", and one number behind it where an image has several masks.
MASK_SUFFIX = re.compile(r"[ _-](?:segmentation|seg|mask|lesion|gt|groundtruth|label)(?:[ _-]?\d+)?$", re.I)
# Names given by the ISIC archive are unique over all of its data sets; other names are only local.
GLOBAL_ID = re.compile(r"ISIC_\d{7}")  # of an image
GLOBAL_NAME = re.compile(r"(?:IP|IL|HAM)_\d{7}")  # of a patient or lesion


@dataclass(frozen=True)
class Entry:
    """A file in a folder or zip.

    ``path`` is what layouts look at: ``<zip stem or folder name>/<path inside>``, POSIX. Official data
    sets name both the archive and the folder in it, so either is enough to be recognised.
    """

    path: PurePosixPath
    source: ImageSource


@dataclass(frozen=True)
class Layout:
    """How the files of a data set are named.

    Attributes
    ----------
    name
        Data set name in the index.
    image, mask
        Searched in ``Entry.path``; the group ``id`` is the image id, an optional group ``part`` is the
        official split.
    licence
        Licence of an image about which the metadata say nothing.
    citation
        Whom to cite.
    classes
        What the masks of an image show, in their order, where it is not the lesion.
    """

    name: str
    summary: str
    image: re.Pattern[str]
    mask: re.Pattern[str]
    licence: str
    citation: str
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """An image and its masks as a layout found them; nothing is opened yet.

    ``stored`` is what the files themselves say of it: ``dataset``, ``subject``, ``lesion``, ``licence``.
    """

    image_id: str
    image: Entry
    masks: tuple[Entry, ...] = ()
    part: str = ""  # "train", "val", "test" where the data set itself says so
    stored: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Found:
    """What pairing gave: candidates, and files left out with the reason."""

    candidates: list[Candidate] = field(default_factory=list)
    rejected: list[tuple[str, Entry, str]] = field(default_factory=list)  # image id, file, reason


def list_entries(inputs: Sequence[str | Path]) -> list[Entry]:
    """All files of folders (recursive), zips (also zips lying directly in a folder) and single files.

    Raises
    ------
    DataError
        An input does not exist or a zip cannot be opened.
    """
    entries: list[Entry] = []
    for item in inputs:
        path = Path(item)
        if path.is_dir():
            entries.extend(_list_folder(path))
        elif path.suffix.lower() == ".zip" and path.is_file():
            entries.extend(_list_zip(path))
        elif path.is_file():
            virtual = PurePosixPath(path.absolute().parent.name, typed_name(path.name))
            entries.append(Entry(virtual, ImageSource(name=path.name, path=path)))
        else:
            raise DataError("no such file or folder", file=path)
    return entries


def unseen_folders(inputs: Sequence[str | Path]) -> Iterator[tuple[Path, str]]:
    """Folders below the inputs, or among them, of which nothing is an entry, each with the reason."""
    for item in inputs:
        closed: list[str] = []
        for place, folders, _ in os.walk(item, onerror=lambda error: closed.append(error.filename)):  # noqa: B023
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
            for path in (Path(place, name) for name in folders):
                if path.is_symlink():
                    yield path, "is a linked folder, which is not looked into unless it is named itself"
            closed.append(place)
        for place in closed:
            if Path(item).is_dir() and not os.access(place, os.R_OK | os.X_OK):
                yield Path(place), "is a folder that cannot be looked into"


def _list_folder(folder: Path) -> Iterator[Entry]:
    name = folder.absolute().name
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if any(part.startswith((".", "__MACOSX")) for part in relative.parts):
            continue
        if not os.path.isfile(path):  # noqa: PTH113 - Path's raises in a folder that may not be entered
            continue
        if path.suffix.lower() == ".zip":
            if len(relative.parts) == 1:
                yield from _list_zip(path)
            continue
        inside = relative.as_posix()
        yield Entry(PurePosixPath(name, typed_name(inside)), ImageSource(name=inside, path=path))


def _list_zip(path: Path) -> Iterator[Entry]:
    try:
        members = [info.filename for info in open_zip(path).infolist() if not info.is_dir()]
    except ImageError as error:
        raise DataError(error.message, file=path, hint=error.hint) from None
    for member in sorted(members):
        # Only a name to look at and to show: the member itself is read in place, never unpacked.
        inside = portable_name(member)
        if any(part.startswith((".", "__MACOSX")) for part in inside.split("/")):
            continue
        yield Entry(PurePosixPath(path.stem, inside), ImageSource(inside, path, member))


def is_image_name(path: PurePosixPath) -> bool:
    """Whether the extension is that of an ordinary image (DICOM: ``sources.dicom``)."""
    return path.suffix.lower() in IMAGE_EXTENSIONS


def is_dicom_name(path: PurePosixPath) -> bool:
    """Whether the extension is that of a DICOM file."""
    return path.suffix.lower() in DICOM_EXTENSIONS


def is_mask_path(path: PurePosixPath) -> bool:
    """Whether a path says that the file is a mask."""
    return lies_in(path, MASK_FOLDERS) or MASK_SUFFIX.search(path.stem) is not None


def lies_in(path: PurePosixPath, folders: frozenset[str]) -> bool:
    """Whether one of the folders of a path is called so, in any case."""
    return not folders.isdisjoint(part.lower() for part in path.parts[:-1])
