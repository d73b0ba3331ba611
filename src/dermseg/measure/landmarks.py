"""What can be recognised in a photograph of a lesion: pores, hair roots, pigment, vessels.

Points with what surrounds each, without its scale and turn (SIFT: Lowe 2004,
doi:10.1023/B:VISI.0000029664.99615.94), so that the same point is found again in another photograph; compared
as Arandjelovic and Zisserman 2012, doi:10.1109/CVPR.2012.6248018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.images.resize import fit, resize_image

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

SIDE = 512  # landmarks are looked for at this many pixels along the longer side
_MOST = 3000
_STILL = 0.01  # of the longer side: what has moved by less has not moved
_CELLS = 6  # across and down, in which landmarks are looked for everywhere
_MARGIN = 0.15  # of the root of the lesion's area: skin begins that far outside of the outline


@dataclass(frozen=True, eq=False)
class Landmarks:
    """What can be recognised in a photograph.

    Attributes
    ----------
    points
        ``float32 (N, 2)``: x and y in pixels of the whole photograph; the centre of the top left one is
        (0, 0).
    descriptors
        ``float32 (N, 128)``: what surrounds each, without scale and turn.
    on_skin
        ``bool (N,)``: outside of the lesion and its rim.
    size
        Height and width of the whole photograph.
    center, diameter
        Centroid and equivalent diameter of the lesion, pixels.
    """

    points: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    on_skin: Mask
    size: tuple[int, int]
    center: tuple[float, float]
    diameter: float


def landmarks(
    pixels: Pixels, lesion: Mask, size: tuple[int, int] | None = None, *, frame: Mask | None = None
) -> Landmarks:
    """Find what can be recognised in a photograph.

    Parameters
    ----------
    pixels
        ``uint8 (h, w, 3)`` RGB; may be reduced, half a megapixel is enough.
    lesion
        ``bool (h, w)``, of the same size, not empty.
    size
        Height and width of the whole photograph, where ``pixels`` is reduced.
    frame
        ``bool (h, w)``: where there is skin and not the tube of a dermoscope, which moves with the camera.
    """
    height, width = fit(pixels.shape[0], pixels.shape[1], SIDE)
    grey = cv2.cvtColor(resize_image(pixels, height, width), cv2.COLOR_RGB2LAB)[..., 0]
    # Skin is faint: contrast is made the same everywhere, limited so that noise is not made into landmarks.
    even = cv2.createCLAHE(3.0, (8, 8)).apply(grey)
    small = _reduced(lesion, height, width)
    seen = None
    if frame is not None and not frame.all():
        # a landmark on the edge of the tube would say that nothing has moved
        seen = cv2.erode(_reduced(frame, height, width), np.ones((15, 15), np.uint8))
    sift = cv2.SIFT_create(_MOST, contrastThreshold=0.01, edgeThreshold=20)  # type: ignore[attr-defined]
    found, descriptors = sift.detectAndCompute(even, seen)
    points = np.array([point.pt for point in found], np.float32).reshape(-1, 2)
    if descriptors is None:
        descriptors = np.empty((0, 128), np.float32)
    away = cv2.distanceTransform(1 - small, cv2.DIST_L2, 5)
    at = np.clip(np.rint(points).astype(int), 0, [width - 1, height - 1])
    area = float(np.count_nonzero(small))
    ys, xs = np.nonzero(small)
    size = pixels.shape[:2] if size is None else size
    factor = np.array([size[1] / width, size[0] / height], np.float32)
    center = (np.array([xs.mean(), ys.mean()]) + 0.5) * factor - 0.5
    return Landmarks(
        points=(points + np.float32(0.5)) * factor - np.float32(0.5),
        descriptors=np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6)),
        on_skin=away[at[:, 1], at[:, 0]] > _MARGIN * math.sqrt(area),
        size=(size[0], size[1]),
        center=(float(center[0]), float(center[1])),
        diameter=2 * math.sqrt(area / math.pi) * float(factor.mean()),
    )


def unmoved(first: Landmarks, second: Landmarks) -> Mask:
    """Which landmarks of two photographs are at one place of the picture, ``bool (N, M)``."""
    near = apart(first.points / max(first.size), second.points / max(second.size)) < _STILL
    return np.asarray(near, np.bool_)


def apart(one: NDArray[np.floating[Any]], two: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Distance of each point ``(N, 2)`` from each ``(M, 2)``, in single precision: there are millions."""
    distance = np.hypot(one[:, None, 0] - two[None, :, 0], one[:, None, 1] - two[None, :, 1])
    return np.asarray(distance, np.float32)


def share_of_cells(points: NDArray[np.float32], first: Landmarks, second: Landmarks, where: str) -> float:
    """Of the parts of the picture in which both photographs show landmarks, the share that holds ``points``.

    They are the second's; ``where`` is ``anywhere``, or ``skin`` where only landmarks of the skin count.
    """
    shown = [
        _cells(marks.points[marks.on_skin] if where == "skin" else marks.points, marks.size)
        for marks in (first, second)
    ]
    both = shown[0] & shown[1]
    return float((both & _cells(points, second.size)).sum() / max(1, both.sum()))


def count_cells(points: NDArray[np.floating[Any]], size: tuple[int, int]) -> int:
    """In how many of the 36 parts of a picture ``size`` (height, width) there are points ``(N, 2)``."""
    return int(_cells(points, size).sum())


def _cells(points: NDArray[np.floating[Any]], size: tuple[int, int]) -> Mask:
    at = np.clip((points + 0.5) * (_CELLS / np.array(size[::-1])), 0, _CELLS - 1).astype(int)
    held = np.zeros((_CELLS, _CELLS), np.bool_)
    held[at[:, 1], at[:, 0]] = True
    return held


def _reduced(mask: Mask, height: int, width: int) -> Pixels:
    size = (width, height)
    return np.asarray(cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
