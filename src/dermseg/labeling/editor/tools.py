"""Drawing tools as pure functions: each gives the pixels it covers, and changes nothing.

A patch covers only the part of the image it needs, so a stroke on 24 megapixels costs as much as one on a
thumbnail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.data.labelme import Shape, draw_shape
from dermseg.inference.postprocess import fill_holes

Mask = NDArray[np.bool_]
Point = tuple[float, float]  # x, y in pixels; the centre of the top left pixel is (0, 0)
Size = tuple[int, int]  # height, width
_FILL_SIDE = 1024  # pixels: smart fill looks at an image no larger than this


@dataclass(frozen=True)
class Patch:
    """Pixels of a part of the image: ``mask`` bool (h, w), its first pixel at column ``x``, row ``y``."""

    x: int
    y: int
    mask: Mask

    @property
    def region(self) -> tuple[slice, slice]:
        """Rows and columns of the image that the patch lies on."""
        height, width = self.mask.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x, y, width and height."""
        return self.x, self.y, self.mask.shape[1], self.mask.shape[0]


def _box(points: Sequence[Point], margin: float, size: Size) -> tuple[int, int, int, int]:
    """Left, top, right and bottom (exclusive) of the points with a margin, inside the image."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    left, top = (max(int(np.floor(min(v) - margin)), 0) for v in (xs, ys))
    right = min(int(np.ceil(max(xs) + margin)) + 1, size[1])
    bottom = min(int(np.ceil(max(ys) + margin)) + 1, size[0])
    return left, top, max(right, left), max(bottom, top)


def brush(start: Point, end: Point, radius: float, size: Size) -> Patch:
    """Pixels whose centre is within ``radius`` of the line between two points; at least the nearest."""
    left, top, right, bottom = _box([start, end], radius + 1, size)
    ys = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(start[1])
    xs = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(start[0])
    dx, dy = np.float32(end[0] - start[0]), np.float32(end[1] - start[1])
    length = dx * dx + dy * dy
    # how far along the line the nearest point lies
    along = np.clip((xs * dx + ys * dy) / length, 0, 1) if length > 0 else np.float32(0)
    distance = (xs - along * dx) ** 2 + (ys - along * dy) ** 2
    return Patch(left, top, np.asarray(distance <= np.float32(max(radius, 0.71) ** 2)))


def polygon(points: Sequence[Point], size: Size) -> Patch:
    """The area that points enclose, drawn as LabelMe draws it; fewer than three points cover nothing."""
    if len(points) < 3:
        return Patch(0, 0, np.zeros((0, 0), np.bool_))
    left, top, right, bottom = _box(points, 1, size)
    inner = np.array(points, np.float64) - (left, top)
    return Patch(left, top, draw_shape(Shape("", "polygon", inner), (bottom - top, right - left)))


def smart_fill(image: NDArray[np.uint8], seed: Point, tolerance: float) -> Patch:
    """The connected area around a point whose colour is like the point's; its holes are filled.

    Parameters
    ----------
    image
        uint8 (H, W, 3) RGB. Large ones are looked at reduced, which also calms hair and noise.
    tolerance
        Largest difference from the seed's colour in each channel of CIELAB, in 8-bit steps.
    """
    height, width = image.shape[:2]
    scale = min(1.0, _FILL_SIDE / max(height, width))
    small = image
    if scale < 1:
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = np.asarray(cv2.resize(image, inner, interpolation=cv2.INTER_AREA), np.uint8)
    lab = cv2.cvtColor(cv2.medianBlur(np.ascontiguousarray(small), 5), cv2.COLOR_RGB2LAB)
    h, w = lab.shape[:2]
    column, row = int((seed[0] + 0.5) * w / width), int((seed[1] + 0.5) * h / height)
    at = (min(max(column, 0), w - 1), min(max(row, 0), h - 1))
    found = np.zeros((h + 2, w + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (1 << 8)
    cv2.floodFill(lab, found, at, (0, 0, 0), (tolerance,) * 3, (tolerance,) * 3, flags)
    filled = fill_holes(np.ascontiguousarray(found[1:-1, 1:-1]))
    if (h, w) != (height, width):
        wide = cv2.resize(filled * np.uint8(255), (width, height), interpolation=cv2.INTER_LINEAR)
        filled = (np.asarray(wide) >= 128).view(np.uint8)
    return cut(filled.view(np.bool_))


def cut(mask: Mask) -> Patch:
    """The pixels of a mask ``bool (H, W)``, no more of the image than they need."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return Patch(x, y, mask[y : y + height, x : x + width].copy())


def grow(mask: Mask, radius: float) -> Patch:
    """Pixels that a mask gains when its outline moves outwards by ``radius`` pixels."""
    x, y, part = _crop(mask, int(np.ceil(radius)) + 1)
    if not part.size:
        return Patch(0, 0, part)
    distance = cv2.distanceTransform((~part).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return Patch(x, y, (np.asarray(distance) <= radius) & ~part)


def shrink(mask: Mask, radius: float) -> Patch:
    """Pixels a mask loses when its outline moves inwards by ``radius``; the image's edge is no outline."""
    x, y, part = _crop(mask, 1)
    if not part.size:
        return Patch(0, 0, part)
    distance = cv2.distanceTransform(part.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return Patch(x, y, (np.asarray(distance) <= radius) & part)


def _crop(mask: Mask, margin: int) -> tuple[int, int, Mask]:
    """Column and row of the part that holds the mask with a margin, and the part."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return 0, 0, np.zeros((0, 0), np.bool_)
    left, top = max(x - margin, 0), max(y - margin, 0)
    return left, top, np.ascontiguousarray(mask[top : y + height + margin, left : x + width + margin])
