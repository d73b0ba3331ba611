"""Which image a LabelMe file is about, among all that were given."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from dermseg.data.labelme import Annotation
from dermseg.data.sources.base import Entry
from dermseg.errors import ImageError
from dermseg.images.names import portable_name, typed_name
from dermseg.images.sources import ImageSource, same_bytes, split_zip
from dermseg.images.zips import find_member

ZIP_FIELD = "imageZip"
"""``zip!member``, a field of its own: LabelMe keeps it, and has the unpacked image in ``imagePath``."""


def find_named(annotation: Annotation, folder: Path) -> ImageSource | None:
    """The image that a LabelMe file in ``folder`` names, if it is there."""
    name = annotation.image
    packed = annotation.extra.get(ZIP_FIELD)
    archive, member = split_zip(str(folder / packed)) if isinstance(packed, str) else (folder, None)
    # first: beside the file another zip may have been unpacked
    with suppress(OSError, ImageError):
        if member is not None and find_member(archive, member, None) is not None:
            return ImageSource(name, archive, member)
    for text in (name, name.replace("\\", "/")):  # LabelMe on Windows
        if os.path.isfile(folder / text):  # noqa: PTH113 - also of a name that no disk takes
            return ImageSource(name, folder / text)
    return None


class ImagesOfFiles:
    """Images, to be looked up for the LabelMe files among which they lie.

    An image is known by where it really lies and by its ``Entry.path``. In the second, folders that are
    called alike (``anna/photos``, ``bert/photos``) are one; it finds a zip's images for a folder of labels.
    """

    def __init__(self, images: Iterable[Entry], files: Iterable[Entry]) -> None:
        own = {_real(file.source).with_suffix("") for file in files}
        self._real: dict[PurePosixPath, Entry] = {}
        self._listed: dict[PurePosixPath, list[Entry]] = defaultdict(list)
        self._called: dict[str, list[Entry]] = defaultdict(list)
        for entry in images:
            place = _real(entry.source)
            self._real[place] = entry
            self._real.setdefault(place.with_suffix(""), entry)
            if place.with_suffix("") in own:
                continue  # what has a file of its own beside it is nobody else's
            for path in (entry.path, entry.path.with_suffix("")):
                self._listed[path].append(entry)
            self._called[entry.path.name].append(entry)

    def of(self, file: Entry, annotation: Annotation) -> list[Entry]:
        """The image that a file names, or the one that is called like the file; several where only the name
        is known and more than one has it: to take any of them would put an outline on another lesion. So
        would one of that name where the file's own is there, but not among the images, unless it is a copy.
        """
        wanted = [p for p in typed_name(annotation.image).replace("\\", "/").split("/") if p not in ("", ".")]
        place = _real(file.source)
        there = None if file.source.member is not None else find_named(annotation, file.source.path.parent)
        for real in (_from(place, wanted), place.with_suffix("")):
            if (found := self._real.get(real)) is None:
                continue
            if there is None or there.member is None or same_bytes(found.source, there):
                return [found]  # else: what was unpacked here is of another zip
        if there is None:
            return self._called_so(file, wanted)
        if (real := _real(there)) in self._real:
            return [self._real[real]]
        return [entry for entry in self._called_so(file, wanted) if same_bytes(entry.source, there)]

    def _called_so(self, file: Entry, wanted: Sequence[str]) -> list[Entry]:
        for listed in (_from(file.path, wanted), file.path.with_suffix("")):
            if listed in self._listed:
                return self._listed[listed]
        called = self._called.get(wanted[-1], []) if wanted else []
        # labels/anna/1.json belongs to images/anna/1.jpg
        near = [entry for entry in called if entry.path.parent.name == file.path.parent.name]
        return near if len(near) == 1 else called


def _real(source: ImageSource) -> PurePosixPath:
    path = PurePosixPath(typed_name(Path(os.path.normpath(source.path.absolute())).as_posix()))
    return path if source.member is None else path / portable_name(source.member)


def _from(file: PurePosixPath, wanted: Sequence[str]) -> PurePosixPath:
    """Where a path leads that is written in a file."""
    place = list(file.parts[:-1])
    for part in wanted:
        if part == "..":
            place = place[:-1]
        else:
            place.append(part)
    return PurePosixPath(*place)
