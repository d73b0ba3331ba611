"""Images decoded once into memory-mapped arrays, so that training never waits for a decoder.

A cache folder is named by what is in it (rows, the files behind them as they are now, and the size), written
under a temporary name and moved into place when whole: two runs share it, a corrected mask is decoded again,
and a killed build leaves nothing behind.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermseg.data.index import IndexRow, open_image, open_mask
from dermseg.data.threads import map_threads
from dermseg.errors import DataError, UsageError
from dermseg.files import check_writable
from dermseg.images.filter_names import FilterName
from dermseg.images.filters import apply_filters
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask
from dermseg.images.resize import area_mean, resize_image

_FORMAT = 4
_STALE_S = 24 * 3600
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@dataclass(frozen=True)
class Cache:
    """Images ``uint8 (N, S, S, 3)`` RGB and masks ``uint8 (N, S, S)`` in 0..255, memory-mapped.

    Of ``M`` classes the masks are ``(N, S, S, M)``.

    Images are stretched to the square that the network sees; masks are area-averaged, so a border
    pixel holds its share of lesion.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    image_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.image_ids)


def cache_key(rows: Sequence[IndexRow], size: int, masks: int = 1, filters: Sequence[FilterName] = ()) -> str:
    """Name of the cache of these rows at this size with so many masks per image, filtered."""
    digest = hashlib.sha256(f"{_FORMAT}:{size}{''.join(f':{name}' for name in filters)}".encode())
    for row in rows:
        files = (open_image(row), *(open_mask(row, i) for i in range(min(masks, len(row.masks)))))
        stamps = "\0".join(source.stamp() for source in files)
        digest.update(f"\0{row.dataset}\0{row.image_id}\0{row.sha256}\0{stamps}".encode())
    return digest.hexdigest()[:20]


def check_room(folder: Path, images: int, size: int, masks: int = 1) -> None:
    """See that a cache of so many images can be made below ``folder``, which need not be there yet.

    Raises
    ------
    DataError
        The folder cannot be made or written to, or the disk has too little room.
    """
    hint = "data.cache_dir names another folder, or DERMSEG_CACHE where it is not set"
    try:
        check_writable(folder)
    except UsageError as error:
        raise DataError(
            f"the cache cannot be kept here: {error.message}", file=error.file, hint=hint
        ) from None
    need = images * size * size * (3 + masks)
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
    if need > free:
        raise DataError(
            f"the cache needs {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free",
            file=folder,
            hint="set data.cache_dir or a smaller data.cache_size",
        )


def build_cache(
    rows: Sequence[IndexRow],
    size: int,
    folder: Path,
    *,
    masks: int = 1,
    filters: Sequence[FilterName] = (),
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Cache:
    """Open the cache of ``rows`` below ``folder``, decoding the images when it is not there yet.

    With ``masks`` above 1 the first so many masks of each row are kept, one per class. Images are kept as
    ``filters`` leave them.

    Raises
    ------
    DataError
        No rows, a row without a mask, or too little disk.
    ImageError, MaskError
        An image or mask cannot be read.
    """
    if not rows:
        raise DataError("there are no images to train on", hint="check the split names in the index")
    target = folder / cache_key(rows, size, masks, filters)
    if not (target / "ids.json").exists():
        _build(rows, size, target, count=masks, filters=filters, workers=workers, progress=progress)
    ids = tuple(json.loads((target / "ids.json").read_text()))
    return Cache(
        np.load(target / "images.npy", mmap_mode="r"), np.load(target / "masks.npy", mmap_mode="r"), ids
    )


def _build(
    rows: Sequence[IndexRow],
    size: int,
    target: Path,
    *,
    count: int,
    filters: Sequence[FilterName],
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    check_room(target.parent, len(rows), size, count)
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob("*.tmp"):  # of builds that were killed; a live one is never this old
        with suppress(FileNotFoundError):  # another run has just moved its own into place
            if time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left, ignore_errors=True)
    # a name of its own even where two machines share the disk
    temporary = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        _fill(temporary, rows, size, count=count, filters=filters, workers=workers, progress=progress)
        (temporary / "ids.json").write_text(json.dumps([r.image_id for r in rows]))
        temporary.chmod(0o755)
        try:
            temporary.replace(target)
        except OSError:
            if not (target / "ids.json").exists():  # else another process was faster; its cache is the same
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(
    folder: Path,
    rows: Sequence[IndexRow],
    size: int,
    *,
    count: int,
    filters: Sequence[FilterName],
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write both arrays. Their maps end with this function: Windows renames no folder of mapped files."""
    n = len(rows)
    images = new_map(folder / "images.npy", (n, size, size, 3))
    masks = new_map(folder / "masks.npy", (n, size, size) if count == 1 else (n, size, size, count))

    def fill(i: int) -> None:
        images[i], masks[i] = load_pair(rows[i], size, count, filters)

    for _ in map_threads(fill, range(n), workers=workers, progress=progress):
        pass
    images.flush()
    masks.flush()


def new_map(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A new file of ``uint8`` as an array to fill, with its disk taken already where the system can do that.

    A process that writes to a map without disk behind it (full by then, or a quota, which free space does not
    show) is ended by the system without a word.

    Raises
    ------
    DataError
        There is not so much disk.
    """
    array: np.memmap[Any, Any] = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if sys.platform == "linux":
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno in _FULL:
                    raise DataError(
                        f"the cache needs {path.stat().st_size / 1e9:.1f} GB: {error.strerror}",
                        file=path.parent.parent,
                        hint="set data.cache_dir or a smaller data.cache_size",
                    ) from None
    return array


def load_pair(
    row: IndexRow, size: int, masks: int = 1, filters: Sequence[FilterName] = ()
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image, filtered, and first mask of a row (or several, in the last axis), stretched to a square.

    Raises
    ------
    DataError
        The row has too few masks.
    """
    if not row.masks:
        raise DataError(
            f"image '{row.image_id}' has no mask",
            hint="draw it, or take its row out: dermseg data check lists all such rows",
        )
    if len(row.masks) < masks:
        raise DataError(f"image '{row.image_id}' has {len(row.masks)} masks, {masks} are needed")
    image = load_image(open_image(row), min_side=2 * size)  # as at inference
    pixels = apply_filters(resize_image(image.pixels, size, size), filters)
    soft = []
    for i in range(masks):
        mask = load_mask(open_mask(row, i), size=(image.info.height, image.info.width))
        soft.append(area_mean(mask.view(np.uint8) * np.uint8(255), size, size))
    return pixels, soft[0] if masks == 1 else np.stack(soft, axis=2)
