"""How far two outlines lie apart: HD95, ASSD, normalised surface Dice and boundary IoU.

Decisions
- Everything is exact and at the masks' own size; nothing is computed at a reduced resolution. Work is done
  in the box around both lesions only, because no distance between two outlines leaves it.
- Distances (HD95, ASSD) run between boundary pixels: lesion pixels with a 4-neighbour that is not lesion.
  This is what MONAI, medpy and most papers call an edge; a test holds the agreement with MONAI.
- Surface Dice weighs each piece of the outline by its length, as its authors' package ``surface-distance``
  does: counting pixels would make a diagonal edge shorter than it is. A test holds that agreement too.
- What lies outside the image is not lesion, so a lesion that is cut by the frame has a boundary there, in
  both masks alike (all four sources above agree on that).
- The empty-mask rule is the one of ``metrics``.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.evaluation.counts import count_pixels
from dermseg.evaluation.metrics import empty_distance, ratio

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

SURFACE_TOLERANCE = 0.01
"""Tolerance of the surface Dice as a share of the image's diagonal: 3 pixels for 256 x 192."""
BOUNDARY_WIDTH = 0.02
"""Width of the boundary region as a share of the image's diagonal (Cheng et al. 2021)."""

BOUNDARY_METRICS = (
    "hd95_px",
    "hd95_mm",
    "hd95_diagonal",
    "assd_px",
    "assd_mm",
    "assd_diagonal",
    "surface_dice",
    "boundary_iou",
)
"""What `boundary_metrics` gives, by the names in tables and JSON."""

_DIAGONAL = 0.5 * math.sqrt(2.0)
# How the outline crosses a 2 x 2 cell, by which of its pixels are lesion (8 4 / 2 1): not, one corner cut
# off, straight, two corners cut off; and its length then.
_CROSSING = np.array([0, 1, 1, 2, 1, 2, 3, 1, 1, 3, 2, 1, 2, 1, 1, 0], np.uint8)
_LENGTHS = np.array([0.0, _DIAGONAL, 1.0, 2 * _DIAGONAL])


def boundary_metrics(
    prediction: Mask,
    reference: Mask,
    *,
    spacing_mm: tuple[float, float] | None = None,
    tolerance_px: float | None = None,
) -> dict[str, float | None]:
    """Compare the outlines of two masks.

    Parameters
    ----------
    prediction, reference
        Masks, bool ``(H, W)``, of the same shape.
    spacing_mm
        Distance between pixel centres (row, column) in millimetres; None where it is not known.
    tolerance_px
        How far an outline may be off and still count for ``surface_dice``, in pixels; None takes
        `SURFACE_TOLERANCE` of the diagonal.

    Returns
    -------
    dict
        ``hd95_*``, ``assd_*``: in pixels, in millimetres (None without a scale) and as a share of the
        diagonal; ``surface_dice`` and ``boundary_iou`` in [0, 1].

    Raises
    ------
    MaskError
        Not two masks of one shape.
    """
    counts = count_pixels(prediction, reference)
    height, width = reference.shape
    diagonal = math.hypot(height, width)
    tolerance = SURFACE_TOLERANCE * diagonal if tolerance_px is None else tolerance_px
    scale = (1.0, 1.0) if spacing_mm is None else spacing_mm
    hd95 = assd = empty_distance(not counts.predicted, not counts.reference, diagonal)
    hd95_mm = assd_mm = empty_distance(
        not counts.predicted, not counts.reference, math.hypot(height * scale[0], width * scale[1])
    )
    boxed = _crop(prediction, reference)
    if hd95 is None:
        hd95, assd = _distances(*boxed, (1.0, 1.0))
        if scale[0] == scale[1]:
            hd95_mm, assd_mm = hd95 * scale[0], assd * scale[0]
        else:
            hd95_mm, assd_mm = _distances(*boxed, scale)
    known = spacing_mm is not None
    return {
        "hd95_px": hd95,
        "hd95_mm": hd95_mm if known else None,
        "hd95_diagonal": hd95 / diagonal,
        "assd_px": assd,
        "assd_mm": assd_mm if known else None,
        "assd_diagonal": None if assd is None else assd / diagonal,
        "surface_dice": _surface_dice(*boxed, tolerance),
        "boundary_iou": _boundary_iou(*boxed, boundary_width(reference.shape)),
    }


def boundary_width(shape: tuple[int, ...]) -> int:
    """Width of the boundary region of an image ``(H, W)`` in pixels: 2 % of its diagonal, at least 1."""
    return max(1, round(BOUNDARY_WIDTH * math.hypot(*shape)))


