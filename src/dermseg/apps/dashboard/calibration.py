"""Two points on a ruler and the distance between them give the scale of a photograph."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dermseg.errors import UsageError

Point = tuple[float, float]
SHORTEST_PX = 10.0


def spacing_from_points(
    points: Sequence[Point], millimetres: float, size: tuple[int, int]
) -> tuple[float, float]:
    """Millimetres between pixel centres (row, column).

    Parameters
    ----------
    points
        Two points as shares ``(x, y)`` of the image's width and height, in [0, 1].
    millimetres
        How far apart they are on the ruler.
    size
        Height and width of the image in pixels, which are taken to be square.

    Raises
    ------
    UsageError
        Not two points, points less than 10 pixels apart, or no distance.
    """
    if len(points) != 2:
        raise UsageError(f"a scale needs two points, got {len(points)}")
    if not (math.isfinite(millimetres) and millimetres > 0):
        raise UsageError(f"the distance must be above 0 mm, got {millimetres}")
    (x0, y0), (x1, y1) = points
    pixels = math.hypot((x1 - x0) * size[1], (y1 - y0) * size[0])
    if pixels < SHORTEST_PX:
        raise UsageError(
            f"the points are {pixels:.1f} pixels apart", hint="click two marks that are far from each other"
        )
    return millimetres / pixels, millimetres / pixels
