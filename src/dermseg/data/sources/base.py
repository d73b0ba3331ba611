"""What every data set layout shares: listing folders and zips, and pairing images with masks.

A layout is a value (two patterns and some facts), not a class to derive from: it says which paths are
images, which are masks, and what the image is called. Everything else is the same for all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dermseg.errors import DataError, ImageError
from dermseg.images.names import portable_name, typed_name
from dermseg.images.sources import DICOM_EXTENSIONS, IMAGE_EXTENSIONS, ImageSource
from dermseg.images.zips import open_zip

MASK_FOLDERS = frozenset(
    ["mask", "masks", "label", "labels", "labelstr", "gt", "groundtruth", "ground_truth", "segmentations"]
)
IMAGE_FOLDERS = frozenset(["image", "images", "imagestr", "img", "imgs", "input", "inputs", "photos"])
# "_segmentation", "-mask", "_gt", and one number behind it where an image has several masks.
MASK_SUFFIX = re.compile(r"[ _-](?:segmentation|seg|mask|lesion|gt|groundtruth|label)(?:[ _-]?\d+)?$", re.I)
# Names given by the ISIC archive are unique over all of its data sets; other names are only local.
GLOBAL_ID = re.compile(r"ISIC_\d{7}")


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


_PARTS = {"training": "train", "validation": "val", "test": "test", "test_v2": "test"}


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


def _list_folder(folder: Path) -> Iterator[Entry]:
    name = folder.absolute().name
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if any(part.startswith((".", "__MACOSX")) for part in relative.parts) or not path.is_file():
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


def pair_by_layout(layout: Layout, entries: Iterable[Entry], masks: Iterable[Entry] | None = None) -> Found:
    """Pair the images and masks of an official layout by image id.

    With ``masks`` the roles are given (``entries`` are images), and folders that were renamed are
    understood too: the id is then the file name, less the mask suffix.
    """
    entries = list(entries)
    mask_entries = entries if masks is None else list(masks)
    images = list(_match(layout.image, entries))
    references = list(_match(layout.mask, mask_entries))
    if masks is not None:
        images = images or [(e.path.stem, "", e) for e in entries if is_image_name(e.path)]
        references = references or [
            (MASK_SUFFIX.sub("", e.path.stem), "", e) for e in mask_entries if is_image_name(e.path)
        ]
    found = Found()
    of_image: dict[str, list[Entry]] = {}
    for image_id, _, entry in references:
        of_image.setdefault(image_id, []).append(entry)
    known: dict[str, Entry] = {}
    for image_id, part, entry in images:
        if image_id in known:
            found.rejected.append((image_id, entry, "the same image id was found before"))
            continue
        known[image_id] = entry
        found.candidates.append(Candidate(image_id, entry, tuple(of_image.get(image_id, ())), part))
    for image_id, _, entry in references:
        if image_id not in known:
            found.rejected.append((image_id, entry, "mask without an image"))
    return found


def _match(pattern: re.Pattern[str], entries: Iterable[Entry]) -> Iterator[tuple[str, str, Entry]]:
    for entry in entries:
        hit = pattern.search(entry.path.as_posix())
        if hit:
            groups = hit.groupdict()
            yield hit["id"], _PARTS.get((groups.get("part") or "").lower(), ""), entry


def pair_by_folder(entries: Iterable[Entry], masks: Iterable[Entry] | None = None) -> Found:
    """Pair the images and masks of any folder or zip.

    A file is a mask when it lies in a folder called ``masks`` (or the like) or its name ends in
    ``_segmentation``, ``_mask`` ...; every other image file is an image. They belong together when
    their paths agree but for those words, else when the bare names agree and are unique.
    """
    pictures = [entry for entry in entries if is_image_name(entry.path) or is_dicom_name(entry.path)]
    if masks is None:
        # names decide where folders do not: "anna_lesion_2.jpg" may well be a photograph
        told = all(any(_lies_in(e.path, words) for e in pictures) for words in (MASK_FOLDERS, IMAGE_FOLDERS))
        roles = [_lies_in(e.path, MASK_FOLDERS) if told else is_mask_path(e.path) for e in pictures]
        references = [entry for entry, is_mask in zip(pictures, roles, strict=True) if is_mask]
        pictures = [entry for entry, is_mask in zip(pictures, roles, strict=True) if not is_mask]
        in_folder = [entry for entry in pictures if _lies_in(entry.path, IMAGE_FOLDERS)]
        if in_folder and references:  # an images/ folder: what lies beside it (previews) is not meant
            pictures = in_folder
    else:
        references = [entry for entry in masks if is_image_name(entry.path)]
    found = Found()
    by_key: dict[PurePosixPath, list[Entry]] = {}
    for entry in pictures:
        by_key.setdefault(_key(entry), []).append(entry)
    stems = Counter(key.name for key in by_key)
    by_stem = {key.name: key for key in by_key if stems[key.name] == 1}
    of_key: dict[PurePosixPath, list[Entry]] = {}
    for entry in references:
        keys = _key(entry), _key(entry, mask=True)  # as it is called, else without what marks a mask
        owners = (key if key in by_key else by_stem.get(key.name) for key in keys)
        owner = next((owner for owner in owners if owner is not None), None)
        if owner is None:
            found.rejected.append((keys[1].name, entry, "mask without an image"))
        else:
            of_key.setdefault(owner, []).append(entry)
    for key, (entry, *others) in by_key.items():
        image_id = key.name if stems[key.name] == 1 else key.as_posix()
        found.candidates.append(Candidate(image_id, entry, tuple(of_key.get(key, ()))))
        found.rejected.extend((image_id, other, "the same image id was found before") for other in others)
    return found


def is_mask_path(path: PurePosixPath) -> bool:
    """Whether a path says that the file is a mask."""
    return _lies_in(path, MASK_FOLDERS) or MASK_SUFFIX.search(path.stem) is not None


def _lies_in(path: PurePosixPath, folders: frozenset[str]) -> bool:
    return not folders.isdisjoint(part.lower() for part in path.parts[:-1])


def _key(entry: Entry, *, mask: bool = False) -> PurePosixPath:
    stem = MASK_SUFFIX.sub("", entry.path.stem) if mask else entry.path.stem
    words = MASK_FOLDERS | IMAGE_FOLDERS
    folders = [part for part in entry.path.parts[1:-1] if part.lower() not in words]
    return PurePosixPath(*folders, stem)
