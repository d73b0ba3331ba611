"""Images decoded once into memory-mapped arrays, so that training never waits for a decoder.

A cache folder is named by what is in it (rows, their sha256 and the size), written under a temporary
name and moved into place when whole: two runs share it, and a killed build leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.data.index import IndexRow, open_image, open_mask
from dermseg.errors import DataError
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask

_FORMAT = 2
_STALE_S = 24 * 3600


@dataclass(frozen=True)
class Cache:
    """Images ``uint8 (N, S, S, 3)`` RGB and masks ``uint8 (N, S, S)`` in 0..255, memory-mapped.

    Images are stretched to the square that the network sees; masks are area-averaged, so a border
    pixel holds its share of lesion.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    image_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.image_ids)


def cache_key(rows: Sequence[IndexRow], size: int) -> str:
    """Name of the cache of these rows at this size."""
    digest = hashlib.sha256(f"{_FORMAT}:{size}".encode())
    for row in rows:
        digest.update(f"\0{row.dataset}\0{row.image_id}\0{row.sha256}\0{row.masks[:1]}".encode())
    return digest.hexdigest()[:20]


def build_cache(
    rows: Sequence[IndexRow],
    size: int,
    folder: Path,
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Cache:
    """Open the cache of ``rows`` below ``folder``, decoding the images when it is not there yet.

    Raises
    ------
    DataError
        No rows, a row without a mask, or too little disk.
    ImageError, MaskError
        An image or mask cannot be read.
    """
    if not rows:
        raise DataError("there are no images to train on", hint="check the split names in the index")
    target = folder / cache_key(rows, size)
    if not (target / "ids.json").exists():
        _build(rows, size, target, workers, progress)
    ids = tuple(json.loads((target / "ids.json").read_text()))
    return Cache(
        np.load(target / "images.npy", mmap_mode="r"), np.load(target / "masks.npy", mmap_mode="r"), ids
    )


def _build(
    rows: Sequence[IndexRow],
    size: int,
    target: Path,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    need = len(rows) * size * size * 4
    free = shutil.disk_usage(target.parent).free
    if need > free:
        raise DataError(
            f"the cache needs {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free",
            file=target.parent,
            hint="set data.cache_dir or a smaller data.cache_size",
        )
    for left in target.parent.glob("*.tmp"):  # of builds that were killed; a live one is never this old
        if time.time() - left.stat().st_mtime > _STALE_S:
            shutil.rmtree(left, ignore_errors=True)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        n = len(rows)
        images = np.lib.format.open_memmap(
            temporary / "images.npy", mode="w+", dtype=np.uint8, shape=(n, size, size, 3)
        )
        masks = np.lib.format.open_memmap(
            temporary / "masks.npy", mode="w+", dtype=np.uint8, shape=(n, size, size)
        )

        def fill(i: int) -> None:
            images[i], masks[i] = load_pair(rows[i], size)

        with ThreadPoolExecutor(workers) as pool:
            for done, _ in enumerate(pool.map(fill, range(n)), start=1):
                if progress:
                    progress(done, n)
        images.flush()
        masks.flush()
        (temporary / "ids.json").write_text(json.dumps([r.image_id for r in rows]))
        if not target.exists():
            temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_pair(row: IndexRow, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and first mask of a row, stretched to ``size`` x ``size``.

    Raises
    ------
    DataError
        The row has no mask.
    """
    if not row.masks:
        raise DataError(f"image '{row.image_id}' has no mask", hint="dermseg data check finds all such rows")
    image = load_image(open_image(row), min_side=2 * size)  # as at inference
    mask = load_mask(open_mask(row), size=(image.info.height, image.info.width))
    shape = (size, size)
    shrinks = image.pixels.shape[0] > size or image.pixels.shape[1] > size
    pixels = cv2.resize(image.pixels, shape, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    soft = cv2.resize(mask.astype(np.uint8) * 255, shape, interpolation=cv2.INTER_AREA)
    return pixels.astype(np.uint8, copy=False), soft.astype(np.uint8, copy=False)
