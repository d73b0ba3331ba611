"""Measurements against shapes whose size is known exactly."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dermseg.errors import MaskError, UsageError
from dermseg.measure.geometry import measure_mask
from dermseg.measure.perimeter import perimeter

Mask = NDArray[np.bool_]


def disc(radius: float, dx: float = 0.0, dy: float = 0.0) -> Mask:
    n = int(2 * radius + 8)
    y, x = np.mgrid[:n, :n]
    return np.hypot(x - n / 2 - dx, y - n / 2 - dy) <= radius


def rectangle(a: float, b: float, angle: float, dx: float = 0.0, dy: float = 0.0) -> Mask:
    n = int(math.hypot(a, b) + 8)
    y, x = np.mgrid[:n, :n]
    x, y = x - n / 2 - dx, y - n / 2 - dy
    u = x * math.cos(angle) + y * math.sin(angle)
    v = y * math.cos(angle) - x * math.sin(angle)
    return (np.abs(u) <= a / 2) & (np.abs(v) <= b / 2)


shift = st.floats(-0.5, 0.5)


@settings(max_examples=50, deadline=None)
@given(radius=st.floats(20, 120), dx=shift, dy=shift)
def test_discs(radius: float, dx: float, dy: float) -> None:
    reading = measure_mask(disc(radius, dx, dy))
    assert reading.perimeter_px == pytest.approx(2 * math.pi * radius, rel=0.02)
    assert reading.equivalent_diameter_px == pytest.approx(2 * radius, rel=0.01)
    assert reading.feret_max_px == pytest.approx(2 * radius, abs=1.5)
    assert reading.feret_min_px == pytest.approx(2 * radius, abs=1.5)
    assert reading.circularity is not None and 0.96 <= reading.circularity <= 1


@settings(max_examples=60, deadline=None)
@given(b=st.floats(30, 80), ratio=st.floats(1, 3), angle=st.floats(0, math.pi), dx=shift, dy=shift)
def test_the_perimeter_of_ellipses_is_within_a_hundredth(
    b: float, ratio: float, angle: float, dx: float, dy: float
) -> None:
    """From a short axis of 60 pixels on, as docs/measuring.md says (of 50, round ones reach 1.2 %)."""
    a = ratio * b
    n = int(2 * a + 8)
    y, x = np.mgrid[:n, :n]
    x, y = x - n / 2 - dx, y - n / 2 - dy
    u = x * math.cos(angle) + y * math.sin(angle)
    v = y * math.cos(angle) - x * math.sin(angle)
    t = np.linspace(0, 2 * math.pi, 2001)
    length = np.hypot(*np.diff([a * np.cos(t), b * np.sin(t)], axis=1)).sum()
    assert perimeter((u / a) ** 2 + (v / b) ** 2 <= 1) == pytest.approx(length, rel=0.01)


@settings(max_examples=50, deadline=None)
@given(a=st.floats(60, 200), ratio=st.floats(0.4, 1), angle=st.floats(0, math.pi), dx=shift, dy=shift)
def test_rectangles_at_any_angle(a: float, ratio: float, angle: float, dx: float, dy: float) -> None:
    b = a * ratio
    reading = measure_mask(rectangle(a, b, angle, dx, dy))
    assert reading.perimeter_px == pytest.approx(2 * (a + b), rel=0.025)
    assert reading.feret_max_px == pytest.approx(math.hypot(a, b), abs=2)
    assert reading.feret_min_px == pytest.approx(b, abs=1.6)
    assert reading.area_px == pytest.approx(a * b, abs=1.1 * (a + b))  # half a pixel all around


@pytest.mark.parametrize("side", [40, 100, 1000])
def test_upright_squares(side: int) -> None:
    reading = measure_mask(np.ones((side, side), np.bool_))
    assert reading.perimeter_px == pytest.approx(4 * side, rel=0.006)
    assert reading.feret_max_px == pytest.approx(side * math.sqrt(2))
    assert reading.feret_min_px == side
    assert reading.area_px == side * side and reading.touches_border and reading.area_fraction == 1


def test_where_it_lies_does_not_change_what_it_measures() -> None:
    shape = rectangle(60, 30, 0.4)
    large = np.zeros((400, 500), np.bool_)
    large[100 : 100 + shape.shape[0], 330 : 330 + shape.shape[1]] = shape
    here, there = measure_mask(shape), measure_mask(large)
    assert there.perimeter_px == here.perimeter_px and there.feret_max_px == here.feret_max_px
    assert here.centroid is not None and there.centroid is not None
    assert there.centroid == pytest.approx((here.centroid[0] + 330, here.centroid[1] + 100))


def test_holes_and_parts_add_their_outlines() -> None:
    ring = disc(60)
    ring &= ~np.pad(disc(30), 30)
    assert measure_mask(ring).perimeter_px == pytest.approx(2 * math.pi * 90, rel=0.02)
    two = np.zeros((100, 200), np.bool_)
    two[10:60, 10:60] = two[10:60, 110:160] = True
    reading = measure_mask(two)
    assert reading.components == 2 and reading.perimeter_px == pytest.approx(400, rel=0.01)
    assert reading.feret_max_px == pytest.approx(math.hypot(150, 50))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 9999), row=st.floats(0.01, 0.2), column=st.floats(0.01, 0.2))
def test_uneven_spacing_measures_the_stretched_shape(seed: int, row: float, column: float) -> None:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(60, 60)), (0, 0), 5)
    mask = noise > noise.mean()
    assume(mask.any())
    plain, even, uneven = (measure_mask(mask, s) for s in (None, (row, row), (row, column)))
    assert plain.area_mm2 is plain.perimeter_mm is plain.feret_max_mm is plain.spacing_mm is None
    assert even.perimeter_mm == pytest.approx(plain.perimeter_px * row)
    assert even.feret_min_mm == pytest.approx(plain.feret_min_px * row)
    assert even.circularity == pytest.approx(plain.circularity)
    assert uneven.area_mm2 == pytest.approx(plain.area_px * row * column)
    low, high = sorted((row, column))
    assert uneven.perimeter_mm is not None and uneven.feret_max_mm is not None
    assert low * 0.999 <= uneven.perimeter_mm / plain.perimeter_px <= high * 1.001
    assert low * 0.999 <= uneven.feret_max_mm / plain.feret_max_px <= high * 1.001


def test_an_ellipse_of_pixels_is_a_disc_in_millimetres() -> None:
    mask = np.zeros((220, 420), np.uint8)
    cv2.ellipse(mask, (210, 110), (200, 100), 0, 0, 360, 1, cv2.FILLED)
    reading = measure_mask(mask > 0, (0.02, 0.01))
    assert reading.perimeter_mm == pytest.approx(2 * math.pi * 2, rel=0.015)
    assert reading.feret_min_mm == pytest.approx(reading.feret_max_mm, rel=0.01)
    assert reading.circularity is not None and reading.circularity > 0.97


def test_a_single_pixel_is_an_ellipse_of_its_spacings() -> None:
    t = np.linspace(0, 2 * math.pi, 4001)
    steps = np.diff([0.03 * np.cos(t), 0.01 * np.sin(t)], axis=1)
    reading = measure_mask(np.ones((1, 1), np.bool_), (0.02, 0.06))
    assert reading.perimeter_mm == pytest.approx(np.hypot(*steps).sum(), rel=4e-4)


def test_two_pixels_have_a_longer_outline_than_one() -> None:
    reading = measure_mask(np.ones((1, 2), np.bool_))
    assert 2 * reading.feret_max_px <= reading.perimeter_px <= 6
    assert reading.circularity is not None and reading.circularity < 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999), h=st.integers(1, 12), w=st.integers(1, 12), share=st.floats(0.05, 1))
def test_any_mask_gives_consistent_numbers(seed: int, h: int, w: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((h, w)) < share
    reading = measure_mask(mask)
    assert reading.area_px == mask.sum()
    if not mask.any():
        assert reading.circularity is reading.bbox is reading.centroid is None
        assert reading.perimeter_px == reading.feret_max_px == 0
        return
    y, x = np.nonzero(mask)
    assert reading.centroid == pytest.approx((x.mean(), y.mean()))
    assert reading.bbox == (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1)
    assert reading.touches_border == (mask[[0, -1]].any() or mask[:, [0, -1]].any())
    assert 1 <= reading.feret_min_px <= reading.feret_max_px
    assert reading.circularity is not None and 0 < reading.circularity <= 1
    corners = np.concatenate([np.stack([x + i, y + j], 1) for i in (0, 1) for j in (0, 1)])
    spread = np.hypot(*(corners[:, None] - corners[None]).transpose(2, 0, 1)).max()
    assert reading.feret_max_px == pytest.approx(spread)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 9999), row=st.floats(0.005, 1), column=st.floats(0.005, 1))
def test_small_holes_never_take_from_the_outline(seed: int, row: float, column: float) -> None:
    mask = np.random.default_rng(seed).random((12, 12)) < 0.6
    assume(mask.any())
    solid = np.ones((14, 14), np.bool_)
    solid[1:-1, 1:-1] = mask | np.pad(np.zeros((10, 10), np.bool_), 1, constant_values=True)
    reading, full = (
        measure_mask(solid, (row, column)),
        measure_mask(np.ones((14, 14), np.bool_), (row, column)),
    )
    assert reading.perimeter_mm is not None and full.perimeter_mm is not None
    assert reading.perimeter_mm >= full.perimeter_mm * 0.999


def test_a_hole_of_one_pixel_has_an_outline() -> None:
    solid = np.ones((30, 30), np.bool_)
    holed = solid.copy()
    holed[10, 10] = False
    more = measure_mask(holed).perimeter_px - measure_mask(solid).perimeter_px
    assert 2 < more < 4  # a pixel's edges are 4 long, the disc of its diameter pi


def test_what_is_not_a_mask_or_a_spacing_is_refused() -> None:
    with pytest.raises(MaskError, match="uint8"):
        measure_mask(np.zeros((3, 3), np.uint8))  # type: ignore[arg-type]
    for spacing in ((0.0, 1.0), (1.0, -1.0), (float("nan"), 1.0), (1e300, 1e300), (1e-300, 1e-300)):
        with pytest.raises(UsageError, match="spacing"):
            measure_mask(np.ones((3, 3), np.bool_), spacing)
    for spacing in ((1e-6, 1e-6), (1e3, 1e3)):  # the limits themselves are measured
        measured = measure_mask(np.ones((3, 3), np.bool_), spacing)
        assert measured.area_mm2 == pytest.approx(9 * spacing[0] ** 2)
