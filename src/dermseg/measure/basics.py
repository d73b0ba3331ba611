"""Area, bounding box and centroid of a mask: one pass, fast enough for every mask of 100 megapixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.images.check import as_bytes

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Basics:
    """Where a mask lies in its image.

    Parameters
    ----------
    area
        Number of mask pixels.
    box
        The smallest box ``(x, y, width, height)`` around them, None for an empty mask.
    centroid
        Their mean position ``(x, y)``; the centre of the top left pixel is (0, 0). None when empty.
    touches_border
        Whether one lies in the first or last row or column: the lesion may go on outside the image.
    """

    area: int
    box: Box | None
    centroid: tuple[float, float] | None
    touches_border: bool


def describe(mask: NDArray[np.bool_], window: tuple[slice, slice] | None = None) -> Basics:
    """Area, box, centroid and contact with the image's edge of ``bool (H, W)``.

    Parameters
    ----------
    mask
        The mask.
    window
        Rows and columns outside of which nothing is set, where that is known: less to look at.

    Raises
    ------
    MaskError
        Not a mask.
    """
    data = as_bytes(mask)
    left = top = 0
    if window is not None:
        data, top, left = data[window], window[0].start, window[1].start
    if not data.size:
        return Basics(0, None, None, False)
    x, y, width, height = cv2.boundingRect(data)
    if not width:
        return Basics(0, None, None, False)
    inside = data[y : y + height, x : x + width]
    x, y = x + left, y + top
    columns = cv2.reduce(inside, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel().astype(np.float64)
    rows = cv2.reduce(inside, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel().astype(np.float64)
    total = columns.sum()
    center = (float(x + columns @ np.arange(width) / total), float(y + rows @ np.arange(height) / total))
    edge = x == 0 or y == 0 or x + width == mask.shape[1] or y + height == mask.shape[0]
    return Basics(int(total), (x, y, width, height), center, edge)
