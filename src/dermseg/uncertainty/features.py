"""One image in ten numbers: what its probability map tells about how good the outline may be.

All are measured on a grid of at most ``GRID`` nodes a side, so they cost the same for every image (about a
millisecond). None of them knows the reference. Names and order are part of what is stored in a bundle.
(More were tried: precision and recall, compactness, spread over flips and dropout passes, features of the
encoder, a small network that looks at image and map. With images left out none predicted better than these.)
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.uncertainty.maps import Floats, binary_entropy

GRID = 128
_EPS = 1e-6

MAP_FEATURES: tuple[str, ...] = (
    "expected_dice",
    "mean_inside",
    "entropy_band",
    "dice_at_0.05",
    "dice_at_0.95",
    "sharpness",
    "log_area",
    "components",
    "solidity",
    "border_share",
)


def map_features(probability: Floats, mask: NDArray[np.bool_], threshold: float) -> dict[str, float]:
    """Features of one probability map and the outline drawn on it, in the order of ``MAP_FEATURES``.

    Parameters
    ----------
    probability
        ``float32 (h, w)``, calibrated, on the network's grid.
    mask
        ``bool (h, w)``: the lesion after post-processing, on the same grid.
    threshold
        That the outline was drawn at.
    """
    p, inside = _to_grid(probability), _to_grid(mask.astype(np.float32)) >= 0.5
    area = int(np.count_nonzero(inside))
    overlap = float(p[inside].sum())
    count, _ = cv2.connectedComponents((p >= threshold).astype(np.uint8), connectivity=8)
    edges = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    values = {
        # the Dice that is expected if every pixel is lesion with its own probability
        "expected_dice": 2 * overlap / (float(p.sum()) + area + _EPS),
        "mean_inside": overlap / (area + _EPS),
        "entropy_band": _band_entropy(p, inside),
        # how much the outline depends on the threshold
        "dice_at_0.05": _dice(p >= 0.05, inside),
        "dice_at_0.95": _dice(p >= 0.95, inside),
        "sharpness": _sharpness(p, inside),
        "log_area": float(np.log((area + 1) / inside.size)),
        "components": float(np.log(count)),  # the background is one of them
        "solidity": _solidity(inside),
        "border_share": float(edges.mean()),
    }
    return {name: values[name] for name in MAP_FEATURES}


def _to_grid(values: Floats) -> Floats:
    h, w = values.shape
    if max(h, w) <= GRID:
        return values
    size = (min(w, GRID), min(h, GRID))
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32)


def _band_entropy(p: Floats, inside: NDArray[np.bool_]) -> float:
    """Mean entropy within a tenth of the lesion's size on both sides of the outline, in bits."""
    r = max(1, round(0.1 * int(np.count_nonzero(inside)) ** 0.5))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1))
    grey = inside.astype(np.uint8)
    band = np.asarray(cv2.dilate(grey, disc)) != np.asarray(cv2.erode(grey, disc))
    return float(binary_entropy(p[band]).mean()) if band.any() else 0.0


def _dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2 * int(np.count_nonzero(a & b)) / total if total else 1.0


def _sharpness(p: Floats, inside: NDArray[np.bool_]) -> float:
    """Mean slope of the map across the outline, in units of the lesion's size."""
    edge = inside & (cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    if min(p.shape) < 2 or not edge.any():
        return 0.0
    # central differences, one-sided at the frame, of the few nodes that are asked for
    y, x = np.nonzero(edge)
    up, down = np.maximum(y - 1, 0), np.minimum(y + 1, p.shape[0] - 1)
    left, right = np.maximum(x - 1, 0), np.minimum(x + 1, p.shape[1] - 1)
    slope = np.hypot((p[down, x] - p[up, x]) / (down - up), (p[y, right] - p[y, left]) / (right - left))
    return float(np.log1p(slope.mean() * np.count_nonzero(inside) ** 0.5))


def _solidity(inside: NDArray[np.bool_]) -> float:
    """Area of the lesion over that of its convex hull; 0 without a lesion."""
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return 0.0
    contour = max(contours, key=len)
    # The contour runs through pixel centres: half its length more is the area that the pixels cover.
    hull = cv2.contourArea(cv2.convexHull(contour)) + cv2.arcLength(contour, closed=True) / 2 + 2
    return float(min(np.count_nonzero(inside) / hull, 1.0))
