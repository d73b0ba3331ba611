"""Which image a LabelMe file is about, among all that were given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from dermseg.data.sources.base import Entry
from dermseg.images.names import portable_name, typed_name


class ImagesOfFiles:
    """Images, to be looked up for the LabelMe files among which they lie.

    An image is known by where it really lies and by its ``Entry.path``. In the second, folders that are
    called alike (``anna/photos``, ``bert/photos``) are one; it finds a zip's images for a folder of labels.
    """

    def __init__(self, images: Iterable[Entry], files: Iterable[Entry]) -> None:
        own = {_place(file).with_suffix("") for file in files}
        self._real: dict[PurePosixPath, Entry] = {}
        self._listed: dict[PurePosixPath, list[Entry]] = defaultdict(list)
        self._called: dict[str, list[Entry]] = defaultdict(list)
        for entry in images:
            place = _place(entry)
            self._real[place] = entry
            self._real.setdefault(place.with_suffix(""), entry)
            if place.with_suffix("") in own:
                continue  # what has a file of its own beside it is nobody else's
            for path in (entry.path, entry.path.with_suffix("")):
                self._listed[path].append(entry)
            self._called[entry.path.name].append(entry)

    def of(self, file: Entry, named: str) -> list[Entry]:
        """The image that a file names, or the one that is called like the file; several where only the name
        is known and more than one has it: to take any of them would put an outline on another lesion.
        """
        wanted = [p for p in typed_name(named).replace("\\", "/").split("/") if p not in ("", ".")]
        place = _place(file)
        for real in (_from(place, wanted), place.with_suffix("")):
            if real in self._real:
                return [self._real[real]]
        for listed in (_from(file.path, wanted), file.path.with_suffix("")):
            if listed in self._listed:
                return self._listed[listed]
        called = self._called.get(wanted[-1], []) if wanted else []
        # labels/anna/1.json belongs to images/anna/1.jpg
        near = [entry for entry in called if entry.path.parent.name == file.path.parent.name]
        return near if len(near) == 1 else called


def _place(entry: Entry) -> PurePosixPath:
    path = PurePosixPath(typed_name(entry.source.path.absolute().as_posix()))
    return path if entry.source.member is None else path / portable_name(entry.source.member)


def _from(file: PurePosixPath, wanted: Sequence[str]) -> PurePosixPath:
    """Where a path leads that is written in a file."""
    place = list(file.parts[:-1])
    for part in wanted:
        if part == "..":
            place = place[:-1]
        else:
            place.append(part)
    return PurePosixPath(*place)
