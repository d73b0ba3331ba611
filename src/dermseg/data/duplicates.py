"""Near-duplicates: the same photograph again, resized, recompressed, recoloured, turned or mirrored.

Two stages. A 64-bit perceptual hash (signs of the low DCT coefficients, in all 8 orientations) proposes
pairs; a lesion in the middle of even skin looks much like the next one to such a hash, so a pair counts
only when its fine detail (hairs, texture) agrees too, inside a window that fades out the vignette.

Measured on the 11,862 images of ISIC 2018 and HAM10000 at hand (70 million pairs): the hash alone at
distance 8 proposes 33,000 pairs, nearly all of different lesions. The detail test leaves 132: 114 within
one patient, lesion or known duplicate group, and of the other 18, looked at one by one, 17 are the same
photograph and one is not (a false pair only keeps some images together). On ISIC 2018 a hash distance of
20 finds no further pair. Photographs of one lesion taken anew, and tight crops, are not found: that is
what patient and lesion ids are for.

The hash follows Zauner 2010, "Implementation and benchmarking of perceptual image hash functions".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.data.index import IndexRow, open_image
from dermseg.data.threads import map_threads
from dermseg.errors import ImageError
from dermseg.images.load import load_image

HASH_DISTANCE = 8  # of 64 bits: hashes further apart are not looked at
DETAIL = 0.65  # correlation of the fine detail of the thumbnails inside the window
SHAPE = 0.95  # correlation of the smoothed thumbnails inside the window

_GONE = (
    "'dermseg data check' lists all such images: take their rows out of the index, or give --no-duplicates"
)
_SIDE = 64
_LOW = 8
_BITS = np.left_shift(np.uint64(1), np.arange(_LOW * _LOW - 1, dtype=np.uint64))
_SIGNS = np.where(np.arange(_LOW) % 2, -1.0, 1.0).astype(np.float32)


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of an image to find it again.

    Attributes
    ----------
    hashes
        uint64 (8,): the perceptual hash of the image in each orientation, the first as it is.
    thumbnail
        uint8 (64, 64) grey, stretched.
    """

    hashes: NDArray[np.uint64]
    thumbnail: NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """Two images (positions in the list) that are the same photograph, and how well they agree."""

    first: int
    second: int
    distance: int
    detail: float


def fingerprint(pixels: NDArray[np.uint8]) -> Fingerprint:
    """Fingerprint of an RGB image ``uint8 (H, W, 3)`` of any size."""
    # Reduced before it is turned grey: the colour of 4,096 pixels, not of 12 million.
    small = cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    half = cv2.resize(grey, (_SIDE // 2, _SIDE // 2), interpolation=cv2.INTER_AREA)
    low = np.asarray(cv2.dct(half.astype(np.float32)), dtype=np.float32)[:_LOW, :_LOW]
    hashes = np.array([_hash(turned) for turned in _turn_coefficients(low)], dtype=np.uint64)
    return Fingerprint(hashes, np.asarray(grey, dtype=np.uint8))


def _hash(low: NDArray[np.float32]) -> np.uint64:
    values = low.ravel()[1:]  # the first is the mean brightness
    return np.uint64(_BITS[values > np.median(values)].sum(dtype=np.uint64))


def _turn_coefficients(low: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    # Mirroring an image negates its odd DCT coefficients: one transform serves all 8 orientations.
    for transposed in (low, low.T):
        for rows in (1.0, _SIGNS[:, None]):
            for columns in (1.0, _SIGNS[None, :]):
                yield transposed * rows * columns


def _turn(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    turned = image.T if orientation & 4 else image
    if orientation & 2:
        turned = turned[::-1]
    if orientation & 1:
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)


def _make_window() -> NDArray[np.float32]:
    y, x = np.mgrid[:_SIDE, :_SIDE] - (_SIDE - 1) / 2
    radius = np.hypot(y, x) / (_SIDE / 2) / 0.9
    return np.asarray(np.cos(np.pi / 2 * np.clip(radius, 0, 1)), dtype=np.float32)


_WINDOW = _make_window()


def _normalize(values: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = values - float((values * _WINDOW).sum()) / float(_WINDOW.sum())
    weighted = centred * np.sqrt(_WINDOW)
    norm = float(np.linalg.norm(weighted))
    # An even image has no detail to compare: it correlates with nothing.
    return weighted / np.float32(norm) if norm > 1e-3 else np.zeros_like(weighted)


def _detail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    values = image.astype(np.float32)
    fine = values - cv2.GaussianBlur(values, (0, 0), 2.5)
    # Divided by the local contrast: else the border of the lesion outweighs hairs and texture, and any
    # two dark blots on pale skin agree. The 1 keeps noise of a grey level from being blown up.
    contrast = np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), _SIDE / 12))
    return _normalize(np.asarray(fine / (contrast + 1.0), dtype=np.float32))


def _shape(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _normalize(np.asarray(cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.5), dtype=np.float32))


def find_duplicates(
    fingerprints: Sequence[Fingerprint],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """All pairs of near-duplicates (quadratic: 12,000 images take about 10 s on one core)."""
    if len(fingerprints) < 2:
        return []
    upright = np.array([item.hashes[0] for item in fingerprints], dtype=np.uint64)
    pairs: list[Pair] = []
    for first, item in enumerate(fingerprints[:-1]):
        if progress:
            progress(first + 1, len(fingerprints) - 1)
        apart = np.bitwise_count(upright[first + 1 :, None] ^ item.hashes[None, :])
        nearest = apart.min(axis=1)
        close = np.flatnonzero(nearest <= HASH_DISTANCE)
        if not close.size:
            continue
        own: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        for offset in close:
            orientation = int(apart[offset].argmin())
            if orientation not in own:
                turned = _turn(item.thumbnail, orientation)
                own[orientation] = _detail(turned), _shape(turned)
            other = fingerprints[first + 1 + int(offset)].thumbnail
            agreement = float((own[orientation][0] * _detail(other)).sum())
            if agreement >= DETAIL and float((own[orientation][1] * _shape(other)).sum()) >= SHAPE:
                pairs.append(Pair(first, first + 1 + int(offset), int(nearest[offset]), agreement))
    return pairs


def fingerprint_rows(
    rows: Sequence[IndexRow],
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[Fingerprint]:
    """Fingerprints of the images of an index (decoded at reduced scale where the format allows).

    Raises
    ------
    ImageError
        An image cannot be read.
    """

    def look(row: IndexRow) -> Fingerprint:
        try:
            return fingerprint(load_image(open_image(row), min_side=_SIDE).pixels)
        except ImageError as error:
            raise ImageError(error.message, file=error.file, hint=error.hint or _GONE) from None

    return list(map_threads(look, rows, workers=workers, progress=progress))
