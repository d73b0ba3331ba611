"""Feret (caliper) diameters: how far apart two parallel lines must be to hold the mask between them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.images.check import as_bytes

Floats = NDArray[np.float64]


def feret(mask: NDArray[np.bool_], spacing: tuple[float, float] = (1.0, 1.0)) -> tuple[float, float]:
    """Largest and smallest Feret diameter of a mask, exact for the set of its square pixels.

    Parameters
    ----------
    mask
        ``bool (H, W)``; several components are taken together.
    spacing
        Distance between pixel centres (row, column): the results are in its unit. (1, 1) gives pixels.

    Returns
    -------
    tuple
        (largest, smallest); zeros for an empty mask.
    """
    hull = pixel_hull(mask)
    if not len(hull):
        return 0.0, 0.0
    return hull_diameters(hull * np.array([spacing[1], spacing[0]]))


def pixel_hull(mask: NDArray[np.bool_]) -> Floats:
    """Convex hull of the corners of the mask's pixels: ``float64 (N, 2)`` of (x, y), N = 0 when empty."""
    centers = center_hull(mask)
    if not len(centers):
        return np.empty((0, 2))
    # In half pixels everything is a whole number, and the hull of whole numbers is exact.
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.int32)
    hull = cv2.convexHull((2 * centers[:, None] + corners).reshape(-1, 1, 2))
    return hull[:, 0].astype(np.float64) / 2


def center_hull(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Convex hull of the centres of the mask's pixels: ``int32 (N, 2)`` of (x, y), N = 0 when empty."""
    contours, _ = cv2.findContours(as_bytes(mask), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return np.empty((0, 2), np.int32)
    return np.asarray(cv2.convexHull(np.concatenate(contours))[:, 0], np.int32)


def hull_diameters(hull: Floats) -> tuple[float, float]:
    """Largest and smallest width of a convex polygon ``(N, 2)``, N of at least 3.

    The largest lies between two vertices; the smallest is perpendicular to an edge (Toussaint 1983). A
    mask's hull has a few hundred vertices, so every pair is compared rather than walking with calipers.
    """
    offsets = hull[:, None, :] - hull[None, :, :]
    largest = float(np.sqrt((offsets**2).sum(axis=2).max()))
    edges = np.roll(hull, -1, axis=0) - hull
    length = np.hypot(edges[:, 0], edges[:, 1])
    # distance of vertex i from the line through edge j
    cross = offsets[:, :, 0] * edges[None, :, 1] - offsets[:, :, 1] * edges[None, :, 0]
    widths = np.abs(cross).max(axis=0) / length
    return largest, float(widths.min())