def boundary_pixels(mask: Mask) -> Mask:
    """Lesion pixels with a 4-neighbour outside the lesion or outside the image, bool ``(H, W)``."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return mask & ~_erode(mask, cross)


def _erode(mask: Mask, kernel: cv2.typing.MatLike) -> Mask:
    """Erosion with nothing but skin outside the image."""
    out = cv2.erode(mask.view(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(out, np.uint8).view(np.bool_)


def _crop(prediction: Mask, reference: Mask) -> tuple[Mask, Mask]:
    """Both masks in the box around their union, with a rim of one pixel that is not lesion."""
    either = prediction | reference
    rows, columns = np.flatnonzero(either.any(axis=1)), np.flatnonzero(either.any(axis=0))
    if not rows.size:
        return np.zeros((2, 2), np.bool_), np.zeros((2, 2), np.bool_)
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.pad(prediction[box], 1), np.pad(reference[box], 1)


def _distances(prediction: Mask, reference: Mask, spacing: tuple[float, float]) -> tuple[float, float]:
    """HD95 and ASSD of two masks that both have lesion pixels, in units of the spacing."""
    a, b = boundary_pixels(prediction), boundary_pixels(reference)
    if spacing == (1.0, 1.0):
        forth, back = _to_nearest(b, a), _to_nearest(a, b)
    else:
        forth, back = _between(a, b, spacing)
    hd95 = max(float(np.percentile(forth, 95)), float(np.percentile(back, 95)))
    assd = (float(forth.sum()) + float(back.sum())) / (forth.size + back.size)
    return hd95, assd


def _to_nearest(points: Mask, asked: Mask) -> Floats:
    """Exact Euclidean distance of each pixel of ``asked`` to the nearest of ``points``, float64 ``(n,)``."""
    away = (~points).view(np.uint8)
    distance = np.asarray(cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
    # float32 roots of whole numbers: squared and rounded, they give the whole number back.
    rough = distance[asked].astype(np.float64)
    return np.sqrt(np.rint(rough * rough))


def _between(a: Mask, b: Mask, spacing: tuple[float, float]) -> tuple[Floats, Floats]:
    """Distances from each pixel of one to the nearest of the other, both ways, for unequal spacings.

    One with all, in blocks: OpenCV's transform knows square pixels only, and outlines have few pixels.
    """
    p, q = (np.argwhere(points) * np.asarray(spacing, np.float64) for points in (a, b))
    forth, back = np.empty(len(p)), np.full(len(q), np.inf)
    step = max(1, 4_000_000 // len(q))
    for start in range(0, len(p), step):
        block = p[start : start + step]
        square = (block[:, None, 0] - q[None, :, 0]) ** 2 + (block[:, None, 1] - q[None, :, 1]) ** 2
        forth[start : start + step] = square.min(axis=1)
        np.minimum(back, square.min(axis=0), out=back)
    return np.sqrt(forth), np.sqrt(back)


def _surface_dice(prediction: Mask, reference: Mask, tolerance: float) -> float:
    """Share of both outlines' length that lies within the tolerance of the other one.

    Nikolov et al. 2021, doi 10.2196/26151. The outline runs between the pixel centres: it is where the 2 x 2
    cells are neither all lesion nor all skin.
    """
    crossings = [_CROSSING[_cell_codes(mask)] for mask in (prediction, reference)]
    on = [crossing > 0 for crossing in crossings]
    pieces = [crossing[where] for crossing, where in zip(crossings, on, strict=True)]
    whole = sum(map(_length, pieces))
    if not (on[0].any() and on[1].any()):
        return ratio(0.0, whole)
    within = sum(_length(pieces[i][_to_nearest(on[1 - i], on[i]) <= tolerance]) for i in (0, 1))
    return ratio(within, whole)


def _length(crossings: NDArray[np.uint8]) -> float:
    """Length of the outline; counted by kind first, so that equal outlines have exactly equal lengths."""
    return float(np.bincount(crossings, minlength=_LENGTHS.size) @ _LENGTHS)


def _cell_codes(mask: Mask) -> NDArray[np.uint8]:
    m = mask.view(np.uint8)
    codes = (m[:-1, :-1] << 3) | (m[:-1, 1:] << 2) | (m[1:, :-1] << 1) | m[1:, 1:]
    return codes.astype(np.uint8, copy=False)


def _boundary_iou(prediction: Mask, reference: Mask, width: int) -> float:
    """Jaccard index of the two rims, ``width`` pixels deep inside each mask (Cheng et al. 2021, CVPR).

    arXiv 2103.16562; as in the authors' code, the depth is counted in steps of a 3 x 3 square.
    """
    # Deeper than half the box there is nothing left to erode.
    deep = min(width, max(reference.shape))
    square = np.ones((2 * deep + 1, 2 * deep + 1), np.uint8)
    a, b = (mask & ~_erode(mask, square) for mask in (prediction, reference))
    return ratio(int(np.count_nonzero(a & b)), int(np.count_nonzero(a | b)))
