"""What has become of a lesion between two photographs: change of size, in what scale, and of contrast.

A ratio needs a scale that both photographs share. That is, in this order: millimetres, where both are
calibrated; the skin around the lesion, where it can be recognised; else nothing, and no change is told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dermseg.measure.align import Alignment
from dermseg.measure.colour import Colour
from dermseg.measure.geometry import Reading

ScaleFrom = Literal["spacing", "skin"]
_DISAGREE = 0.05  # given scales that differ by more from what the skin says are worth a remark


@dataclass(frozen=True)
class Change:
    """A second reading of a lesion against a first.

    Attributes
    ----------
    scale_from
        What both readings were brought to one scale by; None where nothing could.
    scale
        Pixels of the first for each pixel of the second.
    area, diameter
        Relative change of area and largest diameter: 0.1 is a tenth more. None where it is not known.
    area_range, diameter_range
        From where to where the change lies, by what measurements of an unchanged lesion differ (see
        ``uncertainty.repeatability``); None where that is not known.
    exceeds
        Whether the area has changed by more than that; None where it is not known.
    notes
        Why something is not known, or odd, in plain words.
    """

    scale_from: ScaleFrom | None
    scale: float | None
    area: float | None
    diameter: float | None
    area_range: tuple[float, float] | None = None
    diameter_range: tuple[float, float] | None = None
    exceeds: bool | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ContrastChange:
    """How much more or less a lesion stands out from its skin than in a first photograph.

    Attributes
    ----------
    change
        Second minus first contrast, delta E*ab.
    range
        From where to where the change lies, by what an unchanged lesion differs; None where not known.
    exceeds
        Whether it has changed by more than that; None where it is not known.
    """

    change: float
    range: tuple[float, float] | None = None
    exceeds: bool | None = None


def contrast_change(
    first: Colour | None, second: Colour | None, *, limit: float | None = None
) -> ContrastChange | None:
    """Compare the contrasts of two photographs; None where one of them is not known.

    Parameters
    ----------
    limit
        Within what contrasts of an unchanged lesion differ, up or down.
    """
    if first is None or second is None or first.contrast is None or second.contrast is None:
        return None
    by = second.contrast - first.contrast
    if limit is None:
        return ContrastChange(by)
    return ContrastChange(by, (by - limit, by + limit), abs(by) > limit)


def change(
    first: Reading,
    second: Reading,
    alignment: Alignment | None,
    *,
    area_limit: float | None = None,
    diameter_limit: float | None = None,
) -> Change:
    """Compare two readings of one lesion.

    Parameters
    ----------
    first, second
        Of masks that are not empty.
    alignment
        How the second photograph lies on the first; None where that is not known.
    area_limit, diameter_limit
        Within what the logarithm of the ratio stays, up or down, where nothing has changed.
    """
    scale_from, scale, notes = _scale(first, second, alignment)
    if first.touches_border or second.touches_border:
        which = {(True, True): "both photographs", (True, False): "the first photograph"}
        where = which.get((first.touches_border, second.touches_border), "this photograph")
        reason = f"the lesion reaches the edge of {where}: its size is not known"
        return Change(scale_from, scale, None, None, notes=(reason, *(notes if scale_from else ())))
    if scale_from is None:
        return Change(None, None, None, None, notes=notes)
    area, diameter = _ratios(first, second, scale_from, scale)
    return Change(
        scale_from=scale_from,
        scale=scale,
        area=area - 1,
        diameter=diameter - 1,
        area_range=_range(area, area_limit),
        diameter_range=_range(diameter, diameter_limit),
        exceeds=None if area_limit is None else abs(math.log(area)) > area_limit,
        notes=notes,
    )


def _scale(
    first: Reading, second: Reading, alignment: Alignment | None
) -> tuple[ScaleFrom | None, float | None, tuple[str, ...]]:
    """What gives the scale, the scale in pixels of the first for one of the second, and remarks."""
    skin = None if alignment is None else alignment.scale
    if first.spacing_mm is None or second.spacing_mm is None:
        if skin is not None:
            return "skin", skin, ()
        found = "it cannot be recognised" if alignment is None else f"{alignment.skin_matches} landmarks"
        why = f"no scale: no millimetres, and the skin around the lesion shows too little ({found})"
        return None, None, (why,)
    given = math.sqrt(math.prod(second.spacing_mm) / math.prod(first.spacing_mm))
    if skin is None or abs(math.log(skin / given)) <= _DISAGREE:
        return "spacing", given, ()
    by = 100 * (skin / given - 1)
    note = f"by the skin around the lesion the scale is {by:+.0f} % off: check the millimetres of both"
    return "spacing", given, (note,)


def _ratios(
    first: Reading, second: Reading, scale_from: ScaleFrom, scale: float | None
) -> tuple[float, float]:
    """Ratio of areas and of largest diameters, second by first."""
    if scale_from == "spacing":
        assert first.area_mm2 and second.area_mm2 and first.feret_max_mm and second.feret_max_mm
        return second.area_mm2 / first.area_mm2, second.feret_max_mm / first.feret_max_mm
    assert scale is not None
    area = second.area_px * scale**2 / first.area_px
    return area, _square_diameter(second) * scale / _square_diameter(first)


def _square_diameter(reading: Reading) -> float:
    """The largest diameter in pixels; of uneven spacing in square ones of the same area, as the scale is."""
    if reading.spacing_mm is None or reading.feret_max_mm is None:
        return reading.feret_max_px
    return reading.feret_max_mm / math.sqrt(math.prod(reading.spacing_mm))


def _range(ratio: float, limit: float | None) -> tuple[float, float] | None:
    if limit is None:
        return None
    return ratio * math.exp(-limit) - 1, ratio * math.exp(limit) - 1
