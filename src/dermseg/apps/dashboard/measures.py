"""Measurements as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dermseg.measure.colour import describe_colour
from dermseg.measure.geometry import Reading, lesion_masks
from dermseg.measure.shape import describe_shape

_ROWS = (
    ("Area", "area", "2"),
    ("Perimeter", "perimeter", ""),
    ("Largest diameter", "feret_max", ""),
    ("Smallest diameter", "feret_min", ""),
    ("Equivalent diameter", "equivalent_diameter", ""),
)
_SHAPE = (
    ("Solidity (no dents: 1)", "solidity"),
    ("Asymmetry (mirror image: 0)", "asymmetry"),
    ("Asymmetry across", "asymmetry_across"),
)
_COLOURS = (
    ("Contrast to the skin, ΔE", "contrast"),
    ("Contrast across the border, ΔE", "border_contrast"),
    ("Across its weakest eighth, ΔE", "border_contrast_least"),
    ("Spread of colours, ΔE", "colour_spread"),
    ("Asymmetry of colours, ΔE", "colour_asymmetry"),
)


def character_rows(
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    labels: NDArray[np.uint8] | None,
    spacing: tuple[float, float] | None,
) -> list[dict[str, str]]:
    """Shape and colours of the lesion, or of each of a label map, of a photograph ``uint8 (h, w, 3)``."""
    parts = [(1, mask)] if labels is None else lesion_masks(labels)
    found = [
        (
            number,
            describe_shape(part, spacing or (1.0, 1.0)),
            describe_colour(pixels, part, None if labels is None else mask & ~part),
        )
        for number, part in parts
    ]
    rows = []
    for number, shape, colour in found:
        which = {} if len(found) == 1 else {"Lesion": str(number)}
        for label, name in _SHAPE + _COLOURS:
            value = getattr(shape if (label, name) in _SHAPE else colour, name, None)
            digits = 2 if (label, name) in _SHAPE else 1
            rows.append(
                {**which, "Measure": label, "Value": "unknown" if value is None else f"{value:.{digits}f}"}
            )
    return rows


def lesion_rows(readings: Mapping[int, Reading]) -> list[dict[str, str]]:
    """The rows of each lesion by its number; that is left out where there is one lesion."""
    if len(readings) == 1:
        return measurement_rows(*readings.values())
    return [
        {"Lesion": str(number), **row}
        for number, reading in readings.items()
        for row in measurement_rows(reading)
    ]


def measurement_rows(reading: Reading) -> list[dict[str, str]]:
    """Name and value of each measurement, in millimetres only where the scale is known."""
    rows = []
    for label, name, power in _ROWS:
        row = {"Measure": label, "Pixels": f"{getattr(reading, f'{name}_px'):,.0f}"}
        real = getattr(reading, f"{name}_mm{power}")
        if real is not None:
            row["Millimetres"] = f"{real:,.2f} mm{'²' if power else ''}"
        rows.append(row)
    if reading.circularity is not None:
        row = {"Measure": "Circularity (disc: 1)", "Pixels": f"{reading.circularity:.2f}"}
        if reading.spacing_mm is not None:
            row["Millimetres"] = ""
        rows.append(row)
    return rows
