"""Change between two readings: which scale counts, and when nothing is told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dermseg.measure.align import Alignment
from dermseg.measure.change import ContrastChange, change, contrast_change
from dermseg.measure.colour import Colour
from dermseg.measure.geometry import Reading, measure_mask

STILL = np.eye(2, 3)


def reading(side: int, spacing: float | None = None, at: int = 5) -> Reading:
    mask = np.zeros((200, 200), np.bool_)
    mask[at : at + side, at : at + side] = True
    return measure_mask(mask, None if spacing is None else (spacing, spacing))


def colour(contrast: float | None) -> Colour:
    return Colour(*(40.0, 12.0, 16.0), *(65.0, 12.0, 16.0), contrast, 5.0, 2.0, 15.0, 9.0)


def skin(scale: float | None) -> Alignment:
    return Alignment(STILL, 40, 30, scale, None if scale is None else 0.002)


def test_pixels_alone_say_nothing() -> None:
    for alignment in (None, skin(None)):
        found = change(reading(40), reading(60), alignment)
        assert (found.scale_from, found.area, found.diameter, found.exceeds) == (None, None, None, None)
        assert "no scale" in found.notes[0]


def test_by_the_skin() -> None:
    # the second was taken from farther away: its pixels are 1.5 of the first's
    found = change(reading(60), reading(44), skin(1.5), area_limit=0.1, diameter_limit=0.05)
    assert found.scale_from == "skin" and found.scale == 1.5
    assert found.area == pytest.approx((44 * 1.5 / 60) ** 2 - 1)
    assert found.diameter == pytest.approx(44 * 1.5 / 60 - 1)
    assert found.area_range == pytest.approx((1.21 * math.exp(-0.1) - 1, 1.21 * math.exp(0.1) - 1))
    assert found.exceeds is True and found.notes == ()


def test_by_the_skin_of_a_photograph_with_uneven_pixels() -> None:
    mask = np.zeros((100, 200), np.bool_)
    mask[5:35, 5:65] = True
    # rows twice as far apart as columns: a square, as the first is; pixels are made square before aligning
    uneven, even, scale = measure_mask(mask, (0.04, 0.02)), reading(60), skin(math.sqrt(2))
    found = change(even, uneven, scale)
    assert (found.area, found.diameter) == (pytest.approx(0), pytest.approx(0))
    assert change(uneven, even, skin(math.sqrt(0.5))).diameter == pytest.approx(0)


@pytest.mark.parametrize(("side", "exceeds"), [(41, False), (42, False), (43, True), (37, True), (39, False)])
def test_shrinking_exceeds_as_growing_does(side: int, exceeds: bool) -> None:
    assert change(reading(40), reading(side), skin(1.0), area_limit=0.11).exceeds is exceeds


def test_millimetres_come_first() -> None:
    found = change(reading(40, 0.02), reading(40, 0.03), skin(1.49))
    assert found.scale_from == "spacing" and found.area == pytest.approx(1.25)
    assert found.scale == pytest.approx(1.5) and found.notes == () and found.exceeds is None


def test_millimetres_against_the_skin_are_remarked() -> None:
    found = change(reading(40, 0.02), reading(40, 0.02), skin(1.2))
    assert found.area == pytest.approx(0) and "+20 %" in found.notes[0]


def test_a_single_scale_is_none() -> None:
    assert change(reading(40, 0.02), reading(40), None).scale_from is None


@pytest.mark.parametrize(
    ("first", "second", "which"), [(0, 5, "the first"), (5, 0, "this photograph"), (0, 0, "both")]
)
def test_what_is_cut_off_has_no_size(first: int, second: int, which: str) -> None:
    found = change(reading(40, 0.1, first), reading(50, 0.1, second), None)
    assert found.area is None and found.exceeds is None
    assert len(found.notes) == 1 and which in found.notes[0]


def test_contrast_by_what_an_unchanged_lesion_differs() -> None:
    pale, dark, bare = (colour(contrast) for contrast in (20.0, 27.0, None))
    assert contrast_change(pale, None) is None and contrast_change(pale, bare) is None
    assert contrast_change(dark, pale) == ContrastChange(-7.0)
    assert contrast_change(pale, dark, limit=5.0) == ContrastChange(7.0, (2.0, 12.0), True)
    assert contrast_change(pale, dark, limit=8.0) == ContrastChange(7.0, (-1.0, 15.0), False)
