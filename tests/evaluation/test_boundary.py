"""Distances between outlines: what must hold for every pair, and the empty-mask rule."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from dermseg.errors import MaskError
from dermseg.evaluation.boundary import BOUNDARY_METRICS, boundary_metrics

Masks = tuple[np.ndarray, np.ndarray]


def square(top: int, left: int, side: int = 20, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    mask = np.zeros(shape, np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


@st.composite
def mask_pairs(draw: st.DrawFn) -> Masks:
    shape = draw(array_shapes(min_dims=2, max_dims=2, max_side=12))
    return draw(arrays(np.bool_, shape)), draw(arrays(np.bool_, shape))


@settings(deadline=None)
@given(mask_pairs())
def test_exchange_and_transposition_change_nothing(masks: Masks) -> None:
    a, b = masks
    found = boundary_metrics(a, b)
    assert found == pytest.approx(boundary_metrics(b, a))
    assert found == pytest.approx(boundary_metrics(a.T, b.T))
    assert all(0 <= found[name] <= 1 for name in ("surface_dice", "boundary_iou", "hd95_diagonal"))  # type: ignore[operator]


@settings(deadline=None)
@given(mask_pairs())
def test_a_mask_is_no_distance_from_itself(masks: Masks) -> None:
    found = boundary_metrics(masks[0], masks[0], tolerance_px=0.0)
    perfect = {name: 1.0 if name in ("surface_dice", "boundary_iou") else 0.0 for name in BOUNDARY_METRICS}
    assert found == {**perfect, "hd95_mm": None, "assd_mm": None}


@settings(deadline=None)
@given(mask_pairs(), st.floats(0.01, 10), st.integers(0, 5))
def test_scale_and_frame(masks: Masks, spacing: float, margin: int) -> None:
    """Millimetres are pixels times the spacing, and skin around both lesions changes no distance."""
    a, b = masks
    found = boundary_metrics(a, b, spacing_mm=(spacing, spacing), tolerance_px=2.0)
    assert found["hd95_mm"] == pytest.approx(spacing * found["hd95_px"])  # type: ignore[operator]
    assert found["assd_mm"] == pytest.approx(spacing * found["assd_px"])  # type: ignore[operator]
    if a.any() == b.any():
        wider = boundary_metrics(np.pad(a, margin), np.pad(b, margin), tolerance_px=2.0)
        for name in ("hd95_px", "assd_px", "surface_dice"):
            assert wider[name] == pytest.approx(found[name])


def test_a_shift_by_hand() -> None:
    """A square moved by 7: each right and left side is 7 off, half of the top and bottom none."""
    found = boundary_metrics(square(20, 30), square(20, 37), tolerance_px=3.0)
    assert found["hd95_px"] == 7.0
    assert found["hd95_diagonal"] == 7.0 / 100
    assert 1.5 < found["assd_px"] < 4  # type: ignore[operator]
    assert 0.45 < found["surface_dice"] < 0.55  # type: ignore[operator]
    assert boundary_metrics(square(20, 30), square(20, 37), tolerance_px=7.0)["surface_dice"] == 1.0


def test_the_empty_mask_rule() -> None:
    empty, lesion = np.zeros((30, 40), np.bool_), square(3, 3, 5, (30, 40))
    both = boundary_metrics(empty, empty, spacing_mm=(0.1, 0.1))
    assert both == {n: 1.0 if n in ("surface_dice", "boundary_iou") else 0.0 for n in BOUNDARY_METRICS}
    for pair in ((empty, lesion), (lesion, empty)):
        one = boundary_metrics(*pair, spacing_mm=(0.1, 0.2))
        assert (one["hd95_px"], one["assd_px"], one["hd95_diagonal"]) == (50.0, 50.0, 1.0)
        assert one["hd95_mm"] == pytest.approx(math.hypot(3, 8))
        assert (one["surface_dice"], one["boundary_iou"]) == (0.0, 0.0)


def test_refuses_other_sizes() -> None:
    with pytest.raises(MaskError, match="pixels"):
        boundary_metrics(np.zeros((3, 4), np.bool_), np.zeros((4, 3), np.bool_))


def test_masks_at_native_size_fit_in_memory() -> None:
    """Each CPU has a pair at once: with floats of every pixel 24 megapixels took half a gigabyte."""
    a, b = square(5, 5, 990, (1000, 1000)), square(0, 5, 990, (1000, 1000))
    tracemalloc.start()
    boundary_metrics(a, b)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 * a.size
