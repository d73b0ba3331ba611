"""A reading: the measurements of one mask, in pixels and, where the scale is known, in millimetres."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.errors import UsageError
from dermseg.images.check import as_bytes
from dermseg.measure.basics import Box, describe
from dermseg.measure.feret import feret
from dermseg.measure.perimeter import perimeter
from dermseg.measure.shape import describe_shape

SPACING_LIMITS_MM = (1e-6, 1e3)
"""Least and largest distance between pixel centres: far beyond any microscope or camera, and what is squared
and divided below stays a number."""


@dataclass(frozen=True)
class Reading:
    """Measurements of one mask. What is not known is None: without a scale there are no millimetres.

    Parameters
    ----------
    width, height
        Size of the mask's image in pixels.
    area_px, area_fraction
        Number of mask pixels and their share of the image.
    perimeter_px
        Length of the outlines, see ``measure.perimeter``.
    feret_max_px, feret_min_px
        Largest and smallest caliper diameter.
    equivalent_diameter_px
        Diameter of the disc of the same area.
    circularity
        ``4 pi area / perimeter ** 2``: 1 for a disc, 0.785 for a square, at most 1. Taken in
        millimetres where the scale is known, because unequal spacings change the shape.
    solidity, asymmetry, asymmetry_across
        See ``measure.shape``; the asymmetries in millimetres where the scale is known.
    bbox, centroid
        ``(x, y, width, height)`` and ``(x, y)`` in pixels; the centre of the top left pixel is (0, 0).
    components
        Number of 8-connected parts; all of them are measured together.
    spacing_mm
        Distance between pixel centres (row, column), as in DICOM's PixelSpacing (0028,0030).
    area_mm2, perimeter_mm, feret_max_mm, feret_min_mm, equivalent_diameter_mm
        The same with a scale.
    """

    width: int
    height: int
    area_px: int
    area_fraction: float
    perimeter_px: float
    feret_max_px: float
    feret_min_px: float
    equivalent_diameter_px: float
    circularity: float | None
    solidity: float | None
    asymmetry: float | None
    asymmetry_across: float | None
    bbox: Box | None
    centroid: tuple[float, float] | None
    touches_border: bool
    components: int
    spacing_mm: tuple[float, float] | None
    area_mm2: float | None
    perimeter_mm: float | None
    feret_max_mm: float | None
    feret_min_mm: float | None
    equivalent_diameter_mm: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name, in the order above, to six digits: the same in every table and answer."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_rounded, value))
    return round(value, 6) if isinstance(value, float) else value


def is_spacing(millimetres: float) -> bool:
    """Whether pixel centres can be so far apart; not for NaN."""
    return SPACING_LIMITS_MM[0] <= millimetres <= SPACING_LIMITS_MM[1]


def spacing_words() -> str:
    """Within which limits a spacing must lie, for messages."""
    return f"between {SPACING_LIMITS_MM[0]:f} and {SPACING_LIMITS_MM[1]:g} mm"


def measure_mask(mask: NDArray[np.bool_], spacing_mm: tuple[float, float] | None = None) -> Reading:
    """Measure a mask.

    Parameters
    ----------
    mask
        ``bool (H, W)``.
    spacing_mm
        Millimetres between pixel centres (row, column); None where the scale is unknown.

    Raises
    ------
    MaskError
        Not a mask.
    UsageError
        A spacing outside ``SPACING_LIMITS_MM``.
    """
    if spacing_mm is not None and not all(map(is_spacing, spacing_mm)):
        raise UsageError(f"the spacing must be {spacing_words()}, got {spacing_mm}")
    basics = describe(mask)
    height, width = mask.shape
    # Everything below looks only at the part that holds the mask, with one pixel of background around it.
    part = _crop(mask, basics.box)
    length = perimeter(part)
    widest, narrowest = feret(part)
    shape = describe_shape(part, spacing_mm or (1.0, 1.0))
    area_mm2 = length_mm = widest_mm = narrowest_mm = diameter_mm = None
    if spacing_mm is not None:
        area_mm2 = basics.area * spacing_mm[0] * spacing_mm[1]
        length_mm = perimeter(part, spacing_mm)
        widest_mm, narrowest_mm = feret(part, spacing_mm)
        diameter_mm = _disc_diameter(area_mm2)
    return Reading(
        width=width,
        height=height,
        area_px=basics.area,
        area_fraction=basics.area / mask.size,
        perimeter_px=length,
        feret_max_px=widest,
        feret_min_px=narrowest,
        equivalent_diameter_px=_disc_diameter(basics.area),
        circularity=_circularity(basics.area, length)
        if area_mm2 is None or length_mm is None
        else _circularity(area_mm2, length_mm),
        solidity=None if shape is None else shape.solidity,
        asymmetry=None if shape is None else shape.asymmetry,
        asymmetry_across=None if shape is None else shape.asymmetry_across,
        bbox=basics.box,
        centroid=basics.centroid,
        touches_border=basics.touches_border,
        components=cv2.connectedComponents(as_bytes(part), connectivity=8)[0] - 1,
        spacing_mm=spacing_mm,
        area_mm2=area_mm2,
        perimeter_mm=length_mm,
        feret_max_mm=widest_mm,
        feret_min_mm=narrowest_mm,
        equivalent_diameter_mm=diameter_mm,
    )


def measure_lesions(
    labels: NDArray[np.uint8], spacing_mm: tuple[float, float] | None = None
) -> dict[int, Reading]:
    """Measure each lesion of a label map ``uint8 (H, W)``: number to reading, in the order of the numbers.

    Raises
    ------
    UsageError
        A spacing outside ``SPACING_LIMITS_MM``.
    """
    return {number: measure_mask(mask, spacing_mm) for number, mask in lesion_masks(labels)}


def lesion_masks(labels: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Number and mask of each lesion of a label map ``uint8 (H, W)``, in the order of the numbers."""
    for number in np.flatnonzero(cv2.calcHist([labels], [0], None, [256], [0, 256])):
        if number:
            yield int(number), labels == number


def _crop(mask: NDArray[np.bool_], box: Box | None) -> NDArray[np.bool_]:
    if box is None:
        return np.zeros((1, 1), np.bool_)
    x, y, width, height = box
    return np.pad(mask[y : y + height, x : x + width], 1)


def _disc_diameter(area: float) -> float:
    return 2.0 * math.sqrt(area / math.pi)


def _circularity(area: float, length: float) -> float | None:
    return min(1.0, 4.0 * math.pi * area / length**2) if area else None
