"""Margins: the outer and the inner line around an outline, in the geometry of the photograph.

A line lies lambda times the root of the lesion's area away from the outline: a lesion twice as wide gets a
margin twice as wide. (On calibration images, widths that also follow the network's doubt, or that follow a
level of its probability, gave regions of the same size to 2 %; the plain dilation is the one that can be
drawn with a ruler.)

Distances are Euclidean in the photograph (the network's grid stretches it, so they are not measured there),
on a grid of at most ``GRID_SIDE`` nodes a side: finer than any margin, and the same work for 1 and for 100
megapixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.errors import ModelError, UsageError
from dermseg.images.overlay import CASING, line_widths
from dermseg.images.resize import area_mean
from dermseg.inference.postprocess import Cleaned, upsample_mask
from dermseg.uncertainty.maps import Floats
from dermseg.uncertainty.trust import FIT_HINT, Trust

Mask = NDArray[np.bool_]

DEFAULT_ALPHA = 0.1
GRID_SIDE = 256
_LINE = (255, 255, 255)


@dataclass(frozen=True, slots=True, eq=False)
class Margins:
    """Outer and inner region of one outline at one level.

    Attributes
    ----------
    outer, inner
        ``bool (H, W)`` at the image's own size. At most ``alpha`` of the lesion is expected to lie outside
        ``outer``; at most ``alpha`` of ``inner`` is expected not to be lesion.
    outer_px, inner_px
        How far the lines lie outside and inside the outline, in pixels; None where there is no lesion.
    outer_mm, inner_mm
        The same where the scale is known.
    """

    outer: Mask
    inner: Mask
    alpha: float
    outer_px: float | None
    inner_px: float | None
    outer_mm: float | None
    inner_mm: float | None


def draw_margins(
    mask: Mask,
    trust: Trust,
    alpha: float = DEFAULT_ALPHA,
    *,
    spacing_mm: tuple[float, float] | None = None,
) -> Margins:
    """The margins of an outline.

    Parameters
    ----------
    mask
        ``bool (H, W)``: what the model drew.
    trust
        What was fitted for the model.
    spacing_mm
        Distance between pixel centres (row, column) in millimetres. Unequal ones give no millimetres: a
        dilation in pixels is an ellipse there.

    Raises
    ------
    UsageError
        The model has no margin at this level.
    """
    outer, inner = trust.outer.at(alpha), trust.inner.at(alpha)
    area = int(np.count_nonzero(mask))
    px = [limit * math.sqrt(area) if area else None for limit in (outer, inner)]
    square = spacing_mm is not None and math.isclose(*spacing_mm, rel_tol=0.01)
    mm = [d * spacing_mm[0] if spacing_mm and square and d is not None else None for d in px]
    distance = outline_distance(to_margin_grid(mask))
    return Margins(
        _region(distance, outer, mask) | mask,
        _region(distance, -inner, mask) & mask,
        alpha,
        px[0],
        px[1],
        mm[0],
        mm[1],
    )


def no_margins(trust: Trust | None) -> str:
    """Why a model has no margins that could be drawn, in words; empty where it has."""
    if trust is None:
        return "No margins: none were fitted for this model (dermseg uncertainty fit)."
    try:
        check_margins(trust, DEFAULT_ALPHA, "")
    except UsageError as error:
        what = f"the images that this model was fitted on allow none of level {DEFAULT_ALPHA:g}"
        return f"No margins: {what} ({error.hint})."
    return ""


def check_margins(trust: Trust | None, alpha: float, name: str) -> None:
    """Refuse a level before any work is done.

    Raises
    ------
    ModelError
        Nothing was fitted for the model ``name``.
    UsageError
        It has no margin at this level.
    """
    if trust is None:
        raise ModelError(f"no margins were fitted for model '{name}'", hint=FIT_HINT)
    trust.outer.at(alpha)
    trust.inner.at(alpha)


def trace_margins(picture: NDArray[np.uint8], margins: Margins) -> NDArray[np.uint8]:
    """Both lines drawn on a copy of a picture ``uint8 (h, w, 3)`` RGB of the image, at any scale."""
    canvas = picture.copy()
    height, width = picture.shape[:2]
    core, casing = line_widths(width, height)
    for region in (margins.outer, margins.inner):
        small = cv2.resize(region.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        lines, _ = cv2.findContours(np.asarray(small), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for thickness, colour in ((casing, CASING), (core, _LINE)):
            cv2.polylines(canvas, lines, True, colour, thickness, cv2.LINE_AA)
    return canvas


def margin_grid(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the grid for an image of ``size``: its aspect, at most ``GRID_SIDE`` a side."""
    scale = min(1.0, GRID_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def to_margin_grid(mask: Mask) -> Mask:
    """A mask on its margin grid."""
    return shrink_mask(mask, margin_grid((mask.shape[0], mask.shape[1])))


def shrink_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask on a grid ``size = (h, w)``: where at least half of what a node covers is lesion."""
    if mask.shape == size:
        return mask
    return area_mean(mask.astype(np.float32), *size) >= 0.5


def outline_distance(mask: Mask) -> Floats:
    """Signed distance from the outline in roots of the lesion's area, ``float32``, negative inside.

    The outline runs half way between two nodes. ``inf`` everywhere where the mask is empty; where it is
    full, the outline is the frame of the image.
    """
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    inside = mask.astype(np.uint8)
    # The frame counts as outside only where nothing else is: a lesion that is cut off goes on beyond it.
    padded = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0) if inside.all() else inside
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    if inside.all():
        depth = depth[1:-1, 1:-1]
        away = np.zeros_like(depth)
    else:
        away = cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    signed = np.where(mask, np.float32(0.5) - depth, away - np.float32(0.5))
    return np.asarray(signed / math.sqrt(int(inside.sum())), np.float32)


def _region(distance: Floats, limit: float, mask: Mask) -> Mask:
    """Where ``distance`` is at most ``limit``, at the size of ``mask``."""
    height = np.negative(distance)
    nodes = (height >= np.float32(-limit)).astype(np.uint8)
    size = (mask.shape[0], mask.shape[1])
    if not nodes.any():
        return np.zeros(size, np.bool_)
    return upsample_mask(Cleaned(height, nodes, 1, 0, -limit), size)
