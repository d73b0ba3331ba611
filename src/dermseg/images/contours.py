"""Masks as polygons and back.

Coordinates are x, y of pixel centres in the mask's own grid: the pixel in row 2, column 5 is the point
(5, 2). A polygon runs through the outermost pixels of its region, so drawing it filled, border included,
gives the region back exactly (Suzuki and Abe 1985, doi 10.1016/0734-189X(85)90016-7, as OpenCV does it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dermseg.images.check import as_bytes

Points = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Polygon:
    """One region of a mask.

    Attributes
    ----------
    outer
        float32 (N, 2), x and y; not closed (the first point is not repeated).
    holes
        The same for each hole; the points lie on the region's pixels that surround the hole.
    """

    outer: Points
    holes: tuple[Points, ...] = ()


def mask_to_polygons(mask: npt.NDArray[np.bool_], *, epsilon: float = 0.0) -> list[Polygon]:
    """Outlines of all regions (8-connected), largest first.

    Parameters
    ----------
    mask
        bool (H, W).
    epsilon
        Largest distance in pixels by which a simplified outline may leave the true one
        (Douglas and Peucker 1973); 0 keeps the mask exactly.

    Raises
    ------
    MaskError
        Not ``bool (H, W)``.
    """
    found, hierarchy = cv2.findContours(as_bytes(mask), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not found:
        return []
    children: dict[int, list[Points]] = {}
    parents = np.asarray(hierarchy).reshape(-1, 4)[:, 3]
    for index, parent in enumerate(parents):
        if parent >= 0:
            children.setdefault(int(parent), []).append(_simplified(found[index], epsilon))
    tops = [index for index, parent in enumerate(parents) if parent < 0]
    tops.sort(key=lambda index: -float(cv2.contourArea(found[index])))
    return [Polygon(_simplified(found[index], epsilon), tuple(children.get(index, ()))) for index in tops]


def polygons_to_mask(polygons: Sequence[Polygon], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Draw polygons filled; gives ``mask_to_polygons`` its mask back when epsilon was 0.

    Parameters
    ----------
    polygons
        Drawn in this order: a region inside another's hole must come after it.
    size
        (height, width) of the mask.
    """
    grey = np.zeros(size, np.uint8)
    for polygon in polygons:
        cv2.fillPoly(grey, [_drawable(polygon.outer)], 1)
        for hole in polygon.holes:
            points = _drawable(hole)
            cv2.fillPoly(grey, [points], 0)
            cv2.polylines(grey, [points], True, 1)  # the hole's outline belongs to the region
    return grey.astype(np.bool_)


def _simplified(points: npt.NDArray[Any], epsilon: float) -> Points:
    if epsilon > 0:
        points = np.asarray(cv2.approxPolyDP(points, epsilon, True))
    return np.asarray(points).reshape(-1, 2).astype(np.float32)


def _drawable(points: Points) -> npt.NDArray[np.int32]:
    return np.rint(points).astype(np.int32).reshape(-1, 1, 2)
