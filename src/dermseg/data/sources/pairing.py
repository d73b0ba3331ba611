"""Which masks belong to which image, by their names; nothing is opened but what could be a copy."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from dermseg.data.sources.base import (
    MASK_SUFFIX,
    NNUNET_FOLDERS,
    Candidate,
    Entry,
    Found,
    Layout,
    is_dicom_name,
    is_image_name,
    is_mask_path,
    lies_in,
)
from dermseg.errors import DataError
from dermseg.images.roles import IMAGE_FOLDERS, MASK_FOLDERS
from dermseg.images.sources import same_bytes

_PARTS = {"training": "train", "validation": "val", "test": "test", "test_v2": "test"}
_FOLDER_PARTS = {  # the last two of nnU-Net
    **dict.fromkeys(("train", "training", "imagestr"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing", "imagests"), "test"),
}
_UNREAD = frozenset([".npy", ".npz", ".mat", ".nii", ".gz", ".nrrd", ".svg"])  # of masks elsewhere
_NO_PICTURE = "masks of this kind are not read: save it as PNG, 0 and 255"
NO_IMAGE = "mask without an image"
_TAKEN = "the same image id was found before"
_BESIDE = "{}; if it is the mask, call it '{}_mask{}' or move it into a folder 'masks'"
_TWO_IMAGES = (
    "images of several folders are called so, and whose the masks are nothing says: import the folders one "
    "by one, each with a --name, the second with --append"
)


def take_apart(images: Sequence[Entry], masks: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Images and masks that were named as such, each file as one of the two.

    Of a folder in the other (``data`` and ``data/masks``) the inner one is what it was named as.

    Raises
    ------
    DataError
        The same files were named as both: a mask would be the image that it belongs to.
    """
    both = {_place(entry) for entry in images} & {_place(entry) for entry in masks}
    alone, apart = ([entry for entry in files if _place(entry) not in both] for files in (images, masks))
    if both and bool(alone) == bool(apart):
        raise DataError(
            f"{len(both)} files were given as images and as masks",
            hint="--images and --masks take different folders; of one folder with both (a.jpg, a_mask.png) "
            "give its name alone, without the two",
        )
    return alone or list(images), apart or list(masks)


def _place(entry: Entry) -> tuple[str, str | None]:
    return os.path.realpath(entry.source.path), entry.source.member


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
    known: dict[str, list[tuple[str, Entry]]] = {}
    for image_id, part, entry in images:
        known.setdefault(image_id, []).append((part, entry))
    for image_id, same in known.items():
        own = [entry for _, entry in same]
        _join(found, image_id, own, of_image.get(image_id, []), part=same[0][0], copies=masks is None)
    for image_id, _, entry in references:
        if image_id not in known:
            found.rejected.append((image_id, entry, NO_IMAGE))
    return found


def _join(
    found: Found, image_id: str, images: list[Entry], masks: list[Entry], *, part: str = "", copies: bool
) -> None:
    """Make a candidate of the images and masks of one id.

    Of copies of one image the first is taken. Where the images differ nothing says whose the masks are, so
    all are left out; but in one folder (``1.jpg``, ``1.png``) they are taken for one picture in two formats.

    Parameters
    ----------
    copies
        Masks of one file name may be copies, too: one archive, and what was unpacked from it.
    """
    first, *others = images
    if masks and any(
        _folder(other) != _folder(first) and not same_bytes(first.source, other.source) for other in others
    ):
        found.rejected.extend((image_id, entry, _TWO_IMAGES) for entry in (*images, *masks))
        return
    for other in others:
        beside = not masks and _folder(other) == _folder(first)  # 1.jpg and 1.png
        name = other.path
        reason = _BESIDE.format(_TAKEN, name.stem, name.suffix) if beside else _TAKEN
        found.rejected.append((image_id, other, reason))
    kept: list[Entry] = []
    for mask in masks:
        twins = [one for one in kept if one.path.name == mask.path.name] if copies or others else []
        if any(same_bytes(one.source, mask.source) for one in twins):
            found.rejected.append((image_id, mask, "the same mask was found before"))
        else:
            kept.append(mask)
    found.candidates.append(Candidate(image_id, first, tuple(kept), part))


