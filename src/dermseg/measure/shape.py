"""Shape of a mask: how much of its hull it fills, and how unlike its mirror image it is.

Asymmetry is what people mean when they fold a lesion in thought: the share of its area that meets no lesion
after folding along a line through its centre of gravity, for the line where that share is smallest (Stoecker,
Li and Moss 1992, doi 10.1016/0895-6111(92)90073-I), and for the line across it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.images.check import as_bytes
from dermseg.images.resize import area_mean, fit
from dermseg.measure.basics import describe
from dermseg.measure.feret import center_hull, pixel_hull

Floats = NDArray[np.float32]

DIRECTIONS = 240  # around the centre; lines to fold along are half as far apart: every 0.75 degrees
RINGS = 96
_SIDE = 256  # the mask is looked at with its longer side reduced to this


@dataclass(frozen=True, slots=True)
class Shape:
    """Shape of one mask; see the module.

    Attributes
    ----------
    solidity
        Area by the area of the convex hull: 1 without dents and gaps.
    asymmetry
        Share of the area that has no mirror image, for the best line; 0 for an ellipse, below 1.
    asymmetry_across
        The same for the line at right angles to it.
    """

    solidity: float
    asymmetry: float
    asymmetry_across: float


def describe_shape(mask: NDArray[np.bool_], spacing: tuple[float, float] = (1.0, 1.0)) -> Shape | None:
    """Shape of ``bool (H, W)``; None where it is empty. Several components are taken together.

    Parameters
    ----------
    mask
        Cropped or not; what lies outside is background.
    spacing
        Distance between pixel centres (row, column), in any unit: only their ratio matters.

    Raises
    ------
    MaskError
        Not a mask.
    """
    center, step = compass(mask, spacing)
    if center is None:
        return None
    share = _shares(mask)
    by = np.array(share.shape[::-1], np.float32) / np.array(mask.shape[::-1], np.float32)
    x, y = (np.array(center) + 0.5) * by - 0.5
    folded = fold(around(share, (float(x), float(y)), np.asarray(step * by, np.float32)))
    best = int(folded.argmin())
    return Shape(
        solidity=int(np.count_nonzero(mask)) / _pixels_of_hull(mask),
        asymmetry=float(folded[best]),
        asymmetry_across=float(folded[(best + DIRECTIONS // 2) % DIRECTIONS]),
    )


def _shares(mask: NDArray[np.bool_]) -> Floats:
    """The mask at a size that is quick to look at: what share of each pixel it fills."""
    height, width = mask.shape
    if max(height, width) <= _SIDE:
        return mask.astype(np.float32)
    small = area_mean(255 * as_bytes(mask), *fit(height, width, _SIDE))
    return np.asarray(small / 255, np.float32)


def _pixels_of_hull(mask: NDArray[np.bool_]) -> float:
    """How many pixel centres lie in the hull of the mask's, by Pick's theorem.

    Their own number against it is 1 for whatever is convex, however coarse its pixels: areas of outlines
    through corners or centres are not.
    """
    x, y = center_hull(mask).T.astype(np.int64)
    ahead_x, ahead_y = np.roll(x, -1), np.roll(y, -1)
    area = abs(int((x * ahead_y - ahead_x * y).sum())) / 2
    return area + int(np.gcd(ahead_x - x, ahead_y - y).sum()) / 2 + 1


def compass(
    mask: NDArray[np.bool_], spacing: tuple[float, float]
) -> tuple[tuple[float, float] | None, Floats]:
    """Where to look at a mask from, and how far.

    Returns
    -------
    tuple
        Its centre of gravity ``(x, y)`` in pixels, None where it is empty; and for each direction the way
        from there to as far as its outermost pixel reaches, ``(DIRECTIONS, 2)`` of (x, y) in pixels.
    """
    center = describe(mask).centroid
    if center is None:
        return None, np.zeros((DIRECTIONS, 2), np.float32)
    offset = (pixel_hull(mask) - center) * (spacing[1], spacing[0])
    reach = float(np.hypot(*offset.T).max())
    angle = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    step = reach * np.stack([np.cos(angle) / spacing[1], np.sin(angle) / spacing[0]], axis=1)
    return center, step.astype(np.float32)


def around(values: Floats, center: tuple[float, float], step: Floats) -> Floats:
    """Values ``(H, W[, C])`` around a centre, ``(DIRECTIONS, RINGS[, C])``; 0 outside the image.

    Parameters
    ----------
    center, step
        Of a ``compass``, in pixels of ``values``.
    """
    where = np.array(center, np.float32) + ring_radii()[None, :, None] * step[:, None, :]
    found = cv2.remap(values, where[..., 0], where[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(found, np.float32)


def ring_radii() -> Floats:
    """Radii of the rings, in units of the reach; a ring stands for an area in proportion to its radius."""
    return np.asarray((np.arange(RINGS) + 0.5) / RINGS, np.float32)


def mirror_image(line: int) -> NDArray[np.intp]:
    """For each direction, the direction that folding along a line (at ``line`` half steps) lays on it."""
    return (line - np.arange(DIRECTIONS)) % DIRECTIONS


def fold(inside: Floats) -> Floats:
    """Share of the area without mirror image for each line, ``(DIRECTIONS,)``, of a mask ``around`` it."""
    weighted = inside * ring_radii()
    total = float(weighted.sum())
    if not total:  # one pixel between the nodes
        return np.zeros(DIRECTIONS, np.float32)
    unlike = [float(np.abs(weighted - weighted[mirror_image(line)]).sum()) for line in range(DIRECTIONS)]
    return np.array(unlike, np.float32) / (2 * total)
