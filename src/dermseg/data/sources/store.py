"""Where masks and images go that are no files yet: outlines of LabelMe and COCO, and what lies in shards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from dermseg.data.sources.base import Entry
from dermseg.files import atomic_write
from dermseg.images.masks import encode_mask
from dermseg.images.names import typed_name
from dermseg.images.sources import ImageSource


class Store:
    """A folder to write into. No file in it is replaced by other content, which gets a name beside it:
    indexes name these files, also those that were made of the one that is written.

    Parameters
    ----------
    folder
        Made when the first file is written.
    keep
        Files that rows of the index name already: their names stay theirs where the files are gone. Another
        folder may hold images of the same names.
    progress
        Called with how many images have their files, and of how many.
    """

    def __init__(
        self, folder: Path, keep: Iterable[Path] = (), progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.progress = progress or (lambda done, total: None)
        self._folder = folder
        self._keep = {_key(path) for path in keep}

    def write(self, name: str, data: bytes) -> Entry:
        """Write one file, ``images/1.jpg`` (or ``images/1-2.jpg`` where that one is another)."""
        wanted = PurePosixPath(name)
        number = 1
        while _is_other(path := self._folder / name, data, _key(path) in self._keep):
            number += 1
            name = str(wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}"))
        atomic_write(path, data)
        self._keep.add(_key(path))
        return Entry(PurePosixPath(self._folder.name, name), ImageSource(name=name, path=path))

    def write_masks(self, image_id: str, masks: Sequence[NDArray[np.bool_]]) -> tuple[Entry, ...]:
        """Write the masks ``bool (H, W)`` of an image, numbered where it has several."""
        names = [f"masks/{image_id}{f'_{i}' if len(masks) > 1 else ''}.png" for i in range(len(masks))]
        return tuple(self.write(name, encode_mask(mask)) for name, mask in zip(names, masks, strict=True))


def _key(path: Path) -> str:
    # in small letters, as the disks of Windows and Macs compare them
    return typed_name(os.path.normpath(path.absolute())).casefold()


def _is_other(path: Path, data: bytes, named: bool) -> bool:
    """Whether a file has other content, or is gone and yet another row's."""
    if not os.path.lexists(path):
        return named
    try:
        return path.read_bytes() != data
    except OSError:  # a folder, or not ours to read
        return True