def _folder(entry: Entry) -> tuple[Path, PurePosixPath]:
    """Where a file really lies: the folder, or the archive and the folder in it."""
    source = entry.source
    if source.member is None:
        return source.path.absolute().parent, PurePosixPath()
    return source.path.absolute(), PurePosixPath(source.member).parent


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
    entries, masks = list(entries), None if masks is None else list(masks)
    pictures = [entry for entry in entries if is_image_name(entry.path) or is_dicom_name(entry.path)]
    if masks is None:
        # names decide where folders do not: "anna_lesion_2.jpg" may well be a photograph
        told = all(any(lies_in(e.path, words) for e in pictures) for words in (MASK_FOLDERS, IMAGE_FOLDERS))
        roles = [lies_in(e.path, MASK_FOLDERS) if told else is_mask_path(e.path) for e in pictures]
        references = [entry for entry, is_mask in zip(pictures, roles, strict=True) if is_mask]
        pictures = [entry for entry, is_mask in zip(pictures, roles, strict=True) if not is_mask]
        in_folder = [entry for entry in pictures if lies_in(entry.path, IMAGE_FOLDERS)]
        if in_folder and references:  # an images/ folder: what lies beside it (previews) is not meant
            pictures = in_folder
    else:
        references = [entry for entry in masks if is_image_name(entry.path)]
    found = Found()
    for entry in entries if masks is None else masks:
        if entry.path.suffix.lower() in _UNREAD and (masks is not None or is_mask_path(entry.path)):
            found.rejected.append((_key(entry, mask=True).name, entry, _NO_PICTURE))
    by_key: dict[PurePosixPath, list[Entry]] = {}
    for entry in pictures:
        by_key.setdefault(_key(entry), []).append(entry)
    at_root = {_root(entry) for entry in pictures}
    stems = Counter(key.name for key in by_key)
    owner_of = _owners(by_key)
    of_key: dict[PurePosixPath, list[Entry]] = {}
    for entry in references:
        keys = _key(entry), _key(entry, mask=True)  # as it is called, else without what marks a mask
        owner = owner_of(keys)
        if owner is None:
            found.rejected.append((keys[1].name, entry, NO_IMAGE))
        else:
            of_key.setdefault(owner, []).append(entry)
    for key, images in by_key.items():
        image_id = key.name if stems[key.name] == 1 else key.as_posix()
        own = of_key.get(key, [])
        roots = {_root(entry) for entry in images}
        # an image with a mask from its own folder takes none from another folder of images and masks
        if masks is None and any(_root(entry) in roots for entry in own):
            strange = [entry for entry in own if _root(entry) in at_root - roots]
            found.rejected.extend((image_id, entry, NO_IMAGE) for entry in strange)
            own = [entry for entry in own if entry not in strange]
        _join(found, image_id, images, own, copies=False)
    return found


def split_by_folders(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Folders called ``train``, ``val`` and ``test`` are splits where there are at least two of them.

    What the files themselves say of an image goes before.
    """
    parts = [_folder_part(candidate.image) for candidate in candidates]
    if len({*parts} - {""}) < 2:
        return list(candidates)
    return [c if c.part else replace(c, part=part) for c, part in zip(candidates, parts, strict=True)]


def _folder_part(entry: Entry) -> str:
    return next(
        (_FOLDER_PARTS[name] for part in entry.path.parts[:-1] if (name := part.lower()) in _FOLDER_PARTS), ""
    )


def _owners(
    images: Iterable[PurePosixPath],
) -> Callable[[Sequence[PurePosixPath]], PurePosixPath | None]:
    """Finds the image that one of some keys means: the same path, else the only one of that name.

    Where none is, upper and lower case are one: programs on Windows write ``a_mask.png`` of ``A.JPG``.
    """
    tables: list[dict[str, list[PurePosixPath]]] = [{}, {}, {}, {}]
    for key in images:
        for table, name in zip(tables, _names(key), strict=True):
            table.setdefault(name, []).append(key)

    def find(keys: Sequence[PurePosixPath]) -> PurePosixPath | None:
        names = [_names(key) for key in keys]
        tried = (tables[i].get(name[i], ()) for case in ((0, 1), (2, 3)) for name in names for i in case)
        return next((found[0] for found in tried if len(found) == 1), None)

    return find


def _names(key: PurePosixPath) -> tuple[str, str, str, str]:
    """Path and bare name, as they are and in one case."""
    return str(key), key.name, str(key).casefold(), key.name.casefold()


def _root(entry: Entry) -> Path:
    """The input that a file came from: the folder that was named, or the zip."""
    source = entry.source
    if source.member is not None:
        return source.path
    return Path(source.path.as_posix().removesuffix(source.name))


def _key(entry: Entry, *, mask: bool = False) -> PurePosixPath:
    stem = MASK_SUFFIX.sub("", entry.path.stem) if mask else entry.path.stem
    if lies_in(entry.path, NNUNET_FOLDERS):
        stem = stem.removesuffix("_0000")  # nnU-Net's number of the channel, which its labels have not
    words = MASK_FOLDERS | IMAGE_FOLDERS
    folders = [part for part in entry.path.parts[1:-1] if part.lower() not in words]
    return PurePosixPath(*folders, stem)
