"""Solidity and asymmetry against definitions carried out by brute force."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from dermseg.errors import MaskError
from dermseg.measure.shape import describe_shape

Mask = NDArray[np.bool_]


def ellipse(a: float, b: float, angle: float, center: tuple[float, float], n: int = 240) -> Mask:
    y, x = np.mgrid[:n, :n].astype(float)
    x, y = x - center[0], y - center[1]
    u = x * math.cos(angle) + y * math.sin(angle)
    v = y * math.cos(angle) - x * math.sin(angle)
    return (u / a) ** 2 + (v / b) ** 2 <= 1


def blob(seed: int, n: int = 240) -> Mask:
    """Some ellipses together: dents, gaps, no symmetry."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((n, n), np.bool_)
    for _ in range(rng.integers(2, 5)):
        center = tuple(rng.uniform(0.35, 0.65, 2) * n)
        mask |= ellipse(*rng.uniform(0.06, 0.2, 2) * n, rng.uniform(0, math.pi), center, n)
    return mask


def folded(mask: Mask, angle: float) -> float:
    """Share of the area without mirror image, the mask mirrored as a picture."""
    y, x = np.nonzero(mask)
    center = np.array([x.mean(), y.mean()])
    c, s = math.cos(2 * angle), math.sin(2 * angle)
    turn = np.array([[c, s], [s, -c]])
    matrix = np.column_stack([turn, center - turn @ center])
    image = cv2.warpAffine(mask.astype(np.float32), matrix, mask.shape[::-1], flags=cv2.INTER_LINEAR)
    return float(np.abs(mask - np.asarray(image)).sum() / 2 / mask.sum())


@settings(max_examples=40)
@given(
    a=st.floats(30, 90),
    ratio=st.floats(0.3, 1),
    angle=st.floats(0, math.pi),
    dx=st.floats(-0.5, 0.5),
    dy=st.floats(-0.5, 0.5),
)
def test_ellipses_are_symmetric_and_have_no_dents(
    a: float, ratio: float, angle: float, dx: float, dy: float
) -> None:
    shape = describe_shape(ellipse(a, a * ratio, angle, (120 + dx, 120 + dy)))
    assert shape is not None and shape.solidity > 0.985
    assert shape.asymmetry <= shape.asymmetry_across < 0.04  # of nine pixels across, the edge is that much


@pytest.mark.parametrize("seed", range(12))
def test_asymmetry_is_what_folding_leaves_over(seed: int) -> None:
    mask = blob(seed)
    every = [folded(mask, math.radians(degrees)) for degrees in range(180)]
    best = int(np.argmin(every))
    shape = describe_shape(mask)
    assert shape is not None
    assert shape.asymmetry == pytest.approx(every[best], abs=0.01)
    across = [every[(best + 90 + off) % 180] for off in (-2, -1, 0, 1, 2)]
    assert min(across) - 0.01 < shape.asymmetry_across < max(across) + 0.01


@pytest.mark.parametrize("seed", range(6))
def test_solidity_counts_the_pixels_of_the_hull(seed: int) -> None:
    mask = blob(seed, 60)
    points = np.argwhere(mask)
    every = np.argwhere(np.ones_like(mask))
    inside = int((Delaunay(points).find_simplex(every, tol=1e-9) >= 0).sum())
    shape = describe_shape(mask)
    assert shape is not None and shape.solidity == pytest.approx(mask.sum() / inside, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_turned_mirrored_enlarged_or_elsewhere_it_is_the_same_shape(seed: int) -> None:
    mask = blob(seed)
    whole = describe_shape(mask)
    assert whole is not None
    for other in (mask[::-1], mask.T, np.pad(mask, ((300, 0), (40, 9))), blob(seed, 960)):
        shape = describe_shape(np.ascontiguousarray(other))
        assert shape is not None
        assert shape.asymmetry == pytest.approx(whole.asymmetry, abs=0.006)
        assert shape.asymmetry_across == pytest.approx(whole.asymmetry_across, abs=0.012)
        assert shape.solidity == pytest.approx(whole.solidity, abs=0.01)


def test_unequal_spacing_is_undone() -> None:
    whole = describe_shape(blob(3))
    squeezed = describe_shape(np.ascontiguousarray(blob(3)[:, ::2]), (0.1, 0.2))
    assert whole is not None and squeezed is not None
    assert squeezed.asymmetry == pytest.approx(whole.asymmetry, abs=0.01)
    assert squeezed.asymmetry_across == pytest.approx(whole.asymmetry_across, abs=0.015)


@pytest.mark.parametrize("mask", [np.ones((1, 1), bool), np.ones((1, 30), bool), np.eye(9, dtype=bool)])
def test_points_and_lines_are_whole_and_symmetric(mask: Mask) -> None:
    shape = describe_shape(mask)
    assert shape is not None and shape.solidity == 1 and 0 <= shape.asymmetry < 0.15


def test_nothing_has_no_shape() -> None:
    assert describe_shape(np.zeros((5, 5), np.bool_)) is None
    with pytest.raises(MaskError):
        describe_shape(np.zeros((5, 5), np.uint8))  # type: ignore[arg-type]
